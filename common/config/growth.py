"""Typed, frozen settings of the stages that change a model's shape, and of training what such a stage has added.

Usage: `ExpandSettings.model_validate({"method": "llama_pro", "added": 2})`.

What a method does with the weights is `common.models.growth`; what it makes of a config.json, and which architectures
it takes, is `common.models.growth.configs`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from common.config.base import StageSettings

Method = Literal["llama_pro"]
Part = Literal["embed_tokens", "lm_head"]
# The settings that each method reads, the indispensable ones first and by themselves.
READS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"llama_pro": (("added",), ())}
SHARED = ("method",)
ADDS_LAYERS = ("llama_pro",)  # methods whose added layers may be trained alone


class ExpandSettings(StageSettings):
    """A larger model from the stage before; which settings count is the method's to say."""

    choice: ClassVar[str] = "method"

    method: Method = Field(
        "llama_pro", description="llama_pro: copies of layers that begin by adding nothing, spread evenly"
    )
    added: int | None = Field(None, gt=0, le=1000, description="layers to add (llama_pro)")

    @model_validator(mode="after")
    def _suits_its_method(self) -> ExpandSettings:
        needed, optional = READS[self.method]
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"method {self.method} needs `{missing[0]}`; set it")
        known = {*needed, *optional, *SHARED}
        others = [name for name in self.model_fields_set if name not in known and getattr(self, name) is not None]
        if others:
            raise ValueError(f"method {self.method} does not read `{others[0]}`; remove it")
        return self
