"""The shapes of a model and what follows from them: parameters, FLOPs of a token, bytes of its keys and values.

Usage: `shape = shape_of(config.model)`; `shape.parameters`; `shape.forward_flops(context=4096)`.

Known exactly for decoders of the Llama family, whose layers are counted as transformers builds them; of others a
profile's facts or the files give the number of parameters, and the layers are taken to be like these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.config.pruning import MODULES
from common.config.resolve import Resolved
from common.config.schema import ModelFacts, ModelSettings
from common.models.growth.configs import FAMILIES
from common.models.growth.pair_configs import family_of, mixing_weights
from common.models.local import config_of
from common.models.planned import base_config, config_after, context_after, reshaping

DENSE = {"mixtral": "mistral", "qwen2_moe": "qwen2", "qwen3_moe": "qwen3"}  # of a family with experts
TWO_MATRICES = ("gpt2", "phi", "gpt_neox", "starcoder2", "falcon")  # of a feed-forward layer
TIED = ("gpt2", "gemma2", "gemma3_text", "falcon")  # where config.json is silent


@dataclass(frozen=True)
class Shape:
    """A decoder: V vocabulary, H hidden, M inner, L layers, heads of queries and of keys and values, and their size."""

    family: str
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    tied: bool
    context: int  # tokens
    attention_bias: bool = False  # a bias of all four projections, as Llama and Qwen3 may have
    mlp_bias: bool = False
    mixing: int = 0  # weights of how layers and copies beside them meet (control_llm), in all layers
    mixing_learned: int = 0  # and those of them that learn
    known_parameters: int | None = None  # of a profile's facts; more is known of them than of the layers

    @property
    def queries(self) -> int:
        """Width of all queries together; of what attention gives back too."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all keys together; of the values too."""
        return self.key_heads * self.head_size

    @property
    def normed_heads(self) -> bool:
        """Whether queries and keys pass a norm of their own."""
        return self.family == "qwen3"

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of MODULES."""
        h, m, q, k = self.hidden, self.inner, self.queries, self.keys
        return ((h, q), (h, k), (h, k), (q, h), (h, m), (h, m), (m, h))

    @property
    def layer_linear(self) -> int:
        """Weights of a layer's matrices."""
        return sum(into * out for into, out in self.layer_matrices)

    @property
    def layer_parameters(self) -> int:
        """All weights of a layer: matrices, biases, norms."""
        q, k = self.queries, self.keys
        bias = q + 2 * k if self.family == "qwen2" else (q + 2 * k + self.hidden) * self.attention_bias
        inner_bias = (2 * self.inner + self.hidden) * self.mlp_bias
        return self.layer_linear + bias + inner_bias + 2 * self.hidden + 2 * self.head_size * self.normed_heads

    @property
    def table(self) -> int:
        """Weights of the embedding; of an untied head too."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
        if self.known_parameters is not None:
            return self.known_parameters
        layers = self.layers * self.layer_parameters + self.mixing
        return self.table * (1 if self.tied else 2) + layers + self.hidden

    def adapter_parameters(self, rank: int, targets: Sequence[str] = MODULES) -> int:
        """Weights of a LoRA adapter on some of every layer's matrices: r (in + out) each (arXiv 2106.09685, 4.1)."""
        sizes = zip(MODULES, self.layer_matrices, strict=True)
        return self.layers * sum(rank * (into + out) for name, (into, out) in sizes if name in targets)

    def forward_flops(self, context: float, *, head: float = 1.0) -> float:
        """Return the FLOPs of a token's forward pass: 2 per weight, and 4 per layer, query width and token looked at.

        PaLM (arXiv 2204.02311), appendix B. `context` is how many tokens attention computes for each one, seen or
        masked; `head` is the share of tokens whose logits are computed.
        """
        matrices = 2.0 * (self.layers * self.layer_linear + head * self.table)
        return matrices + 4.0 * self.layers * self.queries * context

    def cache_bytes(self, width: int) -> int:
        """Return the bytes of a token's keys and values in all layers; `width` is the size of a number in bytes."""
        return 2 * self.layers * self.keys * width


