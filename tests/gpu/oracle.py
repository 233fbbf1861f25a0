"""Compares moerun on this machine's GPU with transformers on the same GPU, on a random model with the layer shapes of Qwen3-30B-A3B.

Usage: oracle.py MOERUN WORK_DIR   (needs torch, transformers, h5py; prints a table and `N passed, M failed`)

The reference is transformers in float32 (no TF32). An answer passes when moerun's mean absolute error of prompt log-probabilities is at most 1.2 times
that of transformers' own 16-bit run.
"""
import json
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

LAYERS, VOCAB, PROMPTS = 4, 32768, 12
repo = pathlib.Path(__file__).resolve().parents[2]


def make_model(folder):
    fields = json.loads((repo / "data/qwen3-30b-a3b/config.json").read_text())
    fields.update(num_hidden_layers=LAYERS, vocab_size=VOCAB, max_window_layers=LAYERS, bos_token_id=0, eos_token_id=1)
    torch.manual_seed(20261123)
    config = Qwen3MoeConfig(**{k: v for k, v in fields.items() if k not in ("architectures", "torch_dtype")})
    config.initializer_range = 0.04
    with torch.device("cuda"):
        model = Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="1GB")
    (folder / "config.json").write_text(json.dumps(fields | {"torch_dtype": "bfloat16"}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(repo / "data/tiny-moe" / name, folder / name)
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')


def transformers_logprobs(folder, prompts, dtype):
    torch.backends.cuda.matmul.allow_tf32 = False
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").cuda().eval()
    out = []
    with torch.no_grad():
        for ids in prompts:
            logits = model(torch.tensor([ids], device="cuda")).logits[0].double()
            picked = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids[1:], device="cuda")[:, None])
            out.append(picked[:, 0].cpu().numpy())
    del model
    torch.cuda.empty_cache()
    return np.concatenate(out)


def moerun_logprobs(program, folder, work, dtype):
    output = work / f"answers.{dtype}.h5"
    subprocess.run([program, str(work / "job.yaml"), f"model.dtype={dtype}", f"output.path={output}", "--fresh"], check=True)
    with h5py.File(output) as f:
        values, offsets = f["results/prompt_logprobs"][:], f["results/prompt_offsets"][:]
    return np.concatenate([values[a + 1:b] for a, b in zip(offsets, offsets[1:])]).astype(np.float64)


def main():
    program, work = sys.argv[1], pathlib.Path(sys.argv[2])
    folder = work / "model"
    shutil.rmtree(work, ignore_errors=True)
    folder.mkdir(parents=True)
    make_model(folder)
    random = np.random.default_rng(1)
    prompts = [random.integers(2, 4000, size=int(n)).tolist() for n in random.integers(2, 700, size=PROMPTS)]
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt_token_ids": p}) + "\n" for p in prompts))
    (work / "job.yaml").write_text(f"""
model: {{path: {folder}, max_model_len: 1024}}
device: cuda
input: {{path: {work}/prompts.jsonl}}
sampling: {{max_tokens: 1, prompt_logprobs: true, ignore_eos: true}}
output: {{path: {work}/answers.h5}}
""")
    reference = transformers_logprobs(folder, prompts, torch.float32)
    passed = failed = 0
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        theirs = np.abs(transformers_logprobs(folder, prompts, dtype) - reference).mean()
        ours = np.abs(moerun_logprobs(program, folder, work, name) - reference).mean()
        good = bool(ours <= 1.2 * theirs)
        print(f"{name}: mean |error| of {reference.size} log-probabilities: moerun {ours:.5f}, transformers {theirs:.5f}, "
              f"ratio {ours / theirs:.2f} {'ok' if good else 'TOO LARGE'}")
        passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
