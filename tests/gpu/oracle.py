"""Compares moerun on this machine's GPU with transformers on the same GPU, on random models: one with the layer shapes of Qwen3-30B-A3B, and others
that differ in head size, number of experts, biases, tied weights, dense layers and scaled positions.

Usage: oracle.py MOERUN WORK_DIR [NAME_FILTER]   (needs torch, transformers, h5py; prints a table and `N passed, M failed`)

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
import transformers
from transformers import AutoModelForCausalLM

VOCAB, PROMPTS = 32768, 12
repo = pathlib.Path(__file__).resolve().parents[2]


# Differences from Qwen3-30B-A3B.
MODELS = {
    "layers of Qwen3-30B-A3B": {"num_hidden_layers": 4},
    "biases, YaRN, six experts, head size 64": {
        "num_hidden_layers": 3, "hidden_size": 384, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "num_experts": 6,
        "num_experts_per_tok": 2, "moe_intermediate_size": 200, "norm_topk_prob": False, "attention_bias": True, "max_position_embeddings": 1024,
        "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}},
    "tied weights, dense layers, a key head a query head": {
        "num_hidden_layers": 5, "hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 10,
        "num_experts_per_tok": 3, "moe_intermediate_size": 256, "intermediate_size": 320, "tie_word_embeddings": True, "decoder_sparse_step": 2,
        "mlp_only_layers": [3]},
    "one key head, linear positions, seven experts": {
        "num_hidden_layers": 2, "hidden_size": 296, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 64, "num_experts": 7,
        "num_experts_per_tok": 4, "moe_intermediate_size": 168, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
}
# Other families: the prefix of transformers' classes, and the configuration.
WIDE = {"hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8, "max_position_embeddings": 1024}
FAMILIES = {
    "OLMoE": ("Olmoe", {**WIDE, "num_key_value_heads": 8, "intermediate_size": 200, "num_experts": 13, "num_experts_per_tok": 4}),
    "Qwen2-MoE": ("Qwen2Moe", {**WIDE, "hidden_size": 1024, "num_key_value_heads": 2, "intermediate_size": 320, "moe_intermediate_size": 168,
                               "shared_expert_intermediate_size": 648, "num_experts": 10, "num_experts_per_tok": 4, "mlp_only_layers": [1]}),
    "Mixtral": ("Mixtral", {**WIDE, "num_key_value_heads": 1, "intermediate_size": 328, "num_local_experts": 6, "num_experts_per_tok": 2}),
    "GLM-4-MoE, as Air": ("Glm4Moe", {**WIDE, "num_attention_heads": 12, "num_key_value_heads": 1, "head_dim": 128, "intermediate_size": 328,
                                      "moe_intermediate_size": 168, "n_routed_experts": 16, "num_experts_per_tok": 4, "attention_bias": True,
                                      "num_nextn_predict_layers": 0}),
    "GLM-4-MoE, groups and q/k norms": ("Glm4Moe", {**WIDE, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 328,
                                                    "moe_intermediate_size": 168, "n_routed_experts": 24, "n_group": 4, "topk_group": 2,
                                                    "num_experts_per_tok": 5, "routed_scaling_factor": 2.5, "use_qk_norm": True,
                                                    "n_shared_experts": 2, "num_nextn_predict_layers": 0}),
    "MiniMax-M2": ("MiniMaxM2", {**WIDE, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 128,
                                 # Not as rotary_dim, which transformers before 5.24 passes over.
                                 "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
                                 "intermediate_size": 200, "num_local_experts": 18, "num_experts_per_tok": 4}),
    "ERNIE 4.5": ("Ernie4_5_Moe", {**WIDE, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 328,
                                   "moe_intermediate_size": 168, "moe_num_experts": 12, "moe_k": 3, "tie_word_embeddings": True}),
}


def make_config(differences):
    """transformers' configuration of a model, and its classes' prefix."""
    if isinstance(differences, tuple):
        prefix, fields = differences
        return getattr(transformers, prefix + "Config")(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, **fields), prefix
    fields = json.loads((repo / "data/qwen3-30b-a3b/config.json").read_text())
    fields.update(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, **differences)
    fields["max_window_layers"] = fields["num_hidden_layers"]
    return transformers.Qwen3MoeConfig(**{k: v for k, v in fields.items() if k not in ("architectures", "torch_dtype")}), "Qwen3Moe"


def make_model(folder, differences):
    torch.manual_seed(20261123)
    config, prefix = make_config(differences)
    config.initializer_range = 0.04
    with torch.device("cuda"):
        model = getattr(transformers, prefix + "ForCausalLM")(config).to(torch.bfloat16)
        for parameter in model.parameters():  # norms and biases, which are 1 and 0 otherwise
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
        for name, values in model.state_dict().items():
            if name.endswith("e_score_correction_bias"):
                values += 0.05 * torch.randn_like(values)
    model.save_pretrained(folder, max_shard_size="1GB")
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


def compare(program, work, differences):
    """Yields for each dtype: its name, the two mean errors."""
    folder = work / "model"
    shutil.rmtree(work, ignore_errors=True)
    folder.mkdir(parents=True)
    make_model(folder, differences)
    random = np.random.default_rng(1)
    prompts = [random.integers(2, 4000, size=int(n)).tolist() for n in random.integers(2, 700, size=PROMPTS)]
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt_token_ids": p}) + "\n" for p in prompts))
    (work / "job.yaml").write_text(f"""
model: {{path: {folder}, max_model_len: 1024}}
device: cuda
input: {{path: {work}/prompts.jsonl}}
sampling: {{max_tokens: 1, prompt_logprobs: true, ignore_eos: true}}
output: {{path: {work}/answers.h5}}
memory: {{gpu_memory_utilization: 0.2}}
""")
    reference = transformers_logprobs(folder, prompts, torch.float32)
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        theirs = np.abs(transformers_logprobs(folder, prompts, dtype) - reference).mean()
        ours = np.abs(moerun_logprobs(program, folder, work, name) - reference).mean()
        yield name, ours, theirs


def main():
    program, work = sys.argv[1], pathlib.Path(sys.argv[2])
    wanted = sys.argv[3] if len(sys.argv) > 3 else ""
    passed = failed = 0
    for model, differences in (MODELS | FAMILIES).items():
        if wanted not in model:
            continue
        for dtype, ours, theirs in compare(program, work, differences):
            good = bool(ours <= 1.2 * theirs)
            print(f"{model}, {dtype}: mean |error| of log-probabilities: moerun {ours:.5f}, transformers {theirs:.5f}, "
                  f"ratio {ours / theirs:.2f} {'ok' if good else 'TOO LARGE'}", flush=True)
            passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