def shape_of(model: ModelSettings) -> Shape | None:
    """Return the shapes of the model that a chain starts from, or None where nothing is known of them."""
    return _of_facts(model.facts) if model.facts is not None else _read(lambda: base_config(model))


def _read(config: Callable[[], Mapping[str, Any]]) -> Shape | None:
    try:
        return _of_config(config())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # it is another program's file; the stage says what is wrong with it


def _of_experts(config: Mapping[str, Any]) -> int | None:
    """Return the weights of a model with experts, as transformers builds it of a dense one; None for others."""
    dense = DENSE.get(str(config.get("model_type")))
    if dense is None:
        return None
    keys = {**config, "model_type": dense, "num_experts_per_tok": 1, "parameters": None}
    shape = _of_config(keys)
    assert shape is not None
    inner = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    experts = int(config.get("num_local_experts") or config["num_experts"])
    shared = int(config.get("shared_expert_intermediate_size") or 0)
    one = 3 * shape.hidden * (experts * inner - shape.inner + shared)
    routers = shape.hidden * (experts + (1 if shared else 0))
    return shape.parameters + shape.layers * (one + routers)


def shape_in(folder: Path) -> Shape | None:
    """Return the shapes of a stage result, or None where its architecture is not known."""
    return _read(lambda: config_of(folder))


def shape_after(resolved: Resolved, stage: str) -> Shape | None:
    """Return the shapes of a stage's result, with all that stages on the way to it have changed."""
    model = resolved.config.model
    base = shape_of(model)
    if base is None:
        return None
    if not reshaping(resolved, stage):
        return replace(base, context=context_after(resolved, stage) or base.context)
    counted, after = (
        _of_config({key: value for key, value in config.items() if key != "parameters"})
        for config in (base_config(model), config_after(resolved, stage))
    )
    if counted is None or after is None or base.known_parameters is None:
        return after
    return replace(after, known_parameters=base.known_parameters + after.parameters - counted.parameters)


def _of_facts(facts: ModelFacts) -> Shape:
    return Shape(
        family=facts.model_type, vocabulary=facts.vocab_size, hidden=facts.hidden_size, inner=facts.intermediate_size,
        layers=facts.num_hidden_layers, heads=facts.num_attention_heads, key_heads=facts.num_key_value_heads,
        head_size=facts.head_dim, tied=facts.tie_word_embeddings, context=facts.max_position_embeddings,
        known_parameters=facts.parameters,
    )  # fmt: skip


def _of_config(config: Mapping[str, Any]) -> Shape | None:
    """Read a config.json; None for a family whose layers are not known and whose weights are not here to be counted.

    Of another family the layers are taken to be like these: a feed-forward layer of two matrices has as many weights as
    one of three with two thirds of its inner size, and of experts a token passes a few.
    """
    family, counted = family_of(config), config.get("parameters") or _of_experts(config)
    if family not in FAMILIES and counted is None:
        return None
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    # Qwen3's heads are of 128 where nothing is said, whatever the hidden size (configuration_qwen3.py).
    size = config.get("head_dim") or (128 if family == "qwen3" else hidden // heads)
    mixed, trained = mixing_weights(config)
    inner = int(config.get("intermediate_size") or 4 * hidden) * int(config.get("num_experts_per_tok") or 1)
    return Shape(
        family=family, vocabulary=int(config["vocab_size"]), hidden=hidden,
        inner=inner * 2 // 3 if family in TWO_MATRICES else inner, layers=int(config["num_hidden_layers"]), heads=heads,
        key_heads=int(config.get("num_key_value_heads") or heads), head_size=int(size),
        tied=bool(config.get("tie_word_embeddings", family in TIED)), context=int(config["max_position_embeddings"]),
        attention_bias=bool(config.get("attention_bias", False)), mlp_bias=bool(config.get("mlp_bias", False)),
        mixing=mixed, mixing_learned=trained, known_parameters=counted,
    )  # fmt: skip
