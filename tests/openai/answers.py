"""Answers to OpenAI batch lines: their form, and what each field does."""
import itertools
import json
import os
import re

from jobs import (
    MODEL, chat, completion, expect, job_file, moerun, openai_types, read_lines, templated, validator, write_lines)

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a city", "strict": False, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}
# Its arguments end soon, whatever the model would say.
RAIN = {"type": "function", "function": {"name": "rain", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Kiel", "Ulm"]}}, "required": ["city"], "additionalProperties": False}}}
NAMED = {"type": "function", "function": {"name": "rain"}}
ALLOWED = {mode: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [NAMED]}} for mode in ("auto", "required")}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Kiel"}'}}

# Every field of a body that is taken, at values that go together in any way.
BOTH = {"max_tokens": [1, 3, None], "temperature": [0, 0.7, None], "top_p": [0.9, 1], "seed": [7, -1, -2**63, 2**63 - 1], "stop": ["the", ["a", "e"], None, []],
        "presence_penalty": [0.5, -2], "frequency_penalty": [0, 2], "n": [1, 2], "user": ["me"], "top_k": [0, 5], "min_p": [0, 0.1], "repetition_penalty": [1, 1.1],
        "min_tokens": [0, 1], "ignore_eos": [True, False], "stop_token_ids": [[5], []], "include_stop_str_in_output": [True, False], "skip_special_tokens": [True, False],
        "truncate_prompt_tokens": [2, -1, None], "stream": [False], "metadata": [{"a": "b"}], "store": [True], "service_tier": ["auto"], "prompt_logprobs": [None, False, 1]}
CHAT = {"max_completion_tokens": [2], "logprobs": [True, False], "top_logprobs": [2, 0], "tools": [[WEATHER], [], [WEATHER, RAIN]],
        "tool_choice": ["auto", "none", "required", NAMED, ALLOWED["auto"], ALLOWED["required"]], "parallel_tool_calls": [True, False], "response_format": [{"type": "text"}], "safety_identifier": ["x"], "prompt_cache_key": ["k"],
        "add_generation_prompt": [True, False], "chat_template_kwargs": [{"enable_thinking": False}], "documents": [[{"text": "d"}]]}
COMPLETION = {"logprobs": [0, 2, None], "echo": [True, False], "best_of": [1], "suffix": [None]}


def bodies(fields, count, offset):
    """`count` bodies that each have some of the fields; over all of them each field has each of its values."""
    places = {name: itertools.cycle(values) for name, values in fields.items()}
    names = list(fields)
    for i in range(count):
        chosen = {names[(i * 3 + offset + k * 7) % len(names)] for k in range(6)}
        body = {name: next(places[name]) for name in sorted(chosen)}
        if body.get("max_completion_tokens"):
            body.pop("max_tokens", None)
        if not body.get("logprobs") and body.get("top_logprobs"):
            body.pop("top_logprobs")
        if body.get("n", 1) > 1:
            body.pop("best_of", None)
        if body.get("parallel_tool_calls") is False or body.get("tool_choice", "auto") not in ("auto", "none"):
            body["tools"] = [WEATHER, RAIN]
        if (body.get("min_tokens") or 0) > (body.get("max_tokens") or 4):
            body.pop("min_tokens")
        yield body


def thousand_lines():
    for i, body in enumerate(bodies({**BOTH, **CHAT}, 500, 0)):
        yield chat(f"chat-{i}", f"Say {i} words", **body)
    prompts = ["Once upon a time", ["Once"], [12, 700, 9], [[5, 6, 7]], "Ünïcode 🦙", ["Once upon", "a time", "there"], [[5, 6, 7], [8, 9]]]
    for i, body in enumerate(bodies({**BOTH, **COMPLETION}, 500, 1)):
        yield completion(f"completion-{i}", prompts[i % len(prompts)], **body)


