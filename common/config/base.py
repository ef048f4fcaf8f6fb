"""What all settings are made of: frozen models, the schedule and the limits of training, and the base of a stage's.

Usage: `class DpoSettings(StageSettings): ...`; a stage's module declares it as the settings of its kind.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from common.config.numbers import check_size, check_type

Share = Annotated[float, Field(ge=0.0, le=1.0)]
TrainOptions = dict[str, Any]
T = TypeVar("T")
OF_DATA = "of data"  # marks the fields that a data manifest may set; all others are closed to it
OfData = Annotated[T, OF_DATA]
Peft = Literal["full", "lora", "qlora"]
Precision = Literal["bfloat16", "float16", "float32"]
PRECISIONS = ("auto", *get_args(Precision))
SPELLINGS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # as other programs write them
AskedPrecision = Annotated[
    Literal["auto", Precision],
    BeforeValidator(lambda value: SPELLINGS.get(value, value) if isinstance(value, str) else value),
]


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, numbers finite, of their type and not absurdly large."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")  # one alone: pydantic inspects it again for each of some 500 fields
    @classmethod
    def _is_sound(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        check_type(field, value)
        check_size(field, value := read(value))
        return value


class Schedule(Frozen):
    """Learning rate over the steps: re-warmed from zero to the peak, then held and decayed to a floor.

    `cosine` and `linear` decay at once (re-warming as in Gupta et al. 2023), `wsd` holds the peak and decays at the end
    (warmup-stable-decay), `constant` holds it to the end.
    """

    kind: Literal["cosine", "wsd", "constant", "linear"] = Field(
        "cosine",
        description="decay over all steps (cosine, linear), at the end (wsd: warmup-stable-decay), or never (constant)",
    )
    warmup: float = Field(0.02, ge=0, description="share of all steps spent warming up; from 1 on, a number of steps")
    decay: Share = Field(0.2, description="share of all steps spent decaying (wsd only)")
    floor: Share = Field(0.1, description="lowest rate after the decay, as a share of the peak")

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        if self.warmup > 1 and not self.warmup.is_integer():
            raise ValueError(f"warmup {self.warmup:g} is neither a share of the steps nor a number of steps")
        if self.kind == "wsd" and self.warmup < 1 and self.warmup + self.decay > 1.0:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} take more than all steps; lower one")
        return self


class Limits(Frozen):
    """Largest shares of rows that a training stage may lose before it stops."""

    dropped: Share = Field(0.05, description="rows left out: empty, duplicate of the exam, malformed")
    truncated: Share = Field(0.10, description="rows cut because they are longer than a sequence")
    masked: Share = Field(0.0, description="rows without one token to learn from")


class GuardSettings(Frozen):
    """When a training stage rolls back to a checkpoint and skips the batches of a loss spike."""

    spike: float | None = Field(
        None,
        gt=1,
        description="a loss above this many times the median is a spike (the highest, where a method "
        "puts its own in place of the next token's); none: only NaN is one",
    )
    window: int = Field(64, ge=8, description="steps that the median is taken over; until then only NaN is a spike")
    patience: int = Field(3, ge=1, description="steps in a row with a spike before the stage rolls back")
    times: int = Field(3, ge=0, description="rollbacks before the stage stops")


class ValidationSettings(Frozen):
    """Packed rows of a stage's own data that never train, read while it learns from the others."""

    share: Share = Field(0.0, description="share of the packed rows, without replay, that never trains; 0: none")
    evaluations: int = Field(
        10, ge=1, description="evaluations during training, evenly over the steps, the last step included"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="weights to save: the last ones, or those with the lowest validation loss"
    )

    @model_validator(mode="after")
    def _has_rows(self) -> ValidationSettings:
        if self.keep == "best" and not self.share:
            raise ValueError("keep is best, but share is 0, so nothing says what is best; set share")
        return self


class StageSettings(Frozen):
    """What every stage kind has in common."""

    trainer: ClassVar[str] = ""
    choice: ClassVar[str] = ""  # a key whose new value makes the other keys of lower layers meaningless
    by_kind: ClassVar[bool] = True  # a section named after the kind holds for all stages of it, whatever their names
    adapts: ClassVar[bool] = False  # whether it may train an adapter, so that a run-wide `peft` holds for it
    either: ClassVar[tuple[str, ...]] = ()  # keys that exclude each other: the one of the highest layer counts

    @property
    def measuring(self) -> bool:
        """Whether a stage reads the roles that its kind `measures`."""
        return False

    @property
    def phrases(self) -> list[str]:
        """What a plan says of what a stage takes from papers, and of the order of its rows, in words."""
        return []
