"""Cases of cases.py that OpenAI batch lines and what belongs to them bring."""
import json

from folders import MODEL, chat, edited_model, openai

FUNCTION = {"type": "function", "function": {"name": "f"}}


def tool(**function):
    return {"type": "function", "function": {"name": "f", **function}}


def past(arguments):
    return [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]


def generation_config(**values):
    def edit(model):
        (model / "generation_config.json").unlink()
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **values}))
    return edited_model(edit)


def with_template(shown):
    """A model whose chat template tells of a format of calls."""
    return edited_model(lambda model: (model / "chat_template.jinja").write_text("{#- " + shown + " -#}{{ messages[0].content }}"))


def held(parameters, **more):
    return chat(model="model", tools=[tool(parameters=parameters)], tool_choice="required", **more)


# In Qwen3-Coder's format, whose values are texts between tags.
OF_F = "answers cannot be held to calls of the function f: "
OF_X = OF_F + "the model's format of calls cannot hold its parameter \"x\" to "
UNHELD = [(held({"type": "string"}), OF_F + "its parameters must be of the type object"),
          (held({"anyOf": [{"type": "object"}]}), OF_F + "its parameters must be an object's schema, without anyOf at its top"),
          (held({"properties": {"x": {"not": {}}}}), OF_F + "the JSON schema cannot be used: answers cannot be held to not (at #/properties/x)"),
          (held({"properties": {"x": {"enum": ["1", 1]}}}), OF_X + 'the text "1", which would read as something else'),
          (held({"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "array"}]}}}), OF_X + "a text that may also be of type array"),
          (held({"properties": {"x": {"type": "string", "pattern": "<b>"}}}), OF_X + 'the pattern "<b>", whose texts may have a <'),
          (held({"properties": {"x>": {"type": "null"}}}), OF_F + 'its parameter "x>" has a name that the model\'s format of calls cannot spell'),
          (held({"properties": {"x": {"$ref": "#"}}}), OF_F + "the model's format of calls needs a $ref to point into $defs"),
          (held({"properties": {}, "minProperties": 1}), OF_F + "the model's format of calls cannot hold its parameters to minProperties")]

# Lines and what is said of each, in one input a group: the line's number and what comes behind "in.jsonl:LINE: ".
LINES = {
    "tools that are none": [
        (chat(tools={}), "body.tools must be a list, not {}"),
        (chat(tools=["f"]), 'body.tools[0] must be {"type": "function", "function": {"name": …}}, not "f"'),
        (chat(tools=[FUNCTION, {"type": "custom", "custom": {"name": "g"}}]), 'body.tools[1] must be {"type": "function"'),
        (chat(tools=[{"type": "function"}]), "body.tools[0] must be"),
        (chat(tools=[tool(name="")]), 'body.tools[0].function.name must be 1 to 64 letters, digits, _ and -, not ""'),
        (chat(tools=[tool(name="a.b")]), 'body.tools[0].function.name must be 1 to 64 letters, digits, _ and -, not "a.b"'),
        (chat(tools=[tool(name="x" * 65)]), "body.tools[0].function.name must be 1 to 64 letters"),
        (chat(tools=[FUNCTION, FUNCTION]), 'body.tools[1].function.name "f" is an earlier tool\'s'),
        (chat(tools=[tool(parameters="{}")]), 'body.tools[0].function.parameters must be a JSON Schema, an object, not "{}"'),
        (chat(tools=[FUNCTION], parallel_tool_calls=0), "body.parallel_tool_calls must be true or false, not 0"),
        (chat(tools=[tool(strict="yes")]), 'body.tools[0].function.strict must be true or false, not "yes"'),
    ],
    "choices of tools, and more of their kind": [
        (chat(tools=[FUNCTION], tool_choice="any"), 'body.tool_choice must be "none", "auto", "required", {"type": "function", "function": {"name": …}} or'),
        (chat(tools=[FUNCTION], tool_choice=True), "body.tool_choice must be"),
        (chat(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "g"}}), 'body.tool_choice names the function "g", which is not in body.tools'),
        (chat(tool_choice="required"), "body.tool_choice asks for a call, and there are no body.tools"),
        (chat(tools=[FUNCTION], tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "some", "tools": [FUNCTION]}}),
         'body.tool_choice.allowed_tools must be an object with a mode ("auto" or "required") and a list of tools'),
        (chat(tools=[FUNCTION], tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["f"]}}),
         'body.tool_choice.allowed_tools tools has "f", which is not'),
        (chat(tools=[FUNCTION], tool_choice="required", response_format={"type": "json_object"}),
         "body.tool_choice has no place beside response_format or structured_outputs"),
        (chat(tools=[tool(strict=True)], guided_regex="a"), "body.tools with strict functions has no place beside"),
        (chat(tools=[FUNCTION], parallel_tool_calls=False, structured_outputs={"choice": ["a"]}), "body.parallel_tool_calls has no place beside"),
        (chat(tools=[tool(name=7)]), "body.tools[0].function.name must be 1 to 64 letters, digits, _ and -, not 7"),
        (chat(messages=past('{"a": ' + 150 * "[" + 150 * "]" + "}")), "messages[0].tool_calls[0].function.arguments must be"),
        (chat(functions=[{"name": "f"}]), "body.functions is not supported other than as []"),
        (chat(function_call={"name": "f"}), 'body.function_call is not supported other than as "none" or "auto"'),
    ],
    "earlier calls that are none": [
        (chat(messages=past("Kiel")), 'messages[0].tool_calls[0].function.arguments must be a JSON object in a text, not "Kiel"'),
        (chat(messages=past("[1]")), 'messages[0].tool_calls[0].function.arguments must be a JSON object in a text, not "[1]"'),
        (chat(messages=past('{"a": 1')), "messages[0].tool_calls[0].function.arguments must be"),
    ],
    "options of a body": [
        (openai({"echo": "yes"}), 'body.echo must be true or false, not "yes"'),
        (openai({"echo": True, "logprobs": 1, "prompt_logprobs": 1, "prompt_logprobs_start": 1}), "body.prompt_logprobs_start has no place beside echo: true"),
        (chat(echo=True), 'there is no field "body.echo", and it might change the answer: leave it out'),
        (openai({"seed": 1.5}), "seed must be an integer from 0 to 18446744073709551615, not 1.5"),
        (openai({"seed": "7"}), 'seed must be an integer from 0 to 18446744073709551615, not "7"'),
        (openai({"truncate_prompt_tokens": 0}), "truncate_prompt_tokens must be null, -1 or an integer of at least 1, not 0"),
        (openai({"truncate_prompt_tokens": -2}), "truncate_prompt_tokens must be null, -1 or an integer of at least 1, not -2"),
        (openai({"skip_special_tokens": 0}), "skip_special_tokens must be true or false, not 0"),
        (openai({"include_stop_str_in_output": "no"}), 'include_stop_str_in_output must be true or false, not "no"'),
        (chat(max_completion_tokens=-1), "max_tokens must be an integer of at least 0, not -1"),
        (openai({"suffix": "end"}), 'body.suffix is not supported other than as "": "end" would change the answer'),
        (openai({"stream": True}), "body.stream is not supported other than as false"),
        (openai({"use_beam_search": True}), "body.use_beam_search is not supported other than as false"),
        (chat(modalities=["text", "audio"]), 'body.modalities is not supported other than as ["text"]'),
        (chat(reasoning_effort="high"), "body.reasoning_effort would change the answer"),
        (chat(web_search_options={}), "body.web_search_options would change the answer"),
        (chat(continue_final_message=True), "body.continue_final_message is not supported other than as false"),
        (chat(return_token_ids=True), "body.return_token_ids is not supported other than as false"),
    ],
}


