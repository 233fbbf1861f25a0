"""The evaluations that are compared, with lm-eval's options; also what golden.json holds. max_length is the model's argument."""
SHAPES = "shape_hellaswag,shape_arc,shape_lambada,shape_mmlu,shape_gsm8k,shape_wikitext"
RUNS = {
    "shapes": {"tasks": SHAPES, "max_length": 512},
    "positions": {"tasks": "shape_positions"},  # windows of all the model's positions, and the token behind them
    "chat": {"tasks": "shape_gsm8k", "options": ["--apply_chat_template", "--num_fewshot", "2", "--limit", "6"]},
}


def samples(folder):
    """{task: {document: its responses}} of what --log_samples left in `folder`."""
    import json

    found = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        for line in path.read_text().split("\n"):
            if line:
                sample = json.loads(line)
                found.setdefault(path.name.removeprefix("samples_").rsplit("_", 1)[0], {})[str(sample["doc_id"])] = [response[0] for response in sample["resps"]]
    return found


def table(folder):
    """{task: {metric: value}} of the results in `folder`, without standard errors."""
    import json

    results = json.loads(max(folder.rglob("results_*.json")).read_text())["results"]
    return {task: {name: value for name, value in metrics.items() if "," in name and "_stderr" not in name} for task, metrics in results.items()}