def check_answer(row, line, types):
    body = row["body"]
    answer = line["response"]["body"]
    expect(line["custom_id"] == row["custom_id"], f"the answer of {row['custom_id']} is {line['custom_id']}'s")
    prompts = body.get("prompt", [""])
    prompts = prompts if isinstance(prompts, list) and isinstance(prompts[0], (str, list)) else [prompts]
    n = body.get("n", 1)
    expect([c["index"] for c in answer["choices"]] == list(range(n * len(prompts))), f"choices of {row}")
    usage = answer["usage"]
    expect(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], f"{usage}")
    kept = body.get("truncate_prompt_tokens")
    expect(not kept or kept < 0 or usage["prompt_tokens"] <= kept * len(prompts), f"{usage} of {body}")
    if types is None:
        return
    is_chat = row["url"].endswith("chat/completions")
    parsed = types[0 if is_chat else 1].model_validate(answer, strict=True)
    again = json.loads(parsed.model_dump_json(exclude_unset=True))
    expect(again == json.loads(json.dumps(answer)), f"openai's package makes something else of {answer}")
    for choice in parsed.choices:
        if is_chat:
            expect(bool(choice.logprobs) == bool(body.get("logprobs")), f"log-probabilities of {row}")
        elif body.get("echo"):
            prompt = prompts[choice.index // n]
            expect(isinstance(prompt, list) or choice.text.startswith(prompt) or kept, f"{choice.text!r} does not begin with {prompt!r}")


def test_thousand(work):
    rows = list(thousand_lines())
    taken = {name for row in rows for name in row["body"]} - {"model", "messages", "prompt"}
    expect(taken == {*BOTH, *CHAT, *COMPLETION}, f"fields without a line: { {*BOTH, *CHAT, *COMPLETION} - taken }")
    model = templated(work, "tiny-moe")
    moerun(job_file(work, rows, model={"path": str(model)}, sampling={"max_tokens": 4}))
    lines = read_lines(work / "out.jsonl")
    expect(len(lines) == len(rows) == 1000, f"{len(lines)} lines")
    schema, types = validator(), openai_types()
    for row, line in zip(rows, lines):
        faults = [f"{list(fault.path)}: {fault.message[:200]}" for fault in schema.iter_errors(line)]
        expect(not faults, f"{row['custom_id']}: {faults}")
        check_answer(row, line, types)
    prints = {line["response"]["body"]["system_fingerprint"] for line in lines}
    expect(len(prints) == 1, f"{prints}")
    return f"{len(lines)} answers with {len(taken)} fields, by the schema and by openai's types"


def answer_of(line):
    expect(line["error"] is None, f"{line}")
    return line["response"]["body"]["choices"][0]


def test_fields(work):
    """What single fields do, each against the same row without it."""
    text = "Once upon a time there was"
    plain = {"max_tokens": 12, "temperature": 0}
    rows = [completion("plain", text, **plain), completion("echo", text, echo=True, logprobs=1, **plain), completion("echo alone", text, echo=True, **plain),
            completion("scores", text, echo=True, logprobs=1, max_tokens=0), completion("cut", text, truncate_prompt_tokens=3, **plain),
            completion("negative seed", text, max_tokens=6, temperature=1, seed=-1), completion("its bits", text, max_tokens=6, temperature=1, seed=2**64 - 1),
            completion("logprobs", text, logprobs=1, prompt_logprobs=1, **plain)]
    moerun(job_file(work, rows))
    plain_, echo, echo_alone, scores, cut, negative, bits, logprobs = read_lines(work / "out.jsonl")
    answer = answer_of(plain_)["text"]
    expect(answer_of(echo)["text"] == answer_of(echo_alone)["text"] == text + answer, "echo repeats the prompt")
    expect(answer_of(scores)["text"] == text, "echo of a row that is scored alone")
    spelled, own = answer_of(echo)["logprobs"], answer_of(logprobs)
    expect(spelled["token_logprobs"][0] is None and spelled["top_logprobs"][0] is None, "the first token has no log-probability")
    prompt = [next(iter(entry.values()))["logprob"] if entry else None for entry in own["prompt_logprobs"]]
    expect(spelled["token_logprobs"] == prompt + own["logprobs"]["token_logprobs"], "log-probabilities of prompt and answer are those of the fields for each")
    expect(answer_of(scores)["logprobs"]["token_logprobs"] == prompt, "log-probabilities of a prompt alone")
    expect("".join(spelled["tokens"][:len(prompt)]) == text, f"tokens of the prompt: {spelled['tokens']}")
    for offset, token in zip(spelled["text_offset"], spelled["tokens"]):
        expect((text + answer)[offset:offset + len(token)] == token, f"{token!r} does not stand at {offset}")
    expect(answer_of(echo_alone)["logprobs"] is None, "echo alone asks for no log-probabilities")
    usage = cut["response"]["body"]["usage"]
    expect(usage["prompt_tokens"] == 3 and usage["prompt_truncated"] == plain_["response"]["body"]["usage"]["prompt_tokens"] - 3, f"{usage}")
    expect(answer_of(negative)["text"] == answer_of(bits)["text"], "a negative seed is that of its bits")
    word = answer.split()[2]
    rows = [completion("before", text, stop=[word], **plain), completion("behind", text, stop=[word], include_stop_str_in_output=True, **plain)]
    moerun(job_file(work, rows), "--fresh")
    before, behind = (answer_of(line) for line in read_lines(work / "out.jsonl"))
    expect(before["text"] + word == behind["text"] and before["finish_reason"] == behind["finish_reason"] == "stop", f"{before} {behind}")
    return "echo, logprobs, prompt_logprobs, truncate_prompt_tokens, seed, include_stop_str_in_output"


def test_prompt_lists(work):
    """A line of several prompts has the answers of a line each."""
    texts = ["Once upon a time", "The whale", "In the morning"]
    plain = {"max_tokens": 6, "temperature": 1, "seed": 5, "n": 2}
    rows = [completion("all", texts, **plain), *(completion(f"own-{i}", text, **plain) for i, text in enumerate(texts)), completion("bad", ["a", ""], **plain)]
    job = job_file(work, rows, input={"on_error": "row"})
    moerun(job, code=3)
    lines = read_lines(work / "out.jsonl")
    expect([line["custom_id"] for line in lines] == [row["custom_id"] for row in rows], "a line has a line")
    together = lines[0]["response"]["body"]
    own = [line["response"]["body"] for line in lines[1:4]]
    expect([c["text"] for c in together["choices"]] == [c["text"] for body in own for c in body["choices"]], "the answers are those of lines by themselves")
    expect(all(together["usage"][k] == sum(body["usage"][k] for body in own) for k in ("prompt_tokens", "completion_tokens", "total_tokens")), f"{together['usage']}")
    expect(lines[4]["response"] is None and "the prompt is empty" in lines[4]["error"]["message"], f"{lines[4]}")
    import h5py
    with h5py.File(work / "out.h5") as file:
        expect([i.decode() for i in file["results/id"][:]] == ["all"] * 3 + ["own-0", "own-1", "own-2", "bad", "bad"], "a row a prompt")
    return "as many rows, one line"


def test_tools(work):
    """Tools reach the template, not where none may be called; arguments of earlier calls are objects there."""
    model = templated(work, "tiny-moe")
    past = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    rows = [chat("without"), chat("with", tools=[WEATHER]), chat("auto", tools=[WEATHER], tool_choice="auto"), chat("none", tools=[WEATHER], tool_choice="none"),
            chat("past", messages=past, tools=[WEATHER])]
    moerun(job_file(work, rows, model={"path": str(model)}))
    lines = {line["custom_id"]: line["response"]["body"] for line in read_lines(work / "out.jsonl")}
    tokens = {name: body["usage"]["prompt_tokens"] for name, body in lines.items()}
    expect(tokens["with"] == tokens["auto"] > tokens["without"] == tokens["none"], f"{tokens}")
    expect(lines["with"]["choices"][0]["message"].keys() == {"role", "content", "refusal"}, f"{lines['with']}")
    return f"prompts of {tokens}"


def test_tool_choices(work):
    """Answers that are held to calls: as asked for, by the published schema, and by openai's types."""
    model = templated(work, "tiny-moe")
    spaces = {"197": -100, "198": -100, "201": -100, "220": -100}  # else the model may write white space for ever, which JSON allows
    longer = {"tools": [WEATHER, RAIN], "max_tokens": 120, "temperature": 0, "logit_bias": spaces}
    rows = [chat("named", **longer, tool_choice=NAMED), chat("allowed", **longer, tool_choice=ALLOWED["required"], parallel_tool_calls=False),
            chat("alone", **{**longer, "tools": [RAIN]}, tool_choice="required", parallel_tool_calls=False), chat("auto", **longer, tool_choice=ALLOWED["auto"]),
            chat("two", **longer, n=2, tool_choice=NAMED)]
    moerun(job_file(work, rows, model={"path": str(model)}))
    schema, types = validator(), openai_types()
    for row, line in zip(rows, read_lines(work / "out.jsonl"), strict=True):
        schema.validate(line)
        check_answer(row, line, types)
        for choice in line["response"]["body"]["choices"]:
            calls = choice["message"].get("tool_calls", [])
            if row["custom_id"] == "auto":  # it may call, and says no half of a call
                continue
            expect(choice["message"]["content"] is None and len(calls) == 1 and calls[0]["function"]["name"] == "rain", f"{row['custom_id']}: {choice}")
            expect(json.loads(calls[0]["function"]["arguments"])["city"] in ("Kiel", "Ulm"), f"{calls}")
            named = row["body"]["tool_choice"] == NAMED
            expect(choice["finish_reason"] == ("stop" if named else "tool_calls"), f"{row['custom_id']}: {choice['finish_reason']}")
    return f"{len(rows)} lines"


def test_errors_file(work):
    """Bad rows go to a file of their own; neither file is there before the job is finished, and both resume."""
    rows = [completion("good-0"), chat("bad-1", temperature=9e9), completion("good-2"), completion("bad-3", [99999]), completion("good-4")]
    job = job_file(work, rows, input={"on_error": "row"}, output={"errors": str(work / "out.errors.jsonl")})
    moerun(job, code=3)
    good, bad = read_lines(work / "out.jsonl"), read_lines(work / "out.errors.jsonl")
    expect([line["custom_id"] for line in good] == ["good-0", "good-2", "good-4"], f"{good}")
    expect([line["custom_id"] for line in bad] == ["bad-1", "bad-3"], f"{bad}")
    schema = validator()
    for line in good + bad:
        schema.validate(line)
    for line in bad:
        expect(line["response"] is None and line["error"].keys() == {"code", "message"}, f"{line}")
    before = (work / "out.errors.jsonl").read_bytes(), (work / "out.jsonl").read_bytes()
    done = moerun(job, code=3)
    expect("finished already" in done.stderr, done.stderr)
    (work / "out.errors.jsonl").unlink()
    done = moerun(job, code=2)
    expect("out.errors.jsonl is not there: leave output.errors out" in done.stderr, done.stderr)
    moerun(job, "--fresh", code=3)
    forget_times = lambda data: re.sub(rb'"created": \d+', b"", data)
    expect(forget_times((work / "out.jsonl").read_bytes()) == forget_times(before[1]), "the same answers")
    expect((work / "out.errors.jsonl").read_bytes() == before[0], "the same errors")
    write_lines(work / "in.jsonl", [completion("good")])
    moerun(job, "--fresh")
    expect((work / "out.errors.jsonl").read_bytes() == b"", "without errors the file is empty")
    return f"{len(bad)} of {len(rows)} rows"


def test_defaults(work):
    """sampling.defaults: what generation_config.json says holds where job and row are silent."""
    import h5py
    model = work / "tiny-moe"
    model.mkdir()
    for file in MODEL.iterdir():
        os.symlink(file, model / file.name)
    (model / "generation_config.json").unlink()
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 4093, "do_sample": True, "temperature": 0.9, "top_k": 7, "repetition_penalty": 1.2}))
    rows = [completion("silent", seed=3, max_tokens=12), completion("its own", temperature=0, max_tokens=12)]

    def texts(*overrides):
        job = job_file(work, rows, model={"path": str(model)})
        done = moerun(job, *overrides, "--fresh")
        return [answer_of(line)["text"] for line in read_lines(work / "out.jsonl")], done.stderr
    taken, said = texts("sampling.defaults=model")
    expect("sampling.defaults: model: temperature 0.9, top_k 7, repetition_penalty 1.2, of " in said and "not taken" not in said, said)
    with h5py.File(work / "out.h5") as file:
        expect(file.attrs["sampling_defaults"] == "model: temperature 0.9, top_k 7, repetition_penalty 1.2", file.attrs["sampling_defaults"])
        expect("temperature: 0.9" in file.attrs["job"], file.attrs["job"])
    done = moerun(work / "job.yaml", code=2)
    expect("sampling.defaults was model: temperature 0.9" in done.stderr and "sampling.top_k was 7 and is now 0" in done.stderr, done.stderr)
    given, said = texts("sampling.temperature=0.9", "sampling.top_k=7", "sampling.repetition_penalty=1.2")
    expect(taken == given and "not taken" not in said, f"{taken} {given}")
    neither, said = texts()
    expect("are not taken from there" in said and neither[0] != taken[0], said)
    half, said = texts("sampling.defaults=model", "sampling.repetition_penalty=1", "sampling.temperature=0")
    expect(half == neither and "model: top_k 7, of" in said, f"{half} {neither} {said}")
    done = moerun("check", work / "job.yaml", "sampling.defaults=model")
    expect("sampling.defaults: model: temperature 0.9" in done.stdout, done.stdout)
    return "taken, named, compared when the job goes on"


TESTS = [("a file of 1,000 lines with every field", test_thousand), ("fields", test_fields), ("lists of prompts", test_prompt_lists), ("tools", test_tools), ("tool_choice", test_tool_choices), ("errors in a file of their own", test_errors_file),
         ("sampling.defaults", test_defaults)]
