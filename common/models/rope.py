"""Rotary position embeddings (RoPE) of another base, for models that shall read longer texts.

Usage: `set_base(model, "cpt", base=500_000, length=32_768)` once weights are loaded; `config_with_base(config, ...)` of
a config.json in a plan. The result is a plain checkpoint: base and context are in its config.json.

Su et al. 2021 (arXiv 2104.09864), section 3.4.2: of a query or key at position m, the i-th pair of d rotated numbers
turns by the angle m theta_i, theta_i = base^(-2i/d) for i = 0 ... d/2 - 1. A larger base turns them less, so that
attention falls off later: Xiong et al. 2023 (Llama 2 Long, arXiv 2309.16039), section 2.1, go from 10,000 to 500,000
and change nothing else. Only plain RoPE is changed. Weights and tokenizer stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError

PLAIN = "default"  # transformers' name of RoPE as it was published
# Architectures whose angles follow from one base alone, in one module. A test builds each of them.
FAMILIES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gpt_neox", "phi",
    "phi3", "olmo", "olmo2", "stablelm", "starcoder2", "granite",
)  # fmt: skip


@dataclass(frozen=True)
class Rope:
    """What a config.json says of its position embeddings."""

    base: float | None  # None: it leaves the base to the architecture
    kind: str  # of scaling
    context: int | None  # tokens


def rope_of(config: Mapping[str, Any]) -> Rope:
    """Read a config.json, in the form of transformers 5 (`rope_parameters`) or an older one (`rope_theta`)."""
    given = config.get("rope_parameters") or {}
    scaling = {**(config.get("rope_scaling") or {}), **given}
    kind = str(scaling.get("rope_type") or scaling.get("type") or PLAIN)
    if any(isinstance(value, Mapping) for value in given.values()):
        kind = "of its own for each kind of layer"
    found = given.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base")
    context = config.get("max_position_embeddings")
    return Rope(None if found is None else float(found), kind, None if context is None else int(context))


def base_of(config: Mapping[str, Any]) -> float | None:
    """Return the base of a model with RoPE: as its config.json says, or else what transformers takes for its type.

    None for a type that transformers does not know, or that has several. It is only imported where a file is silent.
    """
    if (said := rope_of(config).base) is not None:
        return said
    from transformers import CONFIG_MAPPING

    family = str(config.get("model_type"))
    usual = getattr(CONFIG_MAPPING[family], "default_theta", None) if family in CONFIG_MAPPING else None
    return float(usual) if isinstance(usual, int | float) else None


def has_rope(config: Mapping[str, Any]) -> bool:
    """Whether a model reads positions by RoPE alone, so that it computes something beyond its context too."""
    return bool(config.get("rope_parameters")) and not config.get("alibi")


def config_with_base(config: Mapping[str, Any], stage: str, *, base: float, length: int) -> Mapping[str, Any]:
    """Return a config.json with another base, and a context of at least `length` tokens.

    Raises ConfigError for an architecture without RoPE, another kind of it, and a base that would become smaller.
    """
    before = rope_of(config)
    key = f"{stage}.rope_theta={base:g}"
    if (family := config.get("model_type")) not in FAMILIES:
        raise ConfigError(
            f"{key}: the model is of type {family}, and the base of RoPE can be changed for {', '.join(FAMILIES)}. "
            f"Leave {stage}.rope_theta out, or give a checkpoint of one of these (model.path)."
        )
    if before.kind != PLAIN:
        raise ConfigError(
            f"{key}: the model's RoPE is {before.kind} (rope_type in its config.json), and only plain RoPE "
            f"({PLAIN}) can get another base. Leave {stage}.rope_theta out, or give a checkpoint without scaling."
        )
    if (now := base_of(config)) is not None and base < now:
        raise ConfigError(
            f"{key}: the model's base is {now:g} already, and a smaller one makes it look less far. Set "
            f"{stage}.rope_theta={now:g} or more, or leave it out."
        )
    parameters = {**(config.get("rope_parameters") or {}), "rope_theta": float(base), "rope_type": PLAIN}
    if config.get("rotary_pct") is not None:  # as GPT-NeoX called it, which transformers reads beside the others
        parameters.setdefault("partial_rotary_factor", config["rotary_pct"])
    older = ("rope_theta", "rope_scaling", "rotary_emb_base")
    kept = {name: value for name, value in config.items() if name not in older}
    return {**kept, "rope_parameters": parameters, "max_position_embeddings": max(before.context or 0, length)}


def set_base(model: Any, stage: str, *, base: float, length: int) -> Rope:
    """Give a loaded model another base, and a context of at least `length` tokens; return what it had.

    Raises ConfigError as `config_with_base` does.
    """
    config = model.config
    before = rope_of(config.to_dict())
    after = config_with_base(config.to_dict(), stage, base=base, length=length)
    config.rope_parameters = {**config.rope_parameters, **after["rope_parameters"]}
    config.max_position_embeddings = after["max_position_embeddings"]
    turning = {name: module for name, module in model.named_modules() if name.rpartition(".")[2] == "rotary_emb"}
    assert turning, f"a model of type {config.model_type} has its angles in modules of this name"
    for name, module in turning.items():
        model.set_submodule(name, type(module)(config=config).to(module.inv_freq.device))
    return before
