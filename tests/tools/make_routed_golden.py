#!/usr/bin/env python3
"""The experts that transformers' own routers choose for the prompts and greedy answers of a golden file.

Usage: make_routed_golden.py MODEL_DIR GOLDEN.h5 OUT.h5   (torch, transformers ≥ 5.0, h5py)

OUT.h5 has `ids` [tokens of prompt and answer but the answer's last, layers with experts, experts a token] with the greatest weight
first, `offsets` of the rows and `layers`.
"""
import re
import sys

import h5py
import numpy as np
import torch
from transformers import AutoModelForCausalLM

folder, golden, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
chosen = {}


def note(layer):
    def hook(module, args, kwargs):
        ids, weights = (*args, *kwargs.values())[1:3]  # hidden_states, top_k_index, top_k_weights
        best = torch.argsort(weights.reshape(ids.shape), dim=-1, descending=True, stable=True)
        chosen[layer] = torch.gather(ids, -1, best).numpy()
    return hook


for name, module in model.named_modules():
    if type(module).__name__.endswith("Experts"):
        module.register_forward_pre_hook(note(int(re.search(r"layers\.(\d+)\.", name)[1])), with_kwargs=True)

rows = []
with h5py.File(golden) as f, torch.no_grad():
    part = lambda name, i: f[name][f[name + "_offsets"][i] : f[name + "_offsets"][i + 1]]
    for i in range(len(f["prompt_tokens_offsets"]) - 1):
        tokens = np.concatenate([part("prompt_tokens", i), part("greedy_tokens", i)])[:-1]
        chosen.clear()
        model(torch.tensor(tokens, dtype=torch.long)[None], use_cache=False)
        rows.append(np.stack([chosen[layer] for layer in sorted(chosen)], axis=1))
with h5py.File(out, "w") as f:
    kind = np.uint8 if max(row.max() for row in rows) < 256 else np.uint16
    f.create_dataset("ids", data=np.concatenate(rows).astype(kind), compression="gzip", compression_opts=9, shuffle=True)
    f["offsets"] = np.cumsum([0, *(len(row) for row in rows)]).astype(np.uint64)
    f["layers"] = np.array(sorted(chosen), np.int32)
    f.attrs["source"] = "transformers, float32, eager attention, CPU: tests/tools/make_routed_golden.py"
