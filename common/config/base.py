"""What all settings are made of: frozen models, the schedule and the limits of training, and the base of a stage's.

Usage: `class DpoSettings(StageSettings, kind="dpo")`; `StageSettings.of("dpo")` returns it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # of a file or folder; it leads nowhere else
TrainOptions = dict[str, Any]
Peft = Literal["full", "lora", "qlora"]


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, no silent type coercion of strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)


class Schedule(Frozen):
    """Learning rate over the steps: re-warmed from zero to the peak, then held and decayed to a floor.

    `cosine` decays at once (re-warming as in Gupta et al. 2023), `wsd` holds the peak and decays at the end
    (warmup-stable-decay), `constant` holds it to the end.
    """

    kind: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: Share = Field(0.02, description="share of all steps spent warming up")
    decay: Share = Field(0.2, description="share of all steps spent decaying (wsd only)")
    floor: Share = Field(0.1, description="lowest rate after the decay, as a share of the peak")

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        if self.kind == "wsd" and self.warmup + self.decay > 1.0:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} take more than all steps; lower one")
        return self


class Limits(Frozen):
    """Largest shares of rows that a training stage may lose before it stops."""

    dropped: Share = Field(0.05, description="rows left out: empty, duplicate of the exam, malformed")
    truncated: Share = Field(0.10, description="rows cut because they are longer than a sequence")
    masked: Share = Field(0.0, description="rows without one token to learn from")


class GuardSettings(Frozen):
    """When a training takes back what it learned last, and passes over the rows that it learned it from."""

    spike: float | None = Field(
        None, gt=1, description="a step's loss is too high above this many times the median; none: only NaN counts"
    )
    window: int = Field(64, ge=8, description="steps that the median is of; before as many, only NaN counts")
    patience: int = Field(3, ge=1, description="steps in a row that are too high before anything is taken back")
    times: int = Field(3, ge=0, description="how often it may happen before the stage stops")


class ValidationSettings(Frozen):
    """Packed rows of a stage's own data that never train, read while it learns from the others."""

    share: Share = Field(0.0, description="of the packed rows, replay left out; 0: none are kept")
    evaluations: int = Field(
        10, ge=1, description="times that they are read, evenly over the steps, the last one included"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="the weights that are saved: the last ones, or those with the least validation loss"
    )

    @model_validator(mode="after")
    def _has_rows(self) -> ValidationSettings:
        if self.keep == "best" and not self.share:
            raise ValueError("keep is best, but share is 0, so nothing says what is best; set share")
        return self


class StageSettings(Frozen):
    """What every stage kind has in common; `of(kind)` gives the class of one kind."""

    kinds: ClassVar[dict[str, type[StageSettings]]] = {}
    trainer: ClassVar[str] = ""
    choice: ClassVar[str] = ""  # a key whose new value makes the other keys of lower layers meaningless
    by_kind: ClassVar[bool] = True  # a section named after the kind holds for all stages of it, whatever their names
    adapts: ClassVar[bool] = False  # whether it may train an adapter, so that a run-wide `peft` holds for it
    either: ClassVar[tuple[str, ...]] = ()  # keys of which a layer's takes the place of the others in lower layers

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            StageSettings.kinds[kind] = cls

    @classmethod
    def of(cls, kind: str) -> type[StageSettings]:
        """Return the settings class of a stage kind. Raises KeyError for a kind that does not exist."""
        return StageSettings.kinds[kind]
