"""The small checkpoints of each family for make_shapes.py: random weights in transformers' own classes, saved as published or as
transformers ≥ 5 computes and can save them (stacks of experts, newer config.json)."""
import json

import torch
import transformers
from safetensors.torch import load_file, save_file

BASE = {"vocab_size": 320, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
# name: (classes' prefix, transformers' configuration, dtype of the file, as published?). Published ones get OLDER's config.json.
MODELS = {
    # A norm over all heads; as many key heads as query heads, seven experts.
    "olmoe": ("Olmoe", dict(hidden_size=48, intermediate_size=20, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=8,
                            num_experts=7, num_experts_per_tok=3, norm_topk_prob=False, rope_theta=10000.0), "float32", True),
    "olmoe-stacked": ("Olmoe", dict(hidden_size=40, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                                    num_experts=5, num_experts_per_tok=2, norm_topk_prob=True, tie_word_embeddings=True), "bfloat16", False),
    # One key head, which tensor-parallel ranks share; biases.
    "olmoe-bias": ("Olmoe", dict(hidden_size=32, intermediate_size=12, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1,
                                 num_experts=6, num_experts_per_tok=4, attention_bias=True), "float16", True),
    # A shared expert with a gate; dense layers by step and by list.
    "qwen2-moe": ("Qwen2Moe", dict(hidden_size=48, intermediate_size=28, moe_intermediate_size=12, shared_expert_intermediate_size=36,
                                   num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, num_experts=6, num_experts_per_tok=4,
                                   decoder_sparse_step=2, norm_topk_prob=False, rope_theta=1000000.0), "float32", True),
    "qwen2-moe-stacked": ("Qwen2Moe", dict(hidden_size=48, intermediate_size=20, moe_intermediate_size=20, shared_expert_intermediate_size=12,
                                           num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, num_experts=5,
                                           num_experts_per_tok=2, norm_topk_prob=True, tie_word_embeddings=True), "bfloat16", False),
    "qwen2-moe-linear": ("Qwen2Moe", dict(hidden_size=36, intermediate_size=16, moe_intermediate_size=20, shared_expert_intermediate_size=20,
                                          num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, num_experts=7,
                                          num_experts_per_tok=3, mlp_only_layers=[1], qkv_bias=False,
                                          rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}), "float16", True),
    # Groups of experts, a scale, a bias for the choice alone, norms of heads, biases, half a head rotated, a dense layer first; a layer
    # of multi-token prediction behind.
    "glm4-moe": ("Glm4Moe", dict(hidden_size=40, intermediate_size=28, moe_intermediate_size=12, num_hidden_layers=3, num_attention_heads=8,
                                 num_key_value_heads=4, head_dim=8, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2,
                                 n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=1, norm_topk_prob=True,
                                 attention_bias=True, use_qk_norm=True, rope_theta=1000000.0), "float32", True),
    "glm4-moe-stacked": ("Glm4Moe", dict(hidden_size=32, intermediate_size=20, moe_intermediate_size=20, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2, head_dim=12, n_routed_experts=7,
                                         num_experts_per_tok=2, n_shared_experts=2, routed_scaling_factor=1.0, first_k_dense_replace=0,
                                         attention_bias=True, use_qk_norm=False, num_nextn_predict_layers=0), "bfloat16", False),
    "glm4-moe-yarn": ("Glm4Moe", dict(hidden_size=36, intermediate_size=16, moe_intermediate_size=12, num_hidden_layers=3,
                                      num_attention_heads=6, num_key_value_heads=1, head_dim=16, n_routed_experts=5, num_experts_per_tok=3,
                                      n_shared_experts=1, routed_scaling_factor=1.5, first_k_dense_replace=2, norm_topk_prob=False,
                                      partial_rotary_factor=0.25, num_nextn_predict_layers=0,
                                      rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                                       "original_max_position_embeddings": 64}), "float16", True),
    # Sigmoids with a bias, a norm over all heads, a part of a head rotated.
    "minimax-m2": ("MiniMaxM2", dict(hidden_size=40, intermediate_size=12, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
                                     head_dim=8, num_local_experts=9, num_experts_per_tok=3, rotary_dim=4, rope_theta=5000000.0), "float32", True),
    "minimax-m2-stacked": ("MiniMaxM2", dict(hidden_size=32, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
                                             num_key_value_heads=4, head_dim=12, num_local_experts=5, num_experts_per_tok=2,
                                             rotary_dim=6), "bfloat16", False),
    "minimax-m2-whole": ("MiniMaxM2", dict(hidden_size=36, intermediate_size=16, num_hidden_layers=2, num_attention_heads=6,
                                           num_key_value_heads=1, head_dim=8, num_local_experts=6, num_experts_per_tok=4,
                                           tie_word_embeddings=True, rope_theta=10000.0), "float16", True),
    # Softmax with a bias for the choice, pairs of neighbours rotated, two shared experts, a dense layer first, tied embeddings.
    "ernie4-5-moe": ("Ernie4_5_Moe", dict(hidden_size=40, intermediate_size=28, moe_intermediate_size=12, num_hidden_layers=3,
                                          num_attention_heads=8, num_key_value_heads=2, head_dim=8, moe_num_experts=6, moe_k=3,
                                          moe_num_shared_experts=2, moe_layer_start_index=1, moe_layer_end_index=-1, moe_layer_interval=1,
                                          rope_theta=500000.0), "float32", True),
    "ernie4-5-moe-stacked": ("Ernie4_5_Moe", dict(hidden_size=48, intermediate_size=20, moe_intermediate_size=20, num_hidden_layers=4,
                                                  num_attention_heads=4, num_key_value_heads=4, moe_num_experts=7, moe_k=2, use_bias=True,
                                                  moe_num_shared_experts=1, moe_layer_start_index=0, moe_layer_end_index=2,
                                                  moe_layer_interval=2, tie_word_embeddings=False), "bfloat16", False),
    "ernie4-5-moe-unshared": ("Ernie4_5_Moe", dict(hidden_size=36, intermediate_size=16, moe_intermediate_size=12, num_hidden_layers=2,
                                                   num_attention_heads=6, num_key_value_heads=1, head_dim=10, moe_num_experts=5, moe_k=4,
                                                   moe_num_shared_experts=0, moe_layer_start_index=0, tie_word_embeddings=False,
                                                   rope_theta=10000.0), "float16", True),
}
# What a published config.json has besides, and what transformers 5 calls otherwise.
OLDER = {
    "Olmoe": {"clip_qkv": None, "hidden_act": "silu", "router_aux_loss_coef": 0.01, "rope_scaling": None, "transformers_version": "4.43.0.dev0"},
    "Qwen2Moe": {"hidden_act": "silu", "max_window_layers": 28, "sliding_window": 32768, "use_sliding_window": False, "router_aux_loss_coef": 0.001,
                 "transformers_version": "4.39.0.dev0"},
    "Glm4Moe": {"hidden_act": "silu", "partial_rotary_factor": 0.5, "num_nextn_predict_layers": 1, "rope_scaling": None,
                "transformers_version": "4.54.0"},
    "MiniMaxM2": {"hidden_act": "silu", "layernorm_full_attention_beta": 1.0, "layernorm_linear_attention_beta": 1.0, "layernorm_mlp_beta": 1.0,
                  "mlp_intermediate_size": 8192, "mtp_transformer_layers": 1, "num_mtp_modules": 3, "qk_norm_type": "per_layer",
                  "scoring_func": "sigmoid", "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid", "sliding_window": None,
                  "use_mtp": True, "use_qk_norm": True, "use_routing_bias": True, "transformers_version": "4.46.1"},
    "Ernie4_5_Moe": {"hidden_act": "silu", "moe_capacity": [64, 64, 64], "moe_gate": "topk", "moe_use_aux_free": True, "use_rmsnorm": True,
                     "num_nextn_predict_layers": 1, "use_bias": False, "transformers_version": "4.54.0.dev0"},
}
MODEL_TYPES = {"Olmoe": "olmoe", "Qwen2Moe": "qwen2_moe", "Glm4Moe": "glm4_moe", "MiniMaxM2": "minimax_m2", "Ernie4_5_Moe": "ernie4_5_moe"}


