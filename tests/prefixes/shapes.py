"""Rows shaped like evaluations: lists of {"prompt_token_ids": …}. `tokens(count)` makes new ids; `size` 1 is the evaluation's own number of rows."""


def mmlu(random_, tokens, size=1.0):
    """57 preambles of 200 to 2,446 tokens, most of them short, 40 questions each, 4 endings of a token: 9,120 rows of which a twentieth is distinct."""
    rows = []
    for _ in range(57):
        preamble = tokens(200 + int(2246 * random_.random() ** 6))
        for _ in range(max(1, round(40 * size))):
            question = preamble + tokens(random_.randint(40, 160))
            rows += [{"prompt_token_ids": question + tokens(1)} for _ in range(4)]
    return rows


def gsm8k(random_, tokens, size=1.0):
    """8 shots before every question."""
    preamble = tokens(1000)
    return [{"prompt_token_ids": preamble + tokens(random_.randint(30, 150))} for _ in range(round(1319 * size))]


def hellaswag(random_, tokens, size=1.0):
    """Short contexts with 4 endings each."""
    rows = []
    for _ in range(round(2500 * size)):
        context = tokens(random_.randint(20, 120))
        rows += [{"prompt_token_ids": context + tokens(random_.randint(5, 40))} for _ in range(4)]
    return rows


def distinct(rows):
    """Tokens of a trie over the prompts."""
    prompts = sorted(row["prompt_token_ids"] for row in rows)
    count = len(prompts[0])
    for before, prompt in zip(prompts, prompts[1:]):
        alike = next((i for i, (a, b) in enumerate(zip(before, prompt)) if a != b), min(len(before), len(prompt)))
        count += len(prompt) - alike
    return count
