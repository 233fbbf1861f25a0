"""Calls of functions that answers are held to, in each format that chat templates tell models to write."""
import json
import pathlib
import re

import jsonschema

import schemas

# What the template shows of the format, what opens and closes calls and values: both are tokens here, since random
# answers would never spell them.
FORMATS = {"hermes": ('<tool_call>{"name": …}</tool_call>', "<tool_call>", "</tool_call>"),
           "coder": ("<tool_call><function=…><parameter=…>", "<tool_call>", "</parameter>"),
           "glm": ("<tool_call>…<arg_key>…</arg_key>", "<tool_call>", "</arg_value>"),
           "minimax": ('<minimax:tool_call><invoke name="…">', "<minimax:tool_call>", "</parameter>")}
TEMPLATE = """{#- %s -#}
{%%- for m in messages %%}{{ m.role }}: {{ m.content }}
{%% endfor %%}{%%- if tools %%}{{ tools | tojson }}{%% endif %%}assistant:"""


def model_of(work, tiny, name):
    """The tiny model whose template tells of this format."""
    shown, begin, end = FORMATS[name]
    model = work / f"model-{name}"
    model.mkdir()
    for file in tiny.iterdir():
        (model / file.name).symlink_to(file)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        found = json.loads((tiny / file).read_text())
        for token in found.get("added_tokens", []) + [{"id": int(i), **t, "in": t} for i, t in found.get("added_tokens_decoder", {}).items()]:
            for place in (token, token.get("in", {})):
                if token["id"] in (4094, 4095):
                    place.update(content=begin if token["id"] == 4094 else end, special=False)
        found.pop("additional_special_tokens", None)
        (model / file).unlink()
        (model / file).write_text(json.dumps(found))
    (model / "chat_template.jinja").write_text(TEMPLATE % shown)
    return model


LINES = jsonschema.Draft202012Validator(json.loads((pathlib.Path(__file__).resolve().parents[1] / "openai/schema.json").read_text()))


class Functions(schemas.Schemas):
    """Random functions, all of whose parameters each format can hold answers to."""

    def parameter(self):
        kind = self.random.random()
        if kind < 0.12:
            return {"anyOf": [self.string(0), {"type": "null"}]}
        if kind < 0.2:
            return {"type": ["integer", "null"]}
        if kind < 0.3:
            return {"enum": self.random.sample(["rot", "grün", "a\"b", "x < y", "1", " b\n", "null"], 3)}
        if kind < 0.36:
            return {"enum": [1, -2.5, None, ["a", 1]]}
        if kind < 0.42:
            return {"type": "string"}
        return self.random.choice([self.string, self.string, self.integer, self.number, self.const, self.plain, self.array, self.object])(1)

    def array(self, depth):
        return {"type": "array", "items": self.random.choice([self.integer, self.plain, self.string])(0), "maxItems": 2}

    def function(self, name, strict):
        if self.random.random() < 0.1:
            return {"name": name, "strict": strict}
        names = self.random.sample(["city", "größe", "x-y", "a b", "tags", "n", "数量"], self.random.randint(1, 3))
        parameters = {"type": "object", "properties": {key: self.parameter() for key in names},
                      "required": [key for key in names if self.random.random() < 0.7], "additionalProperties": False}
        if self.random.random() < 0.15:
            node = {"type": "object", "properties": {"v": self.plain(0), "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                    "required": ["v", "next"], "additionalProperties": False}
            parameters.update({"$defs": {"node": node}, "required": ["tree"], "properties": {"tree": {"$ref": "#/$defs/node"}}})
        return {"name": name, "parameters": parameters, "strict": strict}


def rows_of(seed, likely, count=24):
    functions = Functions(seed)
    rows = []
    for i in range(count):
        offered = [functions.function(f"f{i}_{j}", strict=True) for j in range(functions.random.randint(1, 3))]
        body = {"model": "tiny-moe", "messages": [{"role": "user", "content": f"Call, {i}!"}], "logit_bias": likely, "max_tokens": 256,
                "tools": [{"type": "function", "function": one} for one in offered]}
        if i % 3 == 0:
            body["tool_choice"] = "required"
            for one in offered[1:]:
                one.pop("strict")
        elif i % 3 == 1:
            body["tool_choice"] = {"type": "function", "function": {"name": offered[0]["name"]}}
        else:
            body["logit_bias"] = {**likely, "4094": 9}  # or no random answer would call anything
            body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": one["name"]}} for one in offered]}}
        if i % 4 == 0:
            body["parallel_tool_calls"] = False
        rows.append({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body})
    return rows


def check_answer(row, line, begin):
    """Whether it has calls; each is of its function's schema."""
    LINES.validate(line)
    choice = line["response"]["body"]["choices"][0]
    message, body = choice["message"], row["body"]
    calls = message.get("tool_calls", [])
    parameters = {tool["function"]["name"]: tool["function"].get("parameters", {"type": "object", "maxProperties": 0}) for tool in body["tools"]}
    for call in calls:
        assert call["function"]["name"] in parameters, f"{call} is of no function that was offered"
        jsonschema.Draft202012Validator(parameters[call["function"]["name"]]).validate(json.loads(call["function"]["arguments"]))
    choosing = body["tool_choice"]
    named = isinstance(choosing, dict) and choosing["type"] == "function"
    if choice["finish_reason"] == "length":
        return False
    assert choice["finish_reason"] == ("stop" if named or not calls else "tool_calls"), f"{choice}"
    if choosing == "required" or named:
        assert calls and message["content"] is None, f"a call and nothing else: {choice}"
    else:
        assert calls or begin not in message["content"], f"what begins as a call is one: {choice}"
    if named:
        assert [call["function"]["name"] for call in calls] == [choosing["function"]["name"]], f"{choice}"
    assert len(calls) < 2 or body.get("parallel_tool_calls", True), f"{choice}"
    return bool(calls)


def check_format(work, name, run, tiny, likely, layouts, seed):
    """`run(work, rows, layout=…, model=…)`: the answers of a job."""
    model = model_of(work, tiny, name)
    rows = rows_of(f"{seed} {name}", {**likely, "4095": 7})
    for row in rows:
        row["body"]["model"] = model.name
    found = run(work, rows, model=model)
    whole = 0
    for row, line in zip(rows, found):
        try:
            whole += check_answer(row, line, FORMATS[name][1])
        except (AssertionError, jsonschema.ValidationError, ValueError) as error:
            raise AssertionError(f"{name}: {json.dumps(row['body']['tools'])}: {json.dumps(line)}: {error}") from error
    print(f"  {name}: {whole} of {len(rows)} answers ended with calls, each of its function's schema")
    assert whole >= len(rows) // 3, f"{name}: only {whole} of {len(rows)} answers ended with calls"
    for layout in layouts:
        again = run(work, rows[:8], layout, model=model)
        for one, two in zip(found, again):
            for answer in (one, two):
                answer["response"]["body"].pop("created", None)
            assert re.sub('"system_fingerprint": "[^"]*"', "", json.dumps(one)) == re.sub('"system_fingerprint": "[^"]*"', "", json.dumps(two)), \
                f"{name}, layout {layout}: {one} became {two}"
