"""The arithmetic of include/moerun/fp8.h and of the decoders around it, in numpy and float32: what log-probabilities must be."""
import json

import numpy as np

from folders import GROUP, floats, from_e4m3, read_folder, to_e4m3


def groups_of(x, cols):
    """[…, cols] → […, groups, GROUP], the last one filled up with zeros."""
    missing = -cols % GROUP
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], missing), x.dtype)], axis=-1)
    return padded.reshape(*x.shape[:-1], -1, GROUP)


class Linear:
    """x·Wᵀ + b, W in e4m3 with scales or in floats."""

    def __init__(self, tensors, module):
        self.bias = floats(tensors[module + ".bias"]) if module + ".bias" in tensors else None
        dtype, stored = tensors[module + ".weight"]
        self.fp8 = dtype == "F8_E4M3"
        self.w = floats((dtype, stored))
        if not self.fp8:
            return
        rows, cols = stored.shape
        name = next(n for n in (module + ".weight_scale_inv", module + ".weight_scale") if n in tensors)
        scales = floats(tensors[name]).reshape(tensors[name][1].shape[0], -1)
        each = GROUP if name.endswith("_inv") else 1
        by_row = np.repeat(scales, each, axis=0)[:rows]
        self.scales = np.broadcast_to(by_row, (rows, -(-cols // GROUP))) if each == 1 else by_row
        self.groups = groups_of(self.w, cols)

    def __call__(self, x):
        if self.fp8:
            g = groups_of(x, x.shape[-1])
            amax = np.abs(g).max(axis=-1)
            scale = np.where(amax > 0, amax / np.float32(448), np.float32(1)).astype(np.float32)
            q = from_e4m3(to_e4m3(g / scale[..., None]))
            y = np.zeros((x.shape[0], self.w.shape[0]), np.float32)
            for k in range(g.shape[1]):
                y += (q[:, k] @ self.groups[:, k].T) * (scale[:, k, None] * self.scales[None, :, k])
        else:
            y = x @ self.w.T
        return y if self.bias is None else y + self.bias


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight


def silu(x):
    return x / (1 + np.exp(-x))


class Decoder:
    """Qwen3-MoE and Qwen2-MoE."""

    def __init__(self, folder, fp8_keys_and_values=False):
        self.fp8_keys_and_values = fp8_keys_and_values
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = read_folder(folder)
        self.linear = {}

    def weight(self, name):
        return floats(self.tensors[name])

    def scale(self, p, which):
        """Of keys or values."""
        stored = self.tensors.get(f"{p}{which}_proj.{which}_scale")
        return np.float32(1) if stored is None else floats(stored).reshape(-1)[0]

    def apply(self, module, x):
        if module not in self.linear:
            self.linear[module] = Linear(self.tensors, module)
        return self.linear[module](x)

    def mlp(self, prefix, x):
        return self.apply(prefix + "down_proj", silu(self.apply(prefix + "gate_proj", x)) * self.apply(prefix + "up_proj", x))

    def rotated(self, x):
        d, n = x.shape[-1], x.shape[0]
        frequencies = (1 / self.config["rope_theta"]**(np.arange(0, d, 2) / d)).astype(np.float32)
        angles = np.arange(n, dtype=np.float32)[:, None, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        a, b = x[..., :d // 2], x[..., d // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, p, x):
        c, n = self.config, x.shape[0]
        q_heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        d = c.get("head_dim") or c["hidden_size"] // q_heads
        heads = {name: self.apply(p + name, x).reshape(n, -1, d) for name in ("q_proj", "k_proj", "v_proj")}
        for name in ("q", "k"):
            if p + f"{name}_norm.weight" in self.tensors:
                heads[name + "_proj"] = norm(heads[name + "_proj"], self.weight(p + f"{name}_norm.weight"), c["rms_norm_eps"])
        q, k, v = self.rotated(heads["q_proj"]), self.rotated(heads["k_proj"]), heads["v_proj"]
        if self.fp8_keys_and_values:
            k, v = (from_e4m3(to_e4m3(x / s)) * s for x, s in ((k, self.scale(p, "k")), (v, self.scale(p, "v"))))
        k, v = (np.repeat(t, q_heads // kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.float32(d**0.5)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self.apply(p + "o_proj", np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1))

    def experts(self, p, x):
        c = self.config
        scores = x @ self.weight(p + "gate.weight").T
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        chosen = np.argsort(-scores, axis=-1, kind="stable")[:, :c["num_experts_per_tok"]]
        weights = np.take_along_axis(scores, chosen, axis=-1)
        if c["norm_topk_prob"]:
            weights /= weights.sum(axis=-1, keepdims=True)
        out = np.zeros_like(x)
        for expert in range(c["num_experts"]):
            token, place = np.nonzero(chosen == expert)
            if len(token):
                out[token] += weights[token, place, None] * self.mlp(p + f"experts.{expert}.", x[token])
        if p + "shared_expert_gate.weight" in self.tensors:
            gate = 1 / (1 + np.exp(-(x @ self.weight(p + "shared_expert_gate.weight").T)))
            out += gate * self.mlp(p + "shared_expert.", x)
        return out

    def logprobs(self, tokens):
        """Of every token of the vocabulary behind each of `tokens`: [n, vocab]."""
        c = self.config
        x = self.weight("model.embed_tokens.weight")[tokens]
        for i in range(c["num_hidden_layers"]):
            p, eps = f"model.layers.{i}.", c["rms_norm_eps"]
            x = x + self.attention(p + "self_attn.", norm(x, self.weight(p + "input_layernorm.weight"), eps))
            normed = norm(x, self.weight(p + "post_attention_layernorm.weight"), eps)
            x = x + (self.mlp(p + "mlp.", normed) if i in c["mlp_only_layers"] else self.experts(p + "mlp.", normed))
        logits = norm(x, self.weight("model.norm.weight"), c["rms_norm_eps"]) @ self.weight("lm_head.weight").T
        logits = logits.astype(np.float64)
        top = logits.max(axis=-1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
