#!/usr/bin/env python3
"""Writes lm-eval tasks in the shape of known ones over the repository's own prompts, and the model folder that they are meant for.
Usage: make_tasks.py FOLDER. Leaves FOLDER/tasks (for --include_path) and FOLDER/model (data/tiny-moe with a chat template)."""
import json
import pathlib
import re
import shutil
import sys

import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
TASKS = ("shape_hellaswag", "shape_arc", "shape_lambada", "shape_mmlu", "shape_gsm8k", "shape_wikitext")
MEAN = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
ENDS = ("a different ending, which nobody expects.", "and so on", "\u00fcber alles, na\u00efve")


def prompts():
    return [json.loads(line)["prompt"] for line in open(REPO / "data/prompts.jsonl")]


def halves(text):
    """A text of several words, parted in its middle; the space goes with the second part."""
    spaces = [found.start() for found in re.finditer(" ", text)]
    at = spaces[len(spaces) // 2]
    return text[:at], text[at:]


def shapes():
    """Each task's documents, and how they are read."""
    texts = [text for text in prompts() if text.count(" ") >= 6]
    parted = [halves(text) for text in texts]
    long = " ".join(texts * 2)  # more than the model's 2,048 positions

    hellaswag = [{"ctx": begin + (" " if i % 3 == 0 else ""), "endings": [end.strip(), *(parted[(i + k) % len(parted)][1].strip() for k in (1, 5, 9))], "label": 0}
                 for i, (begin, end) in enumerate(parted[:16])]
    hellaswag.append({"ctx": long, "endings": ["the whale", *ENDS], "label": 1})  # cut on the left
    hellaswag.append({"ctx": "", "endings": ["The beginning", "An end", *ENDS[:2]], "label": 0})  # the prefix token alone
    yield "shape_hellaswag", hellaswag, {"output_type": "multiple_choice", "doc_to_text": "{{ctx}}", "doc_to_choice": "endings", "doc_to_target": "label", "metric_list": MEAN}

    arc = [{"question": f"How does it go on: {begin}?", "choices": [end.strip(), *ENDS], "answer": 0} for begin, end in parted[:12]]
    yield "shape_arc", arc, {"output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "choices", "doc_to_target": "answer",
                             "num_fewshot": 2, "fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}, "metric_list": MEAN}

    lambada = [{"begin": text.rsplit(" ", 1)[0], "last": text.rsplit(" ", 1)[1]} for text in texts[:16]]
    yield "shape_lambada", lambada, {"output_type": "loglikelihood", "doc_to_text": "{{begin}}", "doc_to_target": "{{' ' + last}}",
                                     "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                                                     {"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}

    mmlu = [{"question": begin, "a": [end.strip(), *ENDS][(0 - i) % 4], "b": [end.strip(), *ENDS][(1 - i) % 4], "c": [end.strip(), *ENDS][(2 - i) % 4],
             "d": [end.strip(), *ENDS][(3 - i) % 4], "answer": i % 4} for i, (begin, end) in enumerate(parted[:12])]
    yield "shape_mmlu", mmlu, {"output_type": "multiple_choice", "doc_to_text": "{{question}}\nA. {{a}}\nB. {{b}}\nC. {{c}}\nD. {{d}}\nAnswer:",
                               "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "answer", "num_fewshot": 3, "fewshot_split": "test",
                               "fewshot_config": {"sampler": "first_n"}, "metric_list": MEAN[:1]}

    gsm8k = [{"question": text, "answer": ("and", "the", "a", "certain")[i % 4]} for i, text in enumerate(texts[:16])]
    yield "shape_gsm8k", gsm8k, {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
                                 "generation_kwargs": {"until": ["\n\n", ".", "Question:"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 24},
                                 "filter_list": [{"name": "first-word", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]}],
                                 "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}]}

    wikitext = [{"page": page} for page in (" ".join(texts[:20]), texts[0], "<|endoftext|>" + texts[1] + " <|endoftext|> end", "\u4e2d\u6587 \U0001f600 caf\u00e9")]
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    yield "shape_wikitext", wikitext, {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "page", "metric_list": [{"metric": name} for name in names]}
    yield "shape_positions", [{"page": long}], {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "page", "metric_list": [{"metric": names[0]}]}


def make_tasks(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents, config in shapes():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(document) + "\n" for document in documents))
        config = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
                  "target_delimiter": " ", "metadata": {"version": 1}, **config}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def make_model(folder):
    shutil.copytree(REPO / "data/tiny-moe", folder, dirs_exist_ok=True)
    shutil.copy(REPO / "tests/golden/text/qwen3.jinja", folder / "chat_template.jinja")


if __name__ == "__main__":
    to = pathlib.Path(sys.argv[1]).resolve()
    make_tasks(to / "tasks")
    make_model(to / "model")