def cases(Case):
    for name, lines in LINES.items():
        yield Case(name, [f"in.jsonl:{i + 1}: {said}" for i, (_, said) in enumerate(lines)],
                   input="".join(line.replace('"custom_id": "r"', f'"custom_id": "r{i}"') for i, (line, _) in enumerate(lines)), runs=name == "options of a body")
    numbered = "".join(line.replace('"custom_id": "r"', f'"custom_id": "r{i}"') for i, (line, _) in enumerate(UNHELD))
    arguments = ("job.yaml", "model.path=model")
    yield Case("parameters that calls between tags cannot be held to", [f"in.jsonl:{i + 1}: {said}" for i, (_, said) in enumerate(UNHELD)],
               input=numbered, prepare=with_template("<tool_call><function="), arguments=arguments, runs=True)
    yield Case("calls in a format that is not known", ["in.jsonl:1: answers cannot be held to calls of functions: the model's chat template tells of none of the formats"],
               input=held({}), prepare=with_template("<|call|>"), arguments=arguments)
    yield Case("sampling defaults that are no word of it", ['job.yaml:5: sampling.defaults must be one of none, model, not "vllm"'], "sampling: {defaults: vllm}\n")
    yield Case("sampling defaults out of range",
               ["model/generation_config.json: temperature must be a number from 0 to 100, not -1; give sampling.temperature, or sampling.defaults: none",
                'model/generation_config.json: top_k must be an integer of at least -1, not "many"; give sampling.top_k'],
               prepare=generation_config(temperature=-1, top_k="many"), arguments=("job.yaml", "model.path=model", "sampling.defaults=model"), runs=True)
    yield Case("errors without lines", ["job.yaml:3: output.errors takes the lines of rows with an error out of output.jsonl, which is missing"],
               f"model: {{path: {MODEL}}}\ninput: {{path: in.jsonl}}\noutput: {{path: out.h5, errors: e.jsonl}}\ndevice: cpu\n", whole=True)
    yield Case("errors where the answers go", ["output.errors: ./out.jsonl is output.jsonl too"], arguments=("job.yaml", "output.errors=./out.jsonl"))
    yield Case("metrics of another ending", ['report.prometheus must end in .prom, not "m.txt"'], arguments=("job.yaml", "report.prometheus=m.txt"))
    yield Case("metrics would replace what is none", ["report.prometheus: m.prom is there and no report"], arguments=("job.yaml", "report.prometheus=m.prom"),
               prepare=lambda folder: (folder / "m.prom").write_text("mine 1\n"))
    yield Case("metrics where nothing can be written", ["report.prometheus: in.jsonl is no directory"], arguments=("job.yaml", "report.prometheus=in.jsonl/m.prom"))
