"""Settings of RL pre-training: a model masks spans of the domain's texts, and predicts them.

Usage: `RlPretrainSettings.model_validate({"steps": 100, "random_steps": 10})`.

What is rewarded is `common.rewards.masks`. Sizes of a step are those of PretrainZero (arXiv 2512.03442): 32 paragraphs,
8 masks of each, 8 predictions of each mask. The words of both prompts are ours, as the paper's are not known here.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from common.config.answering import HeldOutSettings, OnlineSettings
from common.config.base import Frozen, OfData
from common.config.names import NonEmpty
from common.config.stages import MOST_EPOCHS

PARAGRAPH, MASKED, BEFORE = "{paragraph}", "{masked}", "{before}"  # what a prompt is filled with
MASK = "[mask]"
_PLACE = re.compile(r"(?<!\\mask)(?<!\\boxed)\{(\w+)\}")


class TaskSettings(Frozen):
    """How one of the two tasks is put to the model."""

    places: ClassVar[tuple[str, ...]] = ()  # what its prompt may be filled with

    prompt: NonEmpty = Field(description="what asks for an answer")
    begin: str = Field("", description="text that each answer begins with; the model goes on from there")

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        """Check that it has a place for the text, and no other places. Raises ValueError."""
        found, expected = [f"{{{name}}}" for name in _PLACE.findall(prompt)], " or ".join(cls.places)
        if unknown := [place for place in found if place not in cls.places]:
            raise ValueError(f"{unknown[0]} is nothing that it is filled with; expected {expected}")
        if not found:
            raise ValueError(f"it has no place for the text; add {expected}")
        return prompt


class MaskTaskSettings(TaskSettings):
    """How the model is asked for a mask."""

    places: ClassVar[tuple[str, ...]] = (PARAGRAPH,)

    prompt: NonEmpty = Field(
        "Read this text. Which part of it could a reader who knows the field work out from the rest, but not easily? "
        "Think it through. Then copy that part, some words that stand together in the text, into \\mask{}.\n\n"
        "{paragraph}",
        description="what asks for a span of {paragraph}",
    )


class PredictTaskSettings(TaskSettings):
    """How the model is asked for what a mask hides."""

    places: ClassVar[tuple[str, ...]] = (MASKED, BEFORE)

    prompt: NonEmpty = Field(
        "In this text a part is hidden behind [mask]. Think about what it must say. Then write exactly the hidden "
        "words into \\boxed{}.\n\n{masked}",
        description="what asks for the hidden words of {masked}; {before} is the text as far as the first mask",
    )


class RlPretrainSettings(OnlineSettings):
    """RL pre-training: one model masks spans of the domain's texts and predicts them (PretrainZero)."""

    trainer: ClassVar[str] = "GRPOConfig"
    batch_key: ClassVar[str] = "paragraphs_per_step"
    unit: ClassVar[str] = "paragraphs"

    samples: OfData[int] = Field(8, ge=2, description="masks of a paragraph, and predictions of each mask")
    prompt_tokens: OfData[int] = Field(
        1536, ge=8, description="longest prompt of both tasks; paragraphs that make longer ones are left out"
    )
    answer_tokens: OfData[int] = Field(4096, ge=1, description="longest answer of both tasks; a longer one is cut")
    steps: OfData[int] = Field(2000, gt=0, le=10**7, description="optimizer steps")
    epochs: OfData[float | None] = Field(
        None, gt=0, le=MOST_EPOCHS, description="passes over the documents, instead of steps; none: steps count"
    )
    paragraphs_per_step: OfData[int] = Field(32, gt=0, description="paragraphs per step, over all devices")
    random_steps: OfData[int] = Field(
        0, ge=0, description="first steps whose masks are random spans, for models that write no valid ones yet"
    )
    random_words: OfData[int] = Field(4, ge=1, description="longest random span, in words")
    occurs_below: OfData[int] = Field(
        8, ge=2, description="a span that occurs this often in its paragraph is no valid mask"
    )
    least_words: OfData[int] = Field(8, ge=2, description="shorter paragraphs are left out, in words")
    chat: OfData[bool] = Field(True, description="ask through the checkpoint's chat template; else as plain text")
    mask: OfData[MaskTaskSettings] = Field(MaskTaskSettings(), description="how the model is asked for a mask")
    predict: OfData[PredictTaskSettings] = Field(
        PredictTaskSettings(), description="how the model is asked for what a mask hides"
    )
    read: OfData[Literal["boxed", "leading"]] = Field(
        "boxed", description="a prediction is what stands in \\boxed{}, or leading: as many words as the mask hides, "
        "from the beginning of the answer, for models that write no boxes",
    )  # fmt: skip
    generated_tokens: int = Field(65536, gt=0, description="tokens per generated batch, prompts and answers")
    watch: HeldOutSettings = Field(
        HeldOutSettings(), description="held-out paragraphs with random masks that the stage is measured by"
    )

    @classmethod
    def answers_each(cls, samples: int) -> int:
        """Return the answers of a step to one paragraph: its masks, and the predictions of each."""
        return samples * (1 + samples)

    @property
    def phrases(self) -> list[str]:
        """The method with its paper and what a step reads."""
        every = self.epochs is None and self.random_steps >= self.steps
        spans = "all masks are random spans" if every else f"random spans in the first {self.random_steps:,} steps"
        return [
            f"PretrainZero (arXiv 2512.03442), {self.paragraphs_per_step} paragraphs a step, {self.samples} masks of "
            f"each, {self.samples} predictions of each mask{f'; {spans}' if self.random_steps else ''}"
        ]

    @property
    def most_paragraphs(self) -> int | None:
        """The paragraphs that a stage reads at most; None where passes over all texts are asked for."""
        return None if self.epochs is not None else self.watch.prompts + self.steps * self.paragraphs_per_step
