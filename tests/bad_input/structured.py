"""Cases of rules for single tokens, and of forms of answers (structured output) that must be refused."""
import json
import pathlib

from folders import DUMMY, chat, model_with, openai


def without_tokenizer(folder):
    model_with({})(folder)
    pathlib.Path(folder / "model/tokenizer.json").unlink()


def rows(*given):
    return "".join(json.dumps({"prompt": "a", **row}) + "\n" for row in given)


def schemas(*given):
    return rows(*({"guided_json": schema} for schema in given))


def cases(Case):
    return [
        Case("a form of no kind", ["job.yaml:5: sampling.structured_outputs must be an object with one of json, regex, choice, grammar and json_object, not {\"yaml\":1}"],
             "sampling: {structured_outputs: {yaml: 1}}\n"),
        Case("two forms in one", ["job.yaml:5: sampling.structured_outputs must be an object with one of json, regex, choice, grammar and json_object"],
             "sampling: {structured_outputs: {regex: a, choice: [a]}}\n"),
        Case("a form that is a text", ["job.yaml:5: sampling.structured_outputs must be an object with one of"], "sampling: {structured_outputs: json}\n"),
        Case("a choice of nothing", ["job.yaml:5: sampling.structured_outputs choice: must be a list of texts that are not empty, not []"],
             "sampling: {structured_outputs: {choice: []}}\n"),
        Case("a schema that is a number", ["job.yaml:5: sampling.structured_outputs json: must be a JSON schema, not 3"],
             "sampling: {structured_outputs: {json: 3}}\n"),
        Case("a mapping that says a thing twice", ["job.yaml:5: sampling.structured_outputs has \"type\" twice"],
             "sampling: {structured_outputs: {json: {type: string, type: object}}}\n"),
        Case("a job's schema that cannot be kept", ["sampling.structured_outputs: the JSON schema cannot be used: answers cannot be held to not (at #/properties/a)"],
             "sampling: {structured_outputs: {json: {type: object, properties: {a: {not: {type: string}}}}}}\n", runs=True),
        Case("a job's regex that is none", ["sampling.structured_outputs: the regex cannot be used: "], "sampling: {structured_outputs: {regex: 'a(b'}}\n"),
        Case("guided_json for a whole job", ["job.yaml:5: there is no key sampling.guided_json"], "sampling: {guided_json: {type: string}}\n"),
        Case("a budget for thoughts of a model that has none", ["sampling.thinking_budget: the tokenizer has no tokens <think> and </think>"],
             "sampling: {thinking_budget: 5}\n"),
        Case("a row's budget for thoughts of a model that has none", ["in.jsonl:1: thinking_budget: the tokenizer has no tokens <think> and </think>",
                                                                      "in.jsonl:2: thinking_budget must be null or an integer of at least 0, not -1"],
             input=rows({"thinking_budget": 0}, {"thinking_budget": -1})),
        Case("forms for a model without a tokenizer", ["in.jsonl:1: structured_outputs need model/tokenizer.json, which is not there; leave them out"],
             input='{"prompt_token_ids": [1], "structured_outputs": {"regex": "a"}}\n', prepare=without_tokenizer, arguments=DUMMY),

        Case("keywords that answers cannot be held to",
             ["in.jsonl:1: the JSON schema cannot be used: answers cannot be held to not (at #)",
              "in.jsonl:2: the JSON schema cannot be used: answers cannot be held to uniqueItems (at #)",
              "in.jsonl:3: the JSON schema cannot be used: answers cannot be held to if (at #/$defs/a)",
              "in.jsonl:4: the JSON schema cannot be used: answers cannot be held to dependentRequired (at #/items)"],
             input=schemas({"not": {}}, {"type": "array", "uniqueItems": True}, {"$defs": {"a": {"if": {}}}, "$ref": "#/$defs/a"},
                           {"type": "array", "items": {"dependentRequired": {}}})),
        Case("keywords beside one another",
             ["in.jsonl:1: the JSON schema cannot be used: answers cannot be held to anyOf and properties at once (at #)",
              "in.jsonl:2: the JSON schema cannot be used: answers cannot be held to $ref and enum at once (at #)",
              "in.jsonl:3: the JSON schema cannot be used: answers cannot be held to an allOf of several schemas (at #)",
              "in.jsonl:4: the JSON schema cannot be used: minimum needs a type beside it (at #/properties/n)"],
             input=schemas({"anyOf": [{"type": "null"}], "properties": {}}, {"$ref": "#", "enum": [1]}, {"allOf": [{}, {}]},
                           {"properties": {"n": {"minimum": 3}}})),
        Case("schemas that nothing fits",
             ["in.jsonl:1: the JSON schema cannot be used: ", "in.jsonl:2: the JSON schema cannot be used: \"a\" is required, and there is no such property (at #)",
              "in.jsonl:3: the JSON schema cannot be used: const is not of its type (at #)"],
             input=schemas({"type": "integer", "minimum": 3, "maximum": 2}, {"type": "object", "required": ["a"], "additionalProperties": False},
                           {"const": 1, "type": "string"})),
        Case("references that lead nowhere", ["in.jsonl:1: the JSON schema cannot be used: $ref is \"https://x.org/y\", and must be # or point into its $defs (at #)",
                                              "in.jsonl:2: the JSON schema cannot be used: "],
             input=schemas({"$ref": "https://x.org/y"}, {"$ref": "#/$defs/none", "$defs": {}})),
        Case("a pattern that JSON writes with escapes", ["in.jsonl:1: the JSON schema cannot be used: answers cannot be held to the pattern \"\\\"+\""],
             input=schemas({"type": "string", "pattern": "\"+"})),
        Case("a multiple of a fraction", ["in.jsonl:1: the JSON schema cannot be used: multipleOf is not supported for type:number"],
             input=schemas({"type": "number", "multipleOf": 0.5})),
        Case("schemas that are none", ["in.jsonl:1: guided_json must be a JSON schema, not \"{\"", "in.jsonl:2: guided_json must be a JSON schema, not [1]",
                                       "in.jsonl:3: the JSON schema cannot be used: a schema is an object, or true or false (at #/properties/a)"],
             input=schemas("{", [1], {"properties": {"a": "string"}})),
        Case("regular expressions that are none", ["in.jsonl:1: the regex cannot be used: Regex parsing error at position", "in.jsonl:2: the regex cannot be used: ",
                                                   "in.jsonl:3: guided_regex must be a regular expression, not 7"],
             input=rows({"guided_regex": "a(b"}, {"guided_regex": "a(?=b)"}, {"guided_regex": 7})),
        Case("a backreference and an anchor in the middle", ["in.jsonl:1: the regex cannot be used: ", "in.jsonl:2: the regex cannot be used: "],
             input=rows({"guided_regex": "(a)\\1"}, {"guided_regex": "a^b"})),
        Case("grammars that are none", ["in.jsonl:1: the grammar cannot be used: ", "in.jsonl:2: the grammar cannot be used: ",
                                        "in.jsonl:3: guided_grammar must be a grammar (EBNF, whose rule root is the answer), not \"\""],
             input=rows({"guided_grammar": "rot ::= \"a\""}, {"guided_grammar": "root ::= other"}, {"guided_grammar": ""})),
        Case("choices that are none", ["in.jsonl:1: guided_choice must be a list of texts that are not empty, not \"a\"",
                                       "in.jsonl:2: structured_outputs choice: must be a list of texts that are not empty, not [1]"],
             input=rows({"guided_choice": "a"}, {"structured_outputs": {"choice": [1]}})),
        Case("more choices and a longer pattern than are taken",
             ["in.jsonl:1: guided_choice has 4097 texts, and at most 4096 are taken",
              "in.jsonl:2: the JSON schema cannot be used: a pattern has more than 2000 characters once its repetitions are written out (at #)"],
             input=rows({"guided_choice": [str(i) for i in range(4097)]}, {"guided_json": {"type": "string", "pattern": "(ab{50}){50}"}})),
        Case("a form that is too long", ["in.jsonl:1: guided_regex has 1048577 bytes, and at most 1048576 are taken"],
             input=rows({"guided_regex": "a" * (2**20 + 1)})),
        Case("two forms of one answer", ["in.jsonl:1: guided_json and structured_outputs ask for two forms of one answer"],
             input=rows({"guided_json": {}, "structured_outputs": {"regex": "a"}})),
        Case("two forms in a body", ["in.jsonl:1: guided_regex and response_format ask for two forms of one answer"],
             input=openai({"guided_regex": "a", "response_format": {"type": "json_object"}})),
        Case("a response_format of no type", ["in.jsonl:1: body.response_format must be an object with the type \"text\", \"json_object\" or \"json_schema\", not {\"type\":\"xml\"}"],
             input=chat(response_format={"type": "xml"})),
        Case("a response_format without its schema", ["in.jsonl:1: body.response_format json_schema must be an object with a schema, not {\"name\":\"x\"}"],
             input=chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}})),
        Case("a response_format whose schema cannot be kept", ["in.jsonl:1: the JSON schema cannot be used: answers cannot be held to contains (at #)"],
             input=openai({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "array", "contains": {}}}}})),
    ]
