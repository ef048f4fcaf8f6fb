"""Sparse upcycling: each feed-forward layer becomes several equal experts behind a router, in transformers' classes.

Usage: `with_experts(weights, 8, shared=False, std=0.02, seed=0)`; `sparse_config(settings, config, "expand")`.

Komatsuzaki et al. 2023 (arXiv 2212.05055); AquilaMoE (arXiv 2408.06567): 8 experts, the two best of a token, routers
from N(0, 0.02). The paper prints 0.02 as the variance and says standard deviation in a note; that is what is taken. A
token's weights of its experts sum to 1, so equal experts give what the one layer gave. Its z-loss is not in
transformers' classes, and left out. E experts, H hidden, I inner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.config.growth import ExpandSettings
from common.errors import ConfigError
from common.models.rope import base_of, rope_of

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]
SPARSE = {"llama": "mixtral", "mistral": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
KEPT = (  # of a config.json, as the sparse classes call it too
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache",
    "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "rope_parameters", "rope_theta",
    "rope_scaling", "attention_dropout", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
    "dtype",
)  # fmt: skip
BIASES = ("attention_bias", "mlp_bias")


def sparse_config(settings: ExpandSettings, config: Config, stage: str) -> Config:
    """Return the config.json of the model with experts. Raises ConfigError for biases that they have no place for."""
    family = str(config["model_type"])
    kept = {name: config[name] for name in KEPT if name in config}
    experts = {
        "model_type": SPARSE[family], "num_experts_per_tok": settings.num_experts_per_tok,
        "router_aux_loss_coef": settings.router_aux_loss_coef,
    }  # fmt: skip
    if SPARSE[family] == "mixtral":
        if biases := [name for name in BIASES if config.get(name)]:
            raise ConfigError(
                f"{stage}.method=upcycle: {biases[0]} is true in the model's config.json, and Mixtral's layers have no "
                "biases. Use another method, or a checkpoint without them."
            )
        if rope_of(config).base is None:  # Mixtral's own is another
            kept["rope_theta"] = base_of(config)
        return {**kept, **experts, "num_local_experts": settings.num_experts}
    inner = config["intermediate_size"]
    experts |= {
        "num_experts": settings.num_experts, "moe_intermediate_size": inner, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": True,
    }  # fmt: skip
    if family == "qwen2":
        return {**kept, **experts, "shared_expert_intermediate_size": inner, "qkv_bias": True}
    return {**kept, **experts, "attention_bias": bool(config.get("attention_bias"))}


def with_experts(
    weights: Mapping[str, Tensor], num_experts: int, *, shared: bool, std: float, seed: int
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weights of the model with experts, as transformers holds them: gate and up stacked, (E, 2I, H).

    With `shared`, as Qwen2's class has it, one more expert that all tokens pass gets the layer's weights and begins by
    adding nothing: its `down_proj` is zero.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    made = {name: tensor.clone() for name, tensor in weights.items() if ".mlp." not in name}
    layers = {name.split(".mlp.")[0] for name in weights if ".mlp." in name}
    for layer in sorted(layers, key=lambda layer: int(layer.rpartition(".")[2])):
        gate_IH, up_IH, down_HI = (weights[f"{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        both = torch.cat([gate_IH, up_IH]).unsqueeze(0).repeat(num_experts, 1, 1)
        router_EH = torch.empty(num_experts, gate_IH.shape[1]).normal_(0.0, std, generator=random)
        made[f"{layer}.mlp.experts.gate_up_proj"] = both
        made[f"{layer}.mlp.experts.down_proj"] = down_HI.unsqueeze(0).repeat(num_experts, 1, 1)
        made[f"{layer}.mlp.gate.weight"] = router_EH
        if shared:
            made[f"{layer}.mlp.shared_expert.gate_proj.weight"] = gate_IH.clone()
            made[f"{layer}.mlp.shared_expert.up_proj.weight"] = up_IH.clone()
            made[f"{layer}.mlp.shared_expert.down_proj.weight"] = torch.zeros_like(down_HI)
            made[f"{layer}.mlp.shared_expert_gate.weight"] = torch.zeros(1, gate_IH.shape[1])
    return made
