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
        (chat(tools=[FUNCTION], parallel_tool_calls=False), "body.parallel_tool_calls is not supported other than as true where there are tools"),
    ],
    "choices of tools, and more of their kind": [
        (chat(tools=[FUNCTION], tool_choice="any"), 'body.tool_choice is not supported other than as "auto" or "none"'),
        (chat(tools=[FUNCTION], tool_choice=True), "body.tool_choice is not supported other than"),
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
    yield Case("sampling defaults that are no word of it", ['job.yaml:5: sampling.defaults must be one of none, model, not "vllm"'], "sampling: {defaults: vllm}\n")
    yield Case("sampling defaults out of range",
               ["model/generation_config.json: temperature must be a number from 0 to 100, not -1; give sampling.temperature, or sampling.defaults: none",
                'model/generation_config.json: top_k must be an integer of at least 0, not "many"; give sampling.top_k'],
               prepare=generation_config(temperature=-1, top_k="many"), arguments=("job.yaml", "model.path=model", "sampling.defaults=model"), runs=True)
    yield Case("errors without lines", ["job.yaml:3: output.errors takes the lines of rows with an error out of output.jsonl, which is missing"],
               f"model: {{path: {MODEL}}}\ninput: {{path: in.jsonl}}\noutput: {{path: out.h5, errors: e.jsonl}}\ndevice: cpu\n", whole=True)
    yield Case("errors where the answers go", ["output.errors: ./out.jsonl is output.jsonl too"], arguments=("job.yaml", "output.errors=./out.jsonl"))
    yield Case("metrics of another ending", ['report.prometheus must end in .prom, not "m.txt"'], arguments=("job.yaml", "report.prometheus=m.txt"))
    yield Case("metrics would replace what is none", ["report.prometheus: m.prom is there and no report"], arguments=("job.yaml", "report.prometheus=m.prom"),
               prepare=lambda folder: (folder / "m.prom").write_text("mine 1\n"))
    yield Case("metrics where nothing can be written", ["report.prometheus: in.jsonl is no directory"], arguments=("job.yaml", "report.prometheus=in.jsonl/m.prom"))
