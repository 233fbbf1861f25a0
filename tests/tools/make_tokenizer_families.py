"""Makes tests/golden/text/families/: small tokenizers with the pipelines that families of models publish, and what `tokenizers` answers.

Usage, from the repository's root: python tests/tools/make_tokenizer_families.py [number_of_texts]
Needs PyPI tokenizers 0.23. With OUT=folder and a large number it is a fuzz test, see tests/golden/text/README.md. The tokenizers are
trained here, on random text of twenty scripts: normalizers, patterns, pre-tokenizers, added tokens, post-processors and decoders are
those of the published files, the vocabularies are not.
"""
import json
import os
import random

import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders as D, models, normalizers as N, pre_tokenizers as P, processors, trainers

NUM = int(sys.argv[1]) if len(sys.argv) > 1 else 60
OUT = os.environ.get("OUT", "tests/golden/text/families")
VOCAB = 420
rng = random.Random(20261130)

SCRIPTS = {"latin": (0x41, 0x7A), "latin1": (0xA1, 0xFF), "latinext": (0x100, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x52F),
           "armenian": (0x531, 0x58A), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE),
           "tamil": (0xB82, 0xBFA), "thai": (0xE01, 0xE5B), "georgian": (0x10A0, 0x10FF), "hangul": (0xAC00, 0xAD00), "jamo": (0x1100, 0x11FF),
           "kana": (0x3041, 0x30FF), "han": (0x4E00, 0x4F00), "han-h": (0x31350, 0x313AF), "ethiopic": (0x1200, 0x137C), "kawi": (0x11F00, 0x11F59),
           "emoji": (0x1F600, 0x1F64F), "marks": (0x300, 0x36F)}
COMMON = ["the", "of", "and", " in", "ing", "don't", "I'LL", "'s", "'S", "'\u017f", "1234567", "3.14", "...", "!!", "\n", "\n\n", "\r\n", "  ", "   ", "\t", " ",
          "\u00a0", "\u3000", "a", "B", "Cd", "eF", "(x)", "\u2581", "\u2581a", "\uff08", "\u4e2d\u6587", "e\u0301", "_", "-", "/", "\u00bd", "\U0001d2c0", "\u20ac", "<", ">"]


def word(ranges):
    first, last = rng.choice(ranges)
    return "".join(chr(rng.randrange(first, last + 1)) for _ in range(rng.choice([1, 1, 2, 3, 6])))


def text(parts):
    ranges = [SCRIPTS[name] for name in rng.sample(sorted(SCRIPTS), 3)]
    out = []
    for _ in range(rng.choice([1, 2, 4, 8, 20])):
        kind = rng.random()
        out.append(rng.choice(parts) if kind < 0.2 else rng.choice(COMMON) if kind < 0.7 else word(ranges))
        if rng.random() < 0.3:
            out.append(" ")
    return "".join(out)


CORPUS = [text(COMMON) for _ in range(3000)]
BYTES = P.ByteLevel.alphabet()
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
KIMI = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern, behavior="isolated", invert=False):
    return P.Split(Regex(pattern), behavior, invert)


def byte_level(pre, special, normalizer=None, bos=None, post=None, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = D.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=BYTES, show_progress=False))
    t.add_tokens(special)
    t.post_processor = post or processors.ByteLevel(trim_offsets=False)
    if bos:
        template = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, t.token_to_id(bos))])
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return t


def characters(normalizer, pre, decoder, bos=None, train=None, special=(), fallback=True, unk="<unk>", **model):
    """SentencePiece's kind: characters, unknown ones as their bytes. Trained elsewhere, so with `train`'s pre-tokenizer."""
    base = Tokenizer(models.BPE(unk_token="<unk>"))
    base.normalizer = normalizer
    base.pre_tokenizer = train or P.Metaspace("\u2581", prepend_scheme="always")
    spelled = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    # What is unknown to the vocabulary must not all be characters that the corpus has.
    base.train_from_iterator([line for line in CORPUS if all(ord(c) < 0x500 or c == "\u2581" for c in line)],
                             trainers.BpeTrainer(vocab_size=VOCAB + 500, special_tokens=spelled, show_progress=False))
    saved = json.loads(base.to_str())["model"]
    merges = [tuple(m) for m in saved["merges"]]
    t = Tokenizer(models.BPE(vocab=saved["vocab"], merges=merges, unk_token=unk, fuse_unk=True, byte_fallback=fallback, **model))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoder
    t.add_tokens([AddedToken(s, special=True, normalized=False) for s in ["<unk>", "<s>", "</s>"]] + list(special))
    if bos:
        t.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, t.token_to_id(bos))])
    return t


def special(*contents, **flags):
    return [AddedToken(c, special=True, normalized=False, **flags) for c in contents]


