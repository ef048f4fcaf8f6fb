"""Typed, frozen settings of the stage that makes half of a model's weights zero.

Usage: `PruneSettings.model_validate({"tokens": 4096, "distillation": 0.3})`.

The pattern is `common.models.sparsity`; how weights come to zero is the method `adams`, which a stage of this kind
has on. It reads and trains as CPT does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from common.config.base import OfData, Schedule, Share
from common.config.names import NonEmpty
from common.config.stages import CptSettings

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of a layer
DECAYING, TAUGHT = "adams", "self_distillation"
SHARE = 1 / 3  # of the loss that is the teacher's


class FallingSchedule(Schedule):
    """Learning rate over the steps: as elsewhere, but that it falls to nothing, where weights come to zero."""

    floor: Share = Field(0.0, description="lowest rate after the decay, as a share of the peak")


class PruneSettings(CptSettings):
    """Zeros in the 2:4 pattern, by training on the text that CPT reads."""

    schedule: OfData[FallingSchedule] = Field(FallingSchedule(), description="learning rate over the steps")

    zeros: Literal["decay", "cut"] = Field(
        "decay", description="decay: weights outside of the pattern decay to zero while it trains (CAST); cut: it "
        "trains as CPT does, without scales, and they are cut at the end, by magnitude",
    )  # fmt: skip
    modules: tuple[NonEmpty, ...] = Field(
        MODULES, min_length=1, description="names of the linear layers that get the pattern"
    )
    scale_groups: int = Field(
        2, ge=1, le=64, description="groups of columns with a trained scale of their own in each row of a matrix"
    )
    distillation: Share = Field(
        SHARE, lt=1, description="share of the loss that is KL to the stage before, the next token having the rest"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_its_methods(cls, values: Any) -> Any:
        """Write its methods out, so that plans and cards name them."""
        if not isinstance(values, dict):
            return values
        given = values.get("methods") or {}
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, Mapping | list | tuple):
            return values  # which is said where methods are checked
        methods: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given)
        share = values.get("distillation", SHARE)
        wanted = {DECAYING: values.get("zeros", "decay") == "decay", TAUGHT: bool(share)}
        for name, switch in ((DECAYING, "zeros=cut"), (TAUGHT, "distillation=0")):
            if methods.get(name) is False and wanted[name]:
                raise ValueError(f"methods.{name} cannot be switched off by itself; set {switch}")
            if methods.get(name) and not wanted[name]:
                raise ValueError(f"methods.{name} is set, and {switch} leaves it out; set methods.{name}=false too")
            if wanted[name]:
                methods[name] = methods.get(name) or {}
            else:
                methods.pop(name, None)
        if wanted[TAUGHT] and isinstance(methods[TAUGHT], Mapping):
            methods[TAUGHT] = {**methods[TAUGHT], "share": share}
        return {**values, "methods": methods}

    @model_validator(mode="after")
    def _prunes_whole_weights(self) -> PruneSettings:
        if self.peft != "full":
            raise ValueError(f"peft is {self.peft}, and a merged adapter would fill the zeros; set peft=full")
        if self.train_only:
            raise ValueError(f"train_only is {self.train_only}, and what is frozen cannot decay; remove train_only")
        if self.rope_theta is not None:
            raise ValueError(
                f"rope_theta is {self.rope_theta:g}, and pruning changes weights alone; set it in a cpt stage before"
            )
        if self.optimizer == "carry":
            raise ValueError("optimizer is carry, and its optimizer is another; set optimizer=fresh")
        if self.validation.keep == "best":
            raise ValueError(
                "validation.keep is best, and the lowest loss is that of early weights, which are not sparse yet; set "
                "validation.keep=last"
            )
        return self
