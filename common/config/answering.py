"""Settings of the stages whose model answers prompts: it is sampled from, learns from its own answers, or from rewards.

Usage: `GrpoSettings.model_validate({...})`, usually through `common.config.resolve.resolve`.

What a reward is, and which there are, is `common.rewards.verifiers`. All other stages are `common.config.stages`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from common.config.base import Frozen, Limits, OfData, Share, StageSettings
from common.config.names import NonEmpty
from common.config.stages import MOST_EPOCHS, LearningSettings, TrainingSettings


class PromptedSettings(StageSettings):
    """What all stages have in common that read prompts."""

    prompt_tokens: OfData[int] = Field(256, ge=8, description="longest prompt; longer ones are left out and counted")


class LabelSettings(PromptedSettings):
    """The likeliest of some labels for each prompt, by a checkpoint, as texts for CPT."""

    words: OfData[tuple[NonEmpty, ...]] = Field(
        (), description="the labels; none: the prompt's own choices, or all answers that the prompts have"
    )
    template: OfData[NonEmpty] = Field(
        "{text}\n\n{label}", description="the text that is made, of a prompt {text} and its {label}"
    )
    prompts: OfData[int | None] = Field(None, gt=0, description="prompts to label; none: all")
    margin: OfData[float] = Field(
        0.0, ge=0, description="least lead of the likeliest label over the second, in nats; others are left out"
    )
    batch_size: int = Field(
        64, gt=0, description="requests per forward pass; rounding aside, labels do not depend on it"
    )
    limits: OfData[Limits] = Field(Limits(), description="largest shares of rows that the stage may lose")

    @model_validator(mode="after")
    def _can_label(self) -> LabelSettings:
        if len(self.words) == 1 or len(set(self.words)) < len(self.words):
            raise ValueError(f"words must name two or more different labels; they are {', '.join(self.words)}")
        if any(self.template.count(mark) != 1 for mark in ("{text}", "{label}")):
            raise ValueError(f"template is {self.template!r}; expected {{text}} and {{label}}, each once")
        return self


class DrawingSettings(PromptedSettings):
    """What all stages have in common that draw several answers of a checkpoint to each prompt."""

    samples: OfData[int] = Field(8, ge=2, description="answers to each prompt, compared with each other")
    answer_tokens: OfData[int] = Field(
        128, ge=1, description="longest answer; a longer one is cut and counts as not stopped"
    )


class AnsweringSettings(DrawingSettings):
    """What all stages have in common that let a checkpoint answer prompts and score the answers."""

    rewards: OfData[dict[NonEmpty, dict[str, Any]]] = Field(
        default_factory=dict,
        description="reward -> its weight and options, or `model: <reward stage>`; none: those of `verify`",
    )
    order: OfData[Literal["weighted", "ranked"]] = Field(
        "weighted", description="add the rewards up, or rank by the first"
    )


class SamplingSettings(AnsweringSettings):
    """How answers are drawn, and which of them are right."""

    temperature: float = Field(1.0, gt=0, description="of the softmax that tokens are drawn from")
    top_p: float = Field(1.0, gt=0, le=1, description="draw from the likeliest tokens with this share of probability")
    generated_tokens: int = Field(65536, gt=0, description="tokens per generated batch, prompts and answers")
    passing: OfData[float] = Field(1.0, description="an answer that stopped and earned at least this in total is right")
    keep: OfData[int] = Field(4, ge=1, description="right answers to a prompt that are kept, each text once")


class SampleSettings(SamplingSettings):
    """Answers of a checkpoint to the domain's prompts, scored: preference pairs, rows for SFT, and pass rates."""

    prompts: OfData[int | None] = Field(None, gt=0, description="prompts to answer; none: all")
    margin: OfData[float] = Field(0.0, ge=0, description="least difference of the best and the worst reward of a pair")
    limits: OfData[Limits] = Field(Limits(), description="largest shares of rows that the stage may lose")


class ExpertSettings(TrainingSettings, SamplingSettings):
    """Expert iteration: sample, verify, drop what occurs again, fine-tune on the rest; several rounds."""

    learns_answers: ClassVar[bool] = True

    rounds: OfData[int] = Field(2, ge=1, description="times that all prompts are answered and learned from")
    heldout: OfData[int] = Field(
        64, ge=8, description="prompts that are kept from training, answered after every round"
    )
    prompts: OfData[int | None] = Field(
        None, gt=0, description="prompts to answer in a round, besides these; none: all"
    )
    restart: bool = Field(True, description="start each round from the stage before, not from the last round's model")

    @model_validator(mode="after")
    def _learns_its_answers(self) -> ExpertSettings:
        if self.replay == 1:
            raise ValueError("replay is 1, which leaves no room for the stage's own answers; lower it")
        if not self.restart and self.peft != "full":
            raise ValueError("restart is false with an adapter, which would not fit the stage before; set restart=true")
        return self


class HeldOutSettings(Frozen):
    """When a stage is measured on held-out prompts, and what stops it."""

    every: int = Field(20, gt=0, description="steps between two measurements")
    prompts: OfData[int] = Field(64, ge=8, description="prompts that are kept from training for it")
    drop: Share = Field(0.1, description="stop when the share of right answers falls this far below its best")
    longer: float = Field(1.0, gt=0, description="stop when answers grew by this share, and no more are right")


class WatchSettings(HeldOutSettings):
    """When a stage that learns from rewards is measured on held-out prompts, by which check, and what stops it."""

    check: OfData[NonEmpty | None] = Field(
        None, description="reward that says whether a held-out answer is right; none: that of `verify`"
    )


class OnlineSettings(LearningSettings, DrawingSettings):
    """Settings of the stages that learn from answers that their own model draws within each step."""

    either: ClassVar[tuple[str, ...]] = ("steps", "epochs")
    batch_key: ClassVar[str]  # the setting that says how many prompts, or texts, a step learns from
    unit: ClassVar[str]

    steps: OfData[int] = Field(200, gt=0, le=10**7, description="optimizer steps")
    epochs: OfData[float | None] = Field(
        None, gt=0, le=MOST_EPOCHS, description="passes over the prompts, instead of steps; none: steps count"
    )

    @classmethod
    def answers_each(cls, samples: int) -> int:
        """Return the answers of a step to one unit of the batch; `samples` of them share a prompt."""
        return samples

    @property
    def batch(self) -> int:
        """The units of a step."""
        return int(getattr(self, self.batch_key))

    @property
    def answers(self) -> int:
        """The answers of a step, over all devices."""
        return self.batch * self.answers_each(self.samples)


class RewardedSettings(OnlineSettings, AnsweringSettings):
    """Settings of the stages that learn from rewards on answers of their own."""

    batch_key: ClassVar[str] = "prompts_per_step"
    unit: ClassVar[str] = "prompts"

    prompts_per_step: OfData[int] = Field(16, gt=0, description="prompts per step, over all devices")
    hard: OfData[Share | None] = Field(
        None, description="only prompts whose pass rate is above 0 and at most this, as sampled answers tell; none: all"
    )
    watch: WatchSettings = Field(WatchSettings(), description="held-out prompts that the stage is measured by")


class GrpoSettings(RewardedSettings):
    """GRPO: each answer against the mean of its siblings, in units of their spread."""

    trainer: ClassVar[str] = "GRPOConfig"


class RlooSettings(RewardedSettings):
    """RLOO: each answer against the mean of the others to the same prompt."""

    trainer: ClassVar[str] = "RLOOConfig"
