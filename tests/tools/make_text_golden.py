"""Makes tests/golden/text/{tokens,added,chat,messages}.jsonl: what Hugging Face answers to the hard cases of src/text.

Usage, from the repository's root: python tests/tools/make_text_golden.py [number_of_random_cases]
Needs PyPI tokenizers 0.23 and transformers 5 (jinja2). A larger number is a fuzz test: write elsewhere with OUT=folder.
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

NUM = int(sys.argv[1]) if len(sys.argv) > 1 else 120
OUT = os.environ.get("OUT", "tests/golden/text")
SOURCE = "tests/golden/text"
MODEL = "data/tiny-moe/tokenizer.json"
rng = random.Random(20261123)

# Text whose tokens are easy to get wrong.
TEXTS = [
    "", " ", "\n", "\r\n \r\n", "a\n\n  b", "  x", "x  ", "\t\tx \t y", "don't I'LL we'VE 's 'ſ 'ſa 'K 're're",
    "e\u0301 \u00e9 a\u0301\u0327 \u0327\u0301 \u0344 \u0958 \ufb1d \u2126 \u212b \ufb01",    # NFC
    "\u1100\u1161\u11a8 \uac00\u11a8 \u1100\u1161\u11a7",                                     # Hangul
    "x\u1e08f\U00011d97\u20d8 a\U0001e130\u0301 \U00011935\U00011930 \U00011938",             # marks after Unicode 9
    "\u0345\u0301" * 40 + "\u0327\u0301" * 40,                                               # long runs of marks
    "a\u00a0b\u1680c\u180ed\u2003e\u2028f\u2029g\u202fh\u205fi\u3000j\u200bk\ufeffl\u0085m\x1cn\x0bo",  # \s, and not
    "\u00bd\u00b2\u2163\u2460\u0663\uff13\U0001d7d8 1234567890", "a\U0001d2c0\U0001d2d3 \U0001d2c7b!\U0001d2c1", "\x00\x01\x7f\x80\xad\xff", "\ufffd\ufffe\U0010ffff",
    "<|im_start|>user\nhi<|im_end|>", "<|im_start|><|im_start|>", "<|im_<|im_end|>end|>", " <|endoftext|> ", "<|endoftext|",
    "e<|im_end|>\u0301", "x" * 3000, " " * 3000, "ab " * 1000, "\n" * 1000, "a" + " " * 100 + "b", "=-" * 500, "1" * 300,
    "\u4e2d\u6587\u5206\u8bcd\u6d4b\u8bd5" * 40, "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f",
]
PARTS = ["don't", "'S", "'ve", "the", "ing", " of", "12", "\uff13", "<|im_end|>", "<|im_", "...", "\r\n", "\n\n", "  ", " ",
         "\u00e9", "e\u0301", "\u4e2d\u6587", "\ud55c", "\U0001f642", "\u0300", "\u0327\u0301", "\u11a8", "\uac00"]


def random_text():
    kind, length = rng.randrange(4), rng.choice([1, 3, 8, 20, 60])
    if kind == 0:
        return "".join(rng.choice(PARTS) for _ in range(length))
    if kind == 1:
        return "".join(chr(rng.randrange(32, 127)) for _ in range(length))
    if kind == 2:  # any code point that is no surrogate
        return "".join(chr(c if c < 0xD800 else c + 0x800) for c in (rng.randrange(0x110000 - 0x800) for _ in range(length)))
    return "".join(chr(rng.choice([rng.randrange(0x300, 0x370), rng.randrange(0x80, 0x250), 32, 97])) for _ in range(length))


def make_tokens():
    tokenizer = Tokenizer.from_file(MODEL)
    size = tokenizer.get_vocab_size()
    with open(f"{OUT}/tokens.jsonl", "w") as out:
        for text in TEXTS + [random_text() for _ in range(NUM)]:
            print(json.dumps({"text": text, "ids": tokenizer.encode(text).ids}), file=out)
        # Any ids, most of them parts of characters, some of them none.
        partial = [i for i in range(size) if "\ufffd" in tokenizer.decode([i])]
        for _ in range(NUM):
            ids = [rng.choice([rng.choice(partial), rng.randrange(size + 3)]) for _ in range(rng.choice([1, 2, 4, 12]))]
            print(json.dumps({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                              "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True)}), file=out)


# Added tokens with every flag; ids follow the model's.
ADDED = [{"content": "<l>", "lstrip": True}, {"content": "<r>", "rstrip": True}, {"content": "<lr>", "lstrip": True, "rstrip": True},
         {"content": "word", "single_word": True}, {"content": "<s>", "special": True, "lstrip": True}, {"content": "<s>s", "special": True},
         {"content": "\u00e9t\u00e9", "normalized": True}, {"content": "ca\u0301", "normalized": True},
         {"content": " sp ace ", "normalized": False}, {"content": "\u212b"}, {"content": "the"}]
ADDED_PARTS = [token["content"] for token in ADDED] + [
    " ", "  ", "\n", "\u3000", "a", "1", "_", "\u0301", "\u24b6", "-", "e\u0301te\u0301", "c\u00e1", "<", "s>", "\u00c5", "th", "e", "<|im_end|>"]


def make_added():
    model = json.load(open(MODEL))
    first = max(token["id"] for token in model["added_tokens"]) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    ids = iter(range(first, first + len(ADDED)))
    added = [{"id": model["model"]["vocab"].get(token["content"]), **flags, **token} for token in ADDED]
    for token in added:
        if token["id"] is None:
            token["id"] = next(ids)
    model["added_tokens"] += added
    tokenizer = Tokenizer.from_str(json.dumps(model))
    with open(f"{OUT}/added.jsonl", "w") as out:
        print(json.dumps({"added_tokens": added}), file=out)
        for _ in range(NUM):
            text = "".join(rng.choice(ADDED_PARTS) for _ in range(rng.choice([1, 2, 3, 5, 10])))
            encoded = tokenizer.encode(text).ids
            print(json.dumps({"text": text, "ids": encoded, "decoded": tokenizer.decode(encoded, skip_special_tokens=False),
                              "decoded_without_special": tokenizer.decode(encoded, skip_special_tokens=True)}), file=out)


CONTENTS = ["hi", "", "a\nb", "\n\nx\n", "<think>\nhmm\n</think>\n\nso", "<think>a</think>b</think>\n\nc", "</think>x",
            "<tool_response>\n3\n</tool_response>", "\u4e2d\u6587 \U0001f642", "{{ x }} {% y %}", "<|im_end|>"]
VALUES = [1, -7, 0.1, 1.0, 1e16, 123456789012345.6, 1e-5, 0.0001, 5e-324, 2.5e17, True, None, "\u00e9\"\\\n\x01\x7f", [], {}, [1, "a"],
          {"b": 1, "a": [0.5, None]}]


def random_message(role):
    message = {"role": role, "content": rng.choice(CONTENTS)}
    if role == "assistant":
        if rng.random() < 0.3:
            message["reasoning_content"] = rng.choice([None, "", "because", "\nbecause\n\n"])
        if rng.random() < 0.4:
            message["tool_calls"] = [random_call() for _ in range(rng.randrange(3))]
    return message


def random_call():
    call = {"name": rng.choice(["f", "get \u00e9"]), "arguments": rng.choice(['{"x": 1}', {"x": rng.choice(VALUES)}])}
    return rng.choice([call, {"id": "1", "type": "function", "function": call}])


def random_request():
    roles = [rng.choice(["user", "assistant", "tool", "system"]) for _ in range(rng.randrange(1, 7))]
    request = {"messages": [random_message(role) for role in roles]}
    if rng.random() < 0.4:
        request["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"p": rng.choice(VALUES), "q": rng.choice(VALUES)}}}
                            for _ in range(rng.randrange(3))]
    if rng.random() < 0.6:
        request["enable_thinking"] = rng.choice([True, False, None])
    return request


def make_chat():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=MODEL)
    with open(f"{OUT}/chat.jsonl", "w") as out:
        for number in range(NUM):
            name = ["qwen3.jinja", "qwen3-content-is-string.jinja"][number % 2]
            template = open(f"{SOURCE}/{name}", newline="").read()
            request = random_request()
            text = tokenizer.apply_chat_template(request["messages"], tools=request.get("tools"), chat_template=template,
                                                 tokenize=False, add_generation_prompt=True,
                                                 **({"enable_thinking": request["enable_thinking"]} if "enable_thinking" in request else {}))
            print(json.dumps({"template": name, "request": request, "text": text}), file=out)


def random_nulls():
    names = ["role", "content", "tool_calls", "reasoning_content", "thinking", "reasoning", "name"]
    return [{name: rng.choice([None, None, "", "x", "y", [None, {"a": None}], 0]) for name in rng.sample(names, rng.randrange(8))}
            for _ in range(rng.randrange(1, 4))]


def make_messages():
    """What templates are given of messages with nulls and with reasoning under several names: a template that prints them, and Qwen3's."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=MODEL)
    with open(f"{OUT}/messages.jsonl", "w") as out:
        for number in range(NUM):
            name = ["print", "qwen3-content-is-string.jinja"][number % 2]
            if name == "print":
                template, messages = "{% for message in messages %}{{ message | tojson }}\n{% endfor %}", random_nulls()
            else:
                template, messages = open(f"{SOURCE}/{name}", newline="").read(), random_request()["messages"]
                for message in messages:
                    if message["role"] == "assistant" and rng.random() < 0.7 or rng.random() < 0.05:
                        message["content"] = None
            try:
                answer = {"text": tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)}
            except Exception:
                answer = {"error": True}
            print(json.dumps({"template": template if name == "print" else name, "request": {"messages": messages, "add_generation_prompt": False}, **answer}), file=out)


make_tokens()
make_added()
make_chat()
make_messages()
