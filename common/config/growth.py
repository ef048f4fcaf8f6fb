"""Typed, frozen settings of the stages that change a model's shape.

Usage: `ExpandSettings.model_validate({"method": "llama_pro", "added": 2})`.

What a method does with the weights is `common.models.growth`; what it makes of a config.json, and which architectures
it takes, is `common.models.growth.configs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from common.config.base import StageSettings

Method = Literal["llama_pro", "adept", "depth", "width", "upcycle", "control_llm"]
CONTROL_LLM: Method = "control_llm"
DIVERGENCE = "control_divergence"  # the method that stages behind its copies have
ADDS_LAYERS = ("llama_pro", "adept", CONTROL_LLM)  # methods whose added layers may be trained alone


@dataclass(frozen=True)
class Reads:
    """The settings that a method reads."""

    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads")
READS = {
    "llama_pro": Reads(("added",)),
    "adept": Reads(("added",), optional=("probe_tokens",)),
    "depth": Reads(("num_hidden_layers",)),
    "width": Reads(one_of=WIDTHS, optional=("new_neurons",)),
    "control_llm": Reads(("added",), optional=("interpolation", "train_interpolation")),
    "upcycle": Reads(("num_experts",), optional=("num_experts_per_tok", "router_std", "router_aux_loss_coef")),
}


class ExpandSettings(StageSettings):
    """A larger model from the stage before; which settings count is the method's to say."""

    choice: ClassVar[str] = "method"

    method: Method = Field(
        "llama_pro", description="llama_pro: copies of layers that begin by adding nothing, spread evenly; adept: the "
        "same of the layers that general text needs least; depth: layers stretched over a deeper model; width: more "
        "neurons and heads; upcycle: experts in the place of each feed-forward layer; control_llm: copies beside "
        "frozen layers, on the same input, to be collapsed later",
    )  # fmt: skip
    added: int | None = Field(None, gt=0, le=1000, description="llama_pro, adept, control_llm: layers to add")
    probe_tokens: int = Field(
        16_384, ge=256, description="adept: tokens of replay text that the layers' importance is measured on"
    )
    num_hidden_layers: int | None = Field(None, gt=0, le=10_000, description="depth: layers of the grown model")
    hidden_size: int | None = Field(None, gt=0, description="width: size of a hidden state")
    intermediate_size: int | None = Field(None, gt=0, description="width: inner size of a feed-forward layer")
    num_attention_heads: int | None = Field(
        None, gt=0, description="width: heads of queries; those of keys and values stay as many"
    )
    new_neurons: Literal["fpi", "aki"] = Field(
        "fpi", description="width: copied within their layer, so that logits stay (fpi), or from the next one (aki)"
    )
    num_experts: int | None = Field(None, ge=2, le=4096, description="upcycle: experts of a layer, equal at first")
    num_experts_per_tok: int = Field(2, gt=0, description="upcycle: experts that a token passes")
    router_std: float = Field(0.02, gt=0, description="upcycle: standard deviation of the routers' first weights")
    router_aux_loss_coef: float = Field(0.001, ge=0, description="upcycle: weight of the loss that evens the load")

    interpolation: Literal["lerp", "dlerp", "slerp"] = Field(
        "dlerp", description="control_llm: how the outputs of a layer and its copy meet: on a line with one weight "
        "(lerp) or with one for each token (dlerp), or on an arc (slerp)",
    )  # fmt: skip
    train_interpolation: bool = Field(
        True, description="control_llm: whether the weight of a copy learns; it begins at a half"
    )

    @property
    def measuring(self) -> bool:
        """Whether it measures the model on general text."""
        return self.method == "adept"

    @property
    def paired(self) -> bool:
        """Whether layers of its result have copies beside them, which code of ours alone computes."""
        return self.method == CONTROL_LLM

    def brings(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the methods that a stage of a kind behind it has by itself, with settings that it may change."""
        return {DIVERGENCE: {"form": "mse" if kind == "sft" else "cosine"}} if self.paired else {}

    @model_validator(mode="after")
    def _suits_its_method(self) -> ExpandSettings:
        reads = READS[self.method]
        if missing := [name for name in reads.needed if getattr(self, name) is None]:
            raise ValueError(f"method {self.method} needs `{missing[0]}`; set it")
        if reads.one_of and all(getattr(self, name) is None for name in reads.one_of):
            names = ", ".join(f"`{name}`" for name in reads.one_of)
            raise ValueError(f"method {self.method} needs one of {names}; set the size that grows")
        known = {"method", *reads.needed, *reads.one_of, *reads.optional}
        fields = type(self).model_fields
        others = [name for name in fields if name not in known and getattr(self, name) != fields[name].default]
        if others:
            raise ValueError(f"method {self.method} does not read `{others[0]}`; remove it")
        if self.num_experts is not None and self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} is more than num_experts={self.num_experts}; lower it"
            )
        return self


class CollapseSettings(StageSettings):
    """A plain model from one whose layers have copies beside them."""

    weights: Literal["auto", "lerp", "slerp"] = Field(
        "auto", description="how the weights of a layer and its copy meet: on a line, or row by row on an arc; auto: "
        "on a line behind interpolation: lerp, else on an arc",
    )  # fmt: skip


def growth_among(before: Iterable[StageSettings]) -> ExpandSettings | None:
    """Return the growth that a stage has to do with, among the settings of those before it, the nearest first."""
    found = next((one for one in before if isinstance(one, ExpandSettings | CollapseSettings)), None)
    return found if isinstance(found, ExpandSettings) else None
