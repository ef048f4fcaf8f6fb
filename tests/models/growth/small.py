"""Small models with random weights of every architecture that growth knows, and their forward pass in numpy.

Usage: `model = small("qwen3", num_hidden_layers=4)`; `logits(weights, config, ids)` is an independent computation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # of numpy, in float64
IDS = [3, 1, 4, 1, 5, 9, 2, 6]
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip


def small(family: str, **sizes: Any) -> Any:
    """Return a model whose weights are all random, norms and biases too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **sizes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def weights_of(model: Any) -> dict[str, Array]:
    """Return the weights in float64."""
    return {name: weight.double().numpy() for name, weight in model.state_dict().items()}


def logits_of(model: Any) -> Any:
    """Return transformers' own logits (T, V) in float32."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0]


def logits(weights: dict[str, Array], config: Any) -> Array:
    """Return the logits (T, V) of a decoder of the Llama family in float64, written from its papers' formulas."""
    hidden = weights["model.embed_tokens.weight"][IDS]
    for place in range(config.num_hidden_layers):
        own = {name.split(f"layers.{place}.")[1]: w for name, w in weights.items() if f".layers.{place}." in name}
        hidden = layer(hidden, own, config)
    head = weights["model.embed_tokens.weight"] if config.tie_word_embeddings else weights["lm_head.weight"]
    return _norm(hidden, weights["model.norm.weight"], config) @ head.T


def layer(x_TH: Array, own: dict[str, Array], config: Any) -> Array:
    """Return what one layer makes of its input."""
    normed = _norm(x_TH, own["input_layernorm.weight"], config)
    x_TH = x_TH + _linear(_attention(normed, own, config), own, "self_attn.o_proj")
    normed = _norm(x_TH, own["post_attention_layernorm.weight"], config)
    gate = _linear(normed, own, "mlp.gate_proj")
    inner = gate / (1 + np.exp(-gate)) * _linear(normed, own, "mlp.up_proj")
    return x_TH + _linear(inner, own, "mlp.down_proj")


def _attention(x_TH: Array, own: dict[str, Array], config: Any) -> Array:
    size, length = config.head_dim, len(x_TH)
    q, k, v = (_linear(x_TH, own, f"self_attn.{name}_proj").reshape(length, -1, size).swapaxes(0, 1) for name in "qkv")
    if "self_attn.q_norm.weight" in own:
        q, k = (_norm(x, own[f"self_attn.{name}_norm.weight"], config) for x, name in ((q, "q"), (k, "k")))
    q, k = _turned(q, config), _turned(k, config)
    groups = len(q) // len(k)
    scores = q @ np.repeat(k, groups, 0).swapaxes(1, 2) / np.sqrt(size)
    scores[:, np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    attended = shares / shares.sum(-1, keepdims=True) @ np.repeat(v, groups, 0)
    return attended.swapaxes(0, 1).reshape(length, -1)


def _turned(x_NTD: Array, config: Any) -> Array:
    """Rotary positions (Su et al. 2021), with the halves of a head as transformers pairs them."""
    half = config.head_dim // 2
    rates = config.rope_parameters["rope_theta"] ** (-np.arange(half) / half)
    angles = np.arange(x_NTD.shape[1])[:, None] * rates
    first, second = x_NTD[..., :half], x_NTD[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _norm(x: Array, weight: Array, config: Any) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weight


def _linear(x: Array, own: dict[str, Array], name: str) -> Array:
    return x @ own[f"{name}.weight"].T + own.get(f"{name}.bias", 0.0)