def older_config(prefix, fields, dtype):
    """As published: what transformers < 5 wrote."""
    out = {"architectures": [prefix + "ForCausalLM"], "model_type": MODEL_TYPES[prefix], **BASE, **OLDER[prefix], **fields, "torch_dtype": dtype}
    if prefix == "MiniMaxM2":
        out["attn_type_list"] = [1] * fields["num_hidden_layers"]
    rope = out.pop("rope_parameters", None)
    if rope:
        out["rope_theta"], out["rope_scaling"] = rope["rope_theta"], {"type": rope["rope_type"], **{k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}}
    return out


def spread(name, value):
    """Random numbers that make choices sure: norms about 1, biases that matter, matrices that keep a row's size."""
    if name.endswith("norm.weight"):
        return 1 + 0.1 * torch.randn(value.shape)
    if name.endswith("e_score_correction_bias"):
        return 0.2 * torch.randn(value.shape)
    if name.endswith("bias"):
        return 0.1 * torch.randn(value.shape)
    return torch.randn(value.shape) * 1.5 / value.shape[-1] ** 0.5


def add_layer_ahead(file, layers):
    """What a published GLM-4.5 has behind its layers: one for multi-token prediction, with its own names."""
    state = load_file(file)
    ahead = {name.replace(f"layers.{layers - 1}.", f"layers.{layers}."): value.clone() for name, value in state.items() if f"layers.{layers - 1}." in name}
    hidden = state["model.norm.weight"].shape[0]
    ahead |= {f"model.layers.{layers}.{name}": torch.randn(shape).to(state["model.norm.weight"].dtype)
              for name, shape in (("eh_proj.weight", (hidden, 2 * hidden)), ("enorm.weight", (hidden,)), ("hnorm.weight", (hidden,)),
                                  ("shared_head.norm.weight", (hidden,)))}
    save_file(state | ahead, file, {"format": "pt"})


def save_families(out, tokenizer, wanted):
    for seed, (name, (prefix, fields, dtype, published)) in enumerate(MODELS.items()):
        if wanted and name not in wanted:
            continue
        torch.manual_seed(100 + seed)
        config = getattr(transformers, prefix + "Config")(**BASE, **fields)
        model = getattr(transformers, prefix + "ForCausalLM")(config).eval()
        with torch.no_grad():
            for key, value in list(model.named_parameters()) + [b for b in model.named_buffers() if b[0].endswith("correction_bias")]:
                value.copy_(spread(key, value))
        model.to(getattr(torch, dtype))
        directory = out / name
        model.save_pretrained(directory, save_original_format=published)
        tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "generation_config.json").unlink(missing_ok=True)
        if name == "glm4-moe":
            add_layer_ahead(directory / "model.safetensors", fields["num_hidden_layers"])
        if published:
            (directory / "config.json").write_text(json.dumps(older_config(prefix, fields, dtype), indent=1) + "\n")