PLAIN = P.ByteLevel(add_prefix_space=False, use_regex=False)
SPIECE = lambda strip=True: D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse()] + ([D.Strip(" ", 1, 0)] if strip else []))
LEGACY = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
FAMILIES = {
    "qwen": lambda: byte_level(P.Sequence([split(QWEN), PLAIN]), special("<|im_start|>", "<|im_end|>") + [AddedToken("<think>", normalized=False)], N.NFC()),
    "glm4": lambda: byte_level(P.Sequence([split(LLAMA3), PLAIN]), special("[gMASK]", "<sop>", "<|user|>") + [AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False)]),
    "llama3": lambda: byte_level(P.Sequence([split(LLAMA3), PLAIN]), special("<|begin_of_text|>", "<|eot_id|>"), bos="<|begin_of_text|>", ignore_merges=True),
    "deepseek-v3": lambda: byte_level(P.Sequence([split(r"\p{N}{1,3}"), split(r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+".encode().decode("unicode_escape")), split(DEEPSEEK), PLAIN]),
                                      special("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>") + [AddedToken("<think>", normalized=True)],
                                      N.Sequence([]), bos="<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    "deepseek-coder": lambda: byte_level(P.Sequence([split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
                                                     P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]), special("<|begin|>"), N.Sequence([]), bos="<|begin|>"),
    "gpt-oss": lambda: byte_level(P.Sequence([split(O200K, "removed", True), PLAIN]), special("<|start|>", "<|end|>", "<|return|>")),
    "kimi": lambda: byte_level(P.Sequence([split(KIMI), PLAIN]), special("[BOS]", "<|im_end|>")),
    "olmoe": lambda: byte_level(P.ByteLevel(add_prefix_space=False), [AddedToken("  ", normalized=False), AddedToken("   ", normalized=True)] + special("<|endoftext|>"), N.NFC(),
                                post=processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])),
    "prefix-space": lambda: byte_level(P.Sequence([P.Digits(), P.ByteLevel(add_prefix_space=True)]), special("<s>", rstrip=True) + [AddedToken("the", single_word=True)], N.NFC()),
    "merged": lambda: byte_level(P.Sequence([P.Split(" ", "merged_with_next"), split(r"\p{P}", "merged_with_previous"), split(r"\p{Lu}", "contiguous"),
                                             P.Split("a", "removed"), PLAIN]), special("<s>"), N.Replace(Regex(r"\s{2,}"), "\u2581 ")),
    "mixtral": lambda: characters(LEGACY, None, SPIECE(), bos="<s>", special=[AddedToken("<tool>", normalized=True), AddedToken("x y", normalized=True)]),
    "mistral-v3": lambda: characters(None, P.Metaspace("\u2581", prepend_scheme="first", split=False), SPIECE(), bos="<s>", special=special("[INST]")),
    "ernie": lambda: characters(N.Replace(" ", "\u2581"), None, SPIECE(False), special=special("<mask:1>", lstrip=True)),
    "metaspace": lambda: characters(None, P.Metaspace("\u2581", prepend_scheme="always"), D.Metaspace("\u2581", prepend_scheme="always"), fallback=False, ignore_merges=True),
    "metaspace-never": lambda: characters(None, P.Metaspace("\u2581", prepend_scheme="never"), D.Sequence([D.Metaspace("\u2581", prepend_scheme="never"), D.ByteFallback()]), bos="</s>"),
}
only = os.environ.get("ONLY", "").split()
for name, make in FAMILIES.items():
    if only and name not in only:
        continue
    tokenizer = make()
    os.makedirs(f"{OUT}/{name}", exist_ok=True)
    tokenizer.save(f"{OUT}/{name}/tokenizer.json", pretty=False)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    parts = added + [" " + a for a in added] + [a + " " for a in added] + ["<0x41>", "x y"]
    size = tokenizer.get_vocab_size()
    texts = ["", " ", "  a", "a ", added[0], "1 22 333 4444", "\u2581\u2581"] + [text(parts) for _ in range(NUM)]
    with open(f"{OUT}/{name}/cases.jsonl", "w") as out:
        for one in texts:
            ids, prompt_ids = tokenizer.encode(one, add_special_tokens=False).ids, tokenizer.encode(one).ids
            print(json.dumps({"text": one, "ids": ids, "prompt_ids": prompt_ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                              "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True)}), file=out)
        for _ in range(NUM // 2):
            ids = [rng.randrange(size + 2) for _ in range(rng.choice([1, 2, 4, 12]))]
            if "0x" in str(tokenizer.id_to_token(20)):
                ids = [rng.choice([i, rng.randrange(259)]) for i in ids]
            print(json.dumps({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                              "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True)}), file=out)
    print(name, size, flush=True)
