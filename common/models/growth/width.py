"""Growth in width: more neurons, a larger hidden state and more heads, from the weights of a narrower model.

Usage: `widened(weights, before, after, new_neurons="fpi")`; `widened_config(settings, config, "expand")`.

bert2BERT (Chen et al. 2022, arXiv 2110.07143), section 3: FPI copies neurons and splits what they feed among the
copies, so that the function stays (equations 4 to 6); AKI takes new neurons from the next layer (equation 9), which
breaks their symmetry and changes the function. AquilaMoE (arXiv 2408.06567) grows the heads of queries inside each
group, with as many groups of keys and values. Which neuron a new one copies is drawn there, and goes in turn here.
D hidden, I inner, N heads of queries, G groups of keys and values, S size of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config.growth import WIDTHS, ExpandSettings
from common.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]
# Of each matrix of a layer: what its rows and its columns belong to. Rows of keys and values stay as they are.
MATRICES = {
    "self_attn.q_proj": ("heads", "hidden"), "self_attn.k_proj": ("", "hidden"), "self_attn.v_proj": ("", "hidden"),
    "self_attn.o_proj": ("hidden", "heads"), "mlp.gate_proj": ("inner", "hidden"), "mlp.up_proj": ("inner", "hidden"),
    "mlp.down_proj": ("hidden", "inner"),
}  # fmt: skip


def widened_config(settings: ExpandSettings, config: Config, stage: str) -> Config:
    """Return the config.json of the wider model. Raises ConfigError for sizes that it cannot have."""
    before = {name: int(config[name]) for name in WIDTHS}
    asked = (settings.hidden_size, settings.intermediate_size, settings.num_attention_heads)  # as WIDTHS names them
    after = {name: size or before[name] for name, size in zip(WIDTHS, asked, strict=True)}
    for name, size in after.items():
        if size < before[name]:
            raise ConfigError(f"{stage}.{name}={size}: the model has {before[name]}, and growth takes nothing away.")
    if after == before:
        raise ConfigError(f"{stage}: the model has these sizes already, so nothing grows. Raise one of them.")
    hidden, was, heads = after["hidden_size"], before["hidden_size"], after["num_attention_heads"]
    if hidden % was and settings.new_neurons == "fpi":
        raise ConfigError(
            f"{stage}.hidden_size={hidden}: with new_neurons=fpi it must be a multiple of the model's {was}, as a norm "
            f"over neurons that are copied unequally often is another one. Set {stage}.hidden_size={2 * was}, or "
            f"{stage}.new_neurons=aki."
        )
    groups = int(config.get("num_key_value_heads") or before["num_attention_heads"])
    if heads % groups or hidden % heads:
        raise ConfigError(
            f"{stage}.num_attention_heads={heads}: heads must be a multiple of the {groups} heads of keys and divide "
            f"the hidden size {hidden}. Set {stage}.num_attention_heads to such a number."
        )
    return {**config, **after, "num_key_value_heads": groups, "head_dim": _head_size(config)}


def _head_size(config: Config) -> int:
    default = 128 if config.get("model_type") == "qwen3" else 0  # configuration_qwen3.py
    own = config.get("head_dim") or default
    return int(own or int(config["hidden_size"]) // int(config["num_attention_heads"]))


@dataclass(frozen=True)
class Copying:
    """Which of the old neurons each new one copies, and how many copies that one has."""

    sources: list[int]

    @property
    def counts(self) -> list[int]:
        return [self.sources.count(source) for source in self.sources]

    @property
    def is_new(self) -> list[bool]:
        """Whether a neuron is none of the old ones, which come first of their copies."""
        return [source in self.sources[:place] for place, source in enumerate(self.sources)]


def copyings(before: Config, after: Config) -> dict[str, Copying]:
    """Return the copying of each kind of neuron; heads stay in their group."""
    size, groups = _head_size(before), int(after["num_key_value_heads"])
    each, wanted = (int(config["num_attention_heads"]) // groups for config in (before, after))
    heads = [group * each + head % each for group in range(groups) for head in range(wanted)]

    def in_turn(name: str) -> Copying:
        return Copying([place % int(before[name]) for place in range(int(after[name]))])

    return {
        "hidden": in_turn("hidden_size"), "inner": in_turn("intermediate_size"),
        "heads": Copying([head * size + place for head in heads for place in range(size)]),
    }  # fmt: skip


def widened(weights: Mapping[str, Tensor], before: Config, after: Config, new_neurons: str) -> dict[str, Tensor]:
    """Return the weights of the wider model: with `fpi` it computes the same logits, with `aki` it does not.

    A matrix W' = W[g_out][:, g_in] / c_in, where g says what a neuron copies and c how often that one is copied. With
    tied embeddings the last norm is divided by c instead of the head. RMSNorm stays the same where all c are equal.
    """
    copying = copyings(before, after)
    hidden, tied, layers = copying["hidden"], bool(after.get("tie_word_embeddings")), int(after["num_hidden_layers"])
    made = {
        "model.embed_tokens.weight": weights["model.embed_tokens.weight"][:, hidden.sources],
        "model.norm.weight": weights["model.norm.weight"][hidden.sources],
    }
    if tied:
        made["model.norm.weight"] = _split(made["model.norm.weight"], hidden)
    else:
        made["lm_head.weight"] = _split(weights["lm_head.weight"][:, hidden.sources], hidden)
    for place in range(layers):
        own, following = f"model.layers.{place}.", f"model.layers.{place + 1}."
        for name in [name.removeprefix(own) for name in weights if name.startswith(own)]:
            module, _, part = name.rpartition(".")
            tensor = _of_module(weights[own + name], module, part, copying)
            rows = MATRICES.get(module, ("", ""))[0]
            if new_neurons == "aki" and rows and place + 1 < layers:
                other = _of_module(weights[following + name], module, part, copying)
                new = copying[rows].is_new
                tensor[new] = other[new]
            made[own + name] = tensor.contiguous()
    return made


def _of_module(tensor: Tensor, module: str, part: str, copying: Mapping[str, Copying]) -> Tensor:
    """Return the wider weight or bias of one module of a layer, all within the layer."""
    if module not in MATRICES:  # a norm: of the hidden state, or of a head, whose size stays
        return tensor[copying["hidden"].sources] if module.endswith("layernorm") else tensor.clone()
    rows, columns = MATRICES[module]
    tensor = tensor[copying[rows].sources] if rows else tensor
    return tensor.clone() if part == "bias" else _split(tensor[:, copying[columns].sources], copying[columns])


def _split(tensor: Tensor, copying: Copying) -> Tensor:
    """Divide what comes in through the last dimension among copies."""
    return tensor / tensor.new_tensor(copying.counts)
