"""Model folders as numpy sees them: safetensors in and out, e4m3, small models of random weights."""
import json
import struct

import numpy as np

GROUP = 128
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1}


def e4m3_table():
    """What the codes 0 to 126 stand for (OFP8: 4 bits of exponent with bias 7, 3 of mantissa)."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    return np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0**(exponent - 7.0)).astype(np.float32)


VALUES = e4m3_table()
MIDDLES = (VALUES[1:].astype(np.float64) + VALUES[:-1]) / 2


def to_e4m3(x):
    """Codes: to the nearest, ties to the even one, at most 448."""
    magnitude = np.abs(x).astype(np.float64)
    code = np.searchsorted(MIDDLES, magnitude, side="left")
    tie = (code < len(MIDDLES)) & (magnitude == MIDDLES[np.minimum(code, len(MIDDLES) - 1)]) & (code % 2 == 1)
    return ((code + tie) | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


def from_e4m3(codes):
    return np.where(codes & 0x80, -1, 1).astype(np.float32) * VALUES[np.minimum(codes & 0x7F, 126)]


def to_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_safetensors(path, tensors):
    """tensors: name → (dtype, array of its stored elements)."""
    header, data, at = {}, [], 0
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def read_safetensors(path):
    """name → (dtype, array of its stored elements)."""
    data = path.read_bytes()
    length, = struct.unpack_from("<Q", data)
    kinds = {"F32": np.float32, "BF16": np.uint16, "F16": np.float16, "F8_E4M3": np.uint8}
    out = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        out[name] = entry["dtype"], np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return out


def read_folder(folder):
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        out.update(read_safetensors(path))
    return out


def floats(entry):
    dtype, array = entry
    return {"F32": lambda a: a, "BF16": from_bf16, "F16": lambda a: a.astype(np.float32), "F8_E4M3": from_e4m3}[dtype](array)


def quantise(w, rows, cols):
    """Codes and scales of blocks of rows × cols."""
    scales = np.zeros((-(-w.shape[0] // rows), -(-w.shape[1] // cols)), np.float32)
    codes = np.zeros(w.shape, np.uint8)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = np.s_[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols]
            amax = np.abs(w[at]).max()
            scales[i, j] = amax / np.float32(448) if amax > 0 else 1
            codes[at] = to_e4m3(w[at] / scales[i, j])
    return codes, scales


BASE = {"hidden_act": "silu", "vocab_size": 320, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "bos_token_id": 0,
        "eos_token_id": 0, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "norm_topk_prob": True}
MODELS = {
    # Widths that are no multiples of 128, a dense layer among sparse ones, biases.
    "qwen3": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 200, "intermediate_size": 136,
              "moe_intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 40,
              "num_experts": 6, "num_experts_per_tok": 2, "mlp_only_layers": [1], "attention_bias": True},
    # A shared expert with a gate; experts wider than a group.
    "qwen2": {"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_size": 264, "intermediate_size": 72,
              "moe_intermediate_size": 136, "shared_expert_intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 4, "num_experts": 5, "num_experts_per_tok": 3, "mlp_only_layers": []},
    # Eight groups of 128 for the output projection: every layout.
    "wide": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 160, "intermediate_size": 136,
             "moe_intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
             "num_experts": 16, "num_experts_per_tok": 4, "mlp_only_layers": []},
}


def shapes_of(c):
    h, q = c["hidden_size"], c["num_attention_heads"]
    d = c.get("head_dim", h // q)
    kv, qwen2 = c["num_key_value_heads"], c["model_type"] == "qwen2_moe"
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield p + name + ".weight", (h,)
        if not qwen2:
            for name in ("q_norm", "k_norm"):
                yield p + f"self_attn.{name}.weight", (d,)
        for name, rows, cols in (("q_proj", q * d, h), ("k_proj", kv * d, h), ("v_proj", kv * d, h), ("o_proj", h, q * d)):
            yield p + f"self_attn.{name}.weight", (rows, cols)
            if c.get("attention_bias") or (qwen2 and name != "o_proj"):
                yield p + f"self_attn.{name}.bias", (rows,)
        dense = i in c["mlp_only_layers"]
        mlps = {"mlp.": c["intermediate_size"]} if dense else {f"mlp.experts.{e}.": c["moe_intermediate_size"] for e in range(c["num_experts"])}
        if not dense:
            yield p + "mlp.gate.weight", (c["num_experts"], h)
        if not dense and qwen2:
            yield p + "mlp.shared_expert_gate.weight", (1, h)
            mlps["mlp.shared_expert."] = c["shared_expert_intermediate_size"]
        for m, w in mlps.items():
            yield p + m + "gate_proj.weight", (w, h)
            yield p + m + "up_proj.weight", (w, h)
            yield p + m + "down_proj.weight", (h, w)


def make_model(folder, name, seed=0):
    """A folder of random weights in bfloat16; the tokenizer is the caller's."""
    random, config = np.random.default_rng(seed), {**BASE, **MODELS[name]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for tensor, shape in shapes_of(config):
        # Layers add little to what tokens bring: another rounding of one activation stays small.
        spread = (0.1 if tensor.endswith(("norm.weight", "bias")) else 1 if "embed" in tensor else
                  (2 if tensor.startswith("lm_head") else 0.4) / shape[-1]**0.5)
        values = random.standard_normal(shape) * spread + tensor.endswith("norm.weight")
        tensors[tensor] = "BF16", to_bf16(values)
    write_safetensors(folder / "model.safetensors", tensors)


def is_converted(tensor):
    """Whether a tensor of these models is a linear layer's matrix."""
    return tensor.endswith("_proj.weight")
