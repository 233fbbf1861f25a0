"""The small checkpoints of the families with gated delta nets for make_shapes.py: random weights in transformers' own classes, as published and as
transformers ≥ 5 saves them; and the prompts for them, which are longer than a chunk of the delta rule."""
import json

import torch
import transformers
from safetensors.torch import load_file, save_file

BASE = {"vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
# name: (classes' prefix, transformers' configuration, dtype of the file)
MODELS = {
    # As published: projections interleaved by key heads, two value heads a key head, experts one by one, an MTP layer.
    "qwen3-next": ("Qwen3Next", dict(hidden_size=40, intermediate_size=28, moe_intermediate_size=12, shared_expert_intermediate_size=20,
                                     num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, head_dim=16, num_experts=9,
                                     num_experts_per_tok=3, linear_num_key_heads=8, linear_num_value_heads=16, linear_key_head_dim=12,
                                     linear_value_head_dim=10), "float32"),
    # One key head for four value heads, a dense layer, a convolution of three, YaRN, tied embeddings; experts stacked.
    "qwen3-next-stacked": ("Qwen3Next", dict(hidden_size=36, intermediate_size=20, moe_intermediate_size=20, shared_expert_intermediate_size=12,
                                             num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=1, head_dim=24, num_experts=7,
                                             num_experts_per_tok=2, mlp_only_layers=[1], norm_topk_prob=False, tie_word_embeddings=True,
                                             linear_conv_kernel_dim=3, linear_num_key_heads=1, linear_num_value_heads=4,
                                             linear_key_head_dim=16, linear_value_head_dim=24,
                                             layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"],
                                             rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "partial_rotary_factor": 0.5,
                                                              "original_max_position_embeddings": 128}), "float16"),
    # As published: the text part of a model with vision, projections apart, a value head a key head, sections of rotary positions.
    "qwen3-5-moe": ("Qwen3_5Moe", dict(hidden_size=48, moe_intermediate_size=12, shared_expert_intermediate_size=20, num_hidden_layers=4,
                                       num_attention_heads=8, num_key_value_heads=4, head_dim=16, num_experts=8, num_experts_per_tok=4,
                                       linear_num_key_heads=8, linear_num_value_heads=8, linear_key_head_dim=16, linear_value_head_dim=12,
                                       rope_parameters={"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.5,
                                                        "mrope_interleaved": True, "mrope_section": [2, 1, 1]}), "bfloat16"),
    # The text model alone, three value heads a key head.
    "qwen3-5-moe-text": ("Qwen3_5Moe", dict(hidden_size=40, moe_intermediate_size=20, shared_expert_intermediate_size=12, num_hidden_layers=3,
                                            num_attention_heads=4, num_key_value_heads=2, head_dim=12, num_experts=5, num_experts_per_tok=2,
                                            linear_num_key_heads=4, linear_num_value_heads=12, linear_key_head_dim=8, linear_value_head_dim=20,
                                            layer_types=["full_attention", "linear_attention", "linear_attention"], attention_bias=True,
                                            tie_word_embeddings=True,
                                            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}), "float32"),
}
VISION = dict(depth=1, hidden_size=16, intermediate_size=20, num_heads=2, out_hidden_size=48, patch_size=4, num_position_embeddings=16)
# What the published config.json of Qwen3-Next has besides.
PUBLISHED = {"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "attention_dropout": 0.0, "decoder_sparse_step": 1,
             "full_attention_interval": 4, "hidden_act": "silu", "initializer_range": 0.02, "linear_conv_kernel_dim": 4, "mlp_only_layers": [],
             "norm_topk_prob": True, "output_router_logits": False, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06, "rope_scaling": None,
             "rope_theta": 10000000, "router_aux_loss_coef": 0.001, "tie_word_embeddings": False, "transformers_version": "4.57.0.dev0",
             "use_cache": True, "use_sliding_window": False}


def save_prompts(out, texts):
    """Longer than one, two and four chunks of 64, three that begin alike for more than a chunk, one that repeats, and short ones."""
    common = "".join(texts[:6])
    long = [common + texts[8], common + texts[9], common, "".join(texts[6:12]), texts[7], texts[3][:8], common + texts[8], "".join(texts[12:20]), texts[9] * 2, common[:150]]
    with open(out / "long-prompts.jsonl", "w") as f:
        for i, text in enumerate(long):
            f.write(json.dumps({"id": str(i), "prompt": text}) + "\n")


def spread(name, value):
    """Random numbers that make choices sure, and decays of which some last for a chunk and some for a token."""
    if name.endswith("linear_attn.norm.weight"):
        return 1 + 0.1 * torch.randn(value.shape)
    if name.endswith("norm.weight"):
        return 0.1 * torch.randn(value.shape)  # centred at zero
    if name.endswith("A_log"):
        return torch.empty(value.shape).uniform_(-5, 1.5)
    if name.endswith("dt_bias"):
        return 0.5 * torch.randn(value.shape)
    if name.endswith("bias"):
        return 0.1 * torch.randn(value.shape)
    return torch.randn(value.shape) * 1.5 / value.shape[-1] ** 0.5


def add_mtp(file):
    """Some of what published checkpoints have of multi-token prediction."""
    state = load_file(file)
    hidden, dtype = next((v.shape[0], v.dtype) for k, v in state.items() if k.endswith("layers.0.input_layernorm.weight"))
    more = {"mtp.fc.weight": (hidden, 2 * hidden), "mtp.norm.weight": (hidden,), "mtp.layers.0.input_layernorm.weight": (hidden,)}
    save_file(state | {name: torch.randn(shape).to(dtype) for name, shape in more.items()}, file, {"format": "pt"})


def model_of(name, prefix, fields):
    if name != "qwen3-5-moe":
        config = getattr(transformers, prefix + ("TextConfig" if prefix == "Qwen3_5Moe" else "Config"))(**BASE, **fields)
        return getattr(transformers, prefix + "ForCausalLM")(config)
    config = transformers.Qwen3_5MoeConfig(text_config={**BASE, **fields}, vision_config=VISION)
    return transformers.Qwen3_5MoeForConditionalGeneration(config)


def save_delta_nets(out, tokenizer, wanted):
    for seed, (name, (prefix, fields, dtype)) in enumerate(MODELS.items()):
        if wanted and name not in wanted:
            continue
        torch.manual_seed(300 + seed)
        model = model_of(name, prefix, fields).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                value.copy_(spread(key, value))
        model.to(getattr(torch, dtype))
        directory = out / name
        model.save_pretrained(directory, save_original_format=name == "qwen3-next")
        tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "generation_config.json").unlink(missing_ok=True)
        if name in ("qwen3-next", "qwen3-5-moe"):
            add_mtp(directory / "model.safetensors")
        if name == "qwen3-next":
            (directory / "config.json").write_text(json.dumps({**BASE, **PUBLISHED, **fields, "torch_dtype": dtype}, indent=1) + "\n")
