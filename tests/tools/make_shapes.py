"""Makes small checkpoints of random weights whose shapes differ from the tiny model's, for tests/golden.
Usage: make_shapes.py OUT_DIR [NAME ...]   (needs torch, safetensors, transformers ≥ 5, tokenizers; NAME: those alone)
OUT_DIR/NAME/golden.h5 then has to hold what Hugging Face transformers answers to OUT_DIR/prompts.jsonl in float32 (tests/golden/README.md)."""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from delta_net_shapes import save_delta_nets, save_prompts
from family_shapes import save_families

BASE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "vocab_size": 320,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 0, "intermediate_size": 40,
    "mlp_only_layers": [], "decoder_sparse_step": 1, "attention_bias": False, "tie_word_embeddings": False,
}
SHAPES = {
    # Two key/value heads for eight query heads, biases, YaRN beyond the original length, six experts (no power of two), the
    # newer spelling of config.json, float32.
    "bias-yarn": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16,
                  "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": False,
                  "attention_bias": True, "dtype": "float32",
                  "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}},
    # Tied embeddings, dense layers among sparse ones (by step and by list), ten experts, the older spelling, bfloat16, two shards.
    "tied-dense": {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32,
                   "num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True,
                   "tie_word_embeddings": True, "decoder_sparse_step": 2, "mlp_only_layers": [3], "torch_dtype": "bfloat16",
                   "rope_theta": 1000000.0, "rope_scaling": None},
    # One key/value head, linear scaling, seven experts of which four are taken, odd widths, float16.
    "linear-seven": {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 8,
                     "num_experts": 7, "num_experts_per_tok": 4, "moe_intermediate_size": 20, "norm_topk_prob": True,
                     "torch_dtype": "float16", "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
}

# Mixtral, as published (w1, w2, w3 of each expert, num_local_experts) and as transformers ≥ 5 computes and can save it (experts
# stacked). Two key/value heads for eight query heads, five experts, odd widths, no norm of queries and keys; float32.
MIXTRAL = {"vocab_size": 320, "hidden_size": 36, "intermediate_size": 28, "num_hidden_layers": 3, "num_attention_heads": 8,
           "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
           "num_local_experts": 5, "num_experts_per_tok": 2, "bos_token_id": 0, "eos_token_id": 0, "sliding_window": None,
           "tie_word_embeddings": False}


def save_mixtral(out, tokenizer, wanted):
    """mixtral: the published names and config.json; mixtral-stacked: what save_pretrained writes where it does not revert them."""
    from transformers import MixtralConfig, MixtralForCausalLM
    torch.manual_seed(11)
    model = MixtralForCausalLM(MixtralConfig(**MIXTRAL)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            norm = name.endswith("norm.weight")
            value.copy_(torch.randn(value.shape) * (0.1 if norm else 1.5 / value.shape[-1] ** 0.5) + norm)
    for name, published in (("mixtral", True), ("mixtral-stacked", False)):
        if wanted and name not in wanted:
            continue
        model.save_pretrained(out / name, save_original_format=published)
        tokenizer.backend_tokenizer.save(str(out / name / "tokenizer.json"))
        (out / name / "generation_config.json").unlink(missing_ok=True)
    if not wanted or "mixtral" in wanted:
        older = {**MIXTRAL, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu",
                 "torch_dtype": "float32", "attention_dropout": 0.0, "initializer_range": 0.02, "output_router_logits": False,
                 "router_aux_loss_coef": 0.02, "transformers_version": "4.36.0.dev0", "use_cache": True}
        (out / "mixtral/config.json").write_text(json.dumps(older, indent=1) + "\n")


def save_stacked(out, tokenizer, wanted):
    """linear-seven as transformers ≥ 5 saves it where it does not revert to the published names."""
    from transformers import AutoModelForCausalLM
    if wanted and "linear-seven-stacked" not in wanted:
        return
    directory = out / "linear-seven-stacked"
    model = AutoModelForCausalLM.from_pretrained(out / "linear-seven", dtype="auto")
    model.save_pretrained(directory, save_original_format=False)
    tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "generation_config.json").unlink(missing_ok=True)


def tensors(c):
    h, d, kv = c["hidden_size"], c["head_dim"], c["num_key_value_heads"]
    q = c["num_attention_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    yield "model.norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        yield p + "self_attn.q_norm.weight", (d,)
        yield p + "self_attn.k_norm.weight", (d,)
        for name, rows, cols in (("q_proj", q * d, h), ("k_proj", kv * d, h), ("v_proj", kv * d, h), ("o_proj", h, q * d)):
            yield p + f"self_attn.{name}.weight", (rows, cols)
            if c["attention_bias"]:
                yield p + f"self_attn.{name}.bias", (rows,)
        sparse = i not in c["mlp_only_layers"] and (i + 1) % c["decoder_sparse_step"] == 0
        if sparse:
            yield p + "mlp.gate.weight", (c["num_experts"], h)
        for m in [f"mlp.experts.{e}." for e in range(c["num_experts"])] if sparse else ["mlp."]:
            w = c["moe_intermediate_size"] if sparse else c["intermediate_size"]
            yield p + m + "gate_proj.weight", (w, h)
            yield p + m + "up_proj.weight", (w, h)
            yield p + m + "down_proj.weight", (h, w)


def main():
    root = pathlib.Path(__file__).parents[2]
    out, wanted = pathlib.Path(sys.argv[1]), set(sys.argv[2:])
    texts = [json.loads(line)["prompt"] for line in open(root / "data/prompts.jsonl")]
    tiny = PreTrainedTokenizerFast(tokenizer_file=str(root / "data/tiny-moe/tokenizer.json"))
    tokenizer = tiny.train_new_from_iterator(texts, 320)
    with open(out / "prompts.jsonl", "w") as f:
        for i, text in enumerate(texts[:16]):
            f.write(json.dumps({"id": str(i), "prompt": text * (1 + i % 3)}) + "\n")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        if wanted and name not in wanted:
            continue
        torch.manual_seed(seed)
        config = {**BASE, **shape}
        directory = out / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
        dtype = getattr(torch, config.get("dtype") or config["torch_dtype"])
        state = {}
        for key, size in tensors(config):
            spread = 0.1 if key.endswith(("norm.weight", "bias")) else 1.5 / size[-1] ** 0.5
            state[key] = (torch.randn(size) * spread + (1 if key.endswith("norm.weight") else 0)).to(dtype)
        if name != "tied-dense":
            save_file(state, directory / "model.safetensors", {"format": "pt"})
            continue
        files = {}
        for i, key in enumerate(state):
            files.setdefault(f"model-0000{1 + (i % 2)}-of-00002.safetensors", {})[key] = state[key]
        for file, part in files.items():
            save_file(part, directory / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": {key: file for file, part in files.items() for key in part}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    save_stacked(out, tokenizer, wanted)
    save_mixtral(out, tokenizer, wanted)
    save_families(out, tokenizer, wanted)
    save_prompts(out, texts)
    save_delta_nets(out, tokenizer, wanted)


main()
