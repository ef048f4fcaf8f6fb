"""Typed, frozen settings of the kinds of stages: what each key means, with its unit.

Usage: `CptSettings.model_validate({...})`, usually through `common.config.resolve.resolve`.

Stages whose model answers prompts are `common.config.answering`. Which class belongs to which kind is
`common.config.kinds`; which TRL options exist is `common.config.trl_options`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from common.config.base import (
    AskedPrecision,
    GuardSettings,
    Limits,
    OfData,
    Peft,
    Schedule,
    Share,
    StageSettings,
    TrainOptions,
    ValidationSettings,
)
from common.config.long_context import LongContextSettings
from common.config.merge_parameters import MergeParameters
from common.config.methods import Methods
from common.config.mixture import MixtureSettings
from common.config.names import NonEmpty
from common.config.numbers import multiples_around

MOST_EPOCHS = 10_000
# All linear layers: fewer do not reach full fine-tuning (Dettmers et al. 2023, arXiv 2305.14314, section 4; Schulman et
# al. 2025, "LoRA Without Regret", which also keeps alpha at 32). The rank is ours.
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
# The quantisation of QLoRA (Dettmers et al. 2023, section 3): normal float, its constants quantised once more.
NF4 = {
    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}  # fmt: skip


class LearningSettings(StageSettings):
    """What all stages that run a trainer have in common."""

    adapts: ClassVar[bool] = True

    schedule: OfData[Schedule] = Field(Schedule(), description="learning rate over the steps")
    limits: OfData[Limits] = Field(Limits(), description="largest shares of rows that the stage may lose")
    guard: GuardSettings = Field(GuardSettings(), description="what to do about a loss spike")
    peft: Peft = Field("full", description="train all weights, an adapter, or an adapter on a quantised copy")
    lora: dict[str, Any] | None = Field(None, description="options of peft's LoraConfig, with peft=lora or qlora")
    quantization: dict[str, Any] | None = Field(
        None, description="options of transformers' BitsAndBytesConfig, with peft=qlora"
    )
    precision: AskedPrecision = Field(
        "auto", description="of matrix products while it trains; auto: bfloat16, or what the device has instead"
    )
    train: TrainOptions = Field(default_factory=dict, description="options of the TRL config class, by their own names")
    micro_batch_tokens: int | None = Field(
        None, gt=0, description="tokens per forward pass of this stage; none: run.micro_batch_tokens"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Write the defaults of an adapter out, so that they are part of the recipe."""
        if not isinstance(values, dict) or values.get("peft", "full") == "full":
            return values
        filled = {**values, "lora": {**LORA, **(values.get("lora") or {})}}
        if values["peft"] == "qlora":
            given = values.get("quantization") or {}
            precision = values.get("precision", "auto")
            computed = NF4 if precision == "auto" else {**NF4, "bnb_4bit_compute_dtype": precision}
            filled["quantization"] = given if given.get("load_in_8bit") else {**computed, **given}
        return filled

    @model_validator(mode="after")
    def _fits_peft(self) -> LearningSettings:
        if self.peft == "full" and self.lora is not None:
            raise ValueError("lora is set, but peft is full; set peft=lora (or qlora), or remove lora")
        if self.peft != "qlora" and self.quantization is not None:
            raise ValueError(f"quantization is set, but peft is {self.peft}; set peft=qlora, or remove quantization")
        return self


class TrainingSettings(LearningSettings):
    """Settings of the stages that train on tokens; budgets do not change with the number of devices."""

    trainer: ClassVar[str] = "SFTConfig"
    learns_answers: ClassVar[bool] = False  # of conversations, rather than texts
    guard: GuardSettings = Field(GuardSettings(spike=3.0), description="what to do about a loss spike")
    either: ClassVar[tuple[str, ...]] = ("tokens", "epochs")

    tokens: OfData[int | None] = Field(
        None, gt=0, le=10**15, description="token positions to train on, padding included; more means epochs"
    )
    epochs: OfData[float | None] = Field(
        None, gt=0, le=MOST_EPOCHS, description="passes over the data, with replay beside them, instead of tokens"
    )
    batch_tokens: OfData[int] = Field(2048, gt=0, description="tokens per optimizer step, over all devices")
    sequence_length: OfData[int] = Field(128, ge=16, description="tokens per row")
    packing: OfData[Literal["isolated", "trl"]] = Field(
        "isolated", description="isolated: rows of whole documents that cannot see each other; trl: TRL's own packing"
    )
    replay: OfData[Share] = Field(0.0, description="share of all tokens that comes from the replay sources")
    mixture: OfData[MixtureSettings] = Field(
        MixtureSettings(), description="shares of the stage's own tokens by source; with packing: isolated"
    )
    validation: OfData[ValidationSettings] = Field(
        ValidationSettings(), description="rows kept from training, to measure it by"
    )

    @model_validator(mode="before")
    @classmethod
    def _replay_of_phases(cls, values: Any) -> Any:
        """Take the share of replay from the phases of the mixture, where these say it."""
        mixture = values.get("mixture") if isinstance(values, dict) else None
        if not mixture:
            return values
        try:
            share = MixtureSettings.model_validate(mixture).replay
        except ValidationError:  # which is said where the mixture is validated
            return values
        return values if share is None else {**values, "replay": share}

    @property
    def phrases(self) -> list[str]:
        """What its mixture takes from a paper, and in which order it reads the rows of a source."""
        curriculum = "" if self.mixture.curriculum is None else self.mixture.curriculum.phrase
        return [phrase for phrase in (self.mixture.preset_phrase, curriculum) if phrase]

    @property
    def assistant_only(self) -> bool:
        """Whether only the assistant's tokens are learned, so that text has none, in replay too."""
        return self.learns_answers and bool(self.train.get("assistant_only_loss", True))

    @model_validator(mode="after")
    def _fits_its_data(self) -> TrainingSettings:
        if self.validation.share and self.packing == "trl":
            raise ValueError(
                "validation.share keeps packed rows, which packing: trl has none of; set packing: isolated"
            )
        if self.mixture.asks and self.packing == "trl":
            raise ValueError("a mixture orders packed rows, which packing: trl has none of; set packing: isolated")
        if self.batch_tokens % self.sequence_length:
            near = multiples_around(self.batch_tokens, self.sequence_length)
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is no multiple of sequence_length={self.sequence_length}, and a "
                f"step reads whole rows; set batch_tokens={near}"
            )
        return self


class WithMethods(TrainingSettings):
    """Settings of the stages whose one training may use methods of the papers."""

    methods: Methods = Field(
        default_factory=dict, description="methods of the papers that are on, each by name with its settings below"
    )
    optimizer: Literal["fresh", "carry"] = Field(
        "fresh", description="state that the optimizer begins with: none, or that of the stage before at its end"
    )
    continue_data: bool = Field(
        False, description="begin behind what the stage before has read of its sources and replay, not at their start"
    )


class BaseSettings(WithMethods):
    """The start of the chain: pretrain the profile's small architecture, or check and take its checkpoint."""

    adapts: ClassVar[bool] = False

    @model_validator(mode="after")
    def _whole(self) -> BaseSettings:
        if self.peft != "full":
            raise ValueError(f"peft is {self.peft}, but the base has no model before it to adapt; remove peft")
        return self


class ContinuedSettings(WithMethods):
    """Settings of the stages that go on from a model, of which a part alone may learn."""

    train_only: Literal["added", "embeddings"] | None = Field(
        None, description="added: only the layers that an `expand` stage before has added learn; embeddings: only the "
        "rows of tokens, those of an untied head too; none: all weights",
    )  # fmt: skip
    train_also: tuple[Literal["embed_tokens", "lm_head"], ...] = Field(
        (), description="with train_only: tables of words that learn as well, as words that the base never read need"
    )

    @model_validator(mode="after")
    def _has_one_way(self) -> ContinuedSettings:
        if self.train_only and self.peft != "full":
            raise ValueError(f"train_only={self.train_only} and peft={self.peft} exclude each other; set peft=full")
        if self.train_also and self.train_only == "embeddings":
            raise ValueError("train_also names tables, which train_only=embeddings trains already; remove train_also")
        if self.train_also and not self.train_only:
            raise ValueError("train_also is set, but all weights learn; set train_only=added, or remove train_also")
        return self


class CptSettings(ContinuedSettings):
    """Continued pre-training on the domain's text, mixed with replay."""

    replay_from: Literal["role", "lineage"] = Field(
        "role", description="where replay comes from: the sources of the role replay, or the rows of all earlier "
        "stages of the chain, kept as tokens in the store, of each as large a part as the tokens that it has read",
    )  # fmt: skip
    rope_theta: float | None = Field(
        None, gt=1, le=1e12, description="base of the rotary position embeddings from this stage on, such as 500000 "
        "for long texts; the model's context grows to sequence_length; none: both stay",
    )  # fmt: skip

    @model_validator(mode="after")
    def _replays_what_it_can(self) -> CptSettings:
        if self.replay_from == "lineage" and self.replay == 1:
            raise ValueError("replay is 1 with replay_from: lineage, which leaves nothing new to read; lower replay")
        if self.replay_from == "lineage" and self.packing == "trl":
            raise ValueError(
                "replay_from: lineage draws packed rows, which packing: trl has none of; set packing: isolated"
            )
        return self


class SftSettings(ContinuedSettings):
    """Supervised fine-tuning on conversations; only the assistant's tokens are learned."""

    learns_answers: ClassVar[bool] = True


class PreferenceSettings(LearningSettings):
    """Settings of the stages that learn from pairs of a chosen and a rejected answer."""

    either: ClassVar[tuple[str, ...]] = ("epochs", "steps")

    epochs: OfData[float] = Field(1.0, gt=0, le=MOST_EPOCHS, description="passes over the pairs")
    steps: OfData[int | None] = Field(None, gt=0, description="optimizer steps, instead of passes; none: epochs count")
    batch_pairs: OfData[int] = Field(16, gt=0, description="pairs per optimizer step, over all devices")
    sequence_length: OfData[int] = Field(128, ge=16, description="longest prompt plus answer, in tokens")


class DpoSettings(PreferenceSettings):
    """DPO against the stage before it, whose log-probabilities are computed once, in advance."""

    trainer: ClassVar[str] = "DPOConfig"


class OrpoSettings(PreferenceSettings):
    """ORPO: fine-tuning on the chosen answers and their odds against the rejected ones, without a reference."""

    trainer: ClassVar[str] = "ORPOConfig"


class KtoSettings(PreferenceSettings):
    """KTO: each answer of a pair by itself, as wanted or unwanted, against the stage before it."""

    trainer: ClassVar[str] = "KTOConfig"


class RewardSettings(PreferenceSettings):
    """A reward model: the stage before it, with one number for an answer instead of its next word."""

    trainer: ClassVar[str] = "RewardConfig"

    heldout: OfData[Share] = Field(
        0.1, description="prompts whose pairs are kept from training, to see how well it ranks"
    )
    path: NonEmpty | None = Field(None, description="take this reward model, a folder or Hub id; none: train one")
    revision: NonEmpty | None = Field(None, description="commit of a reward model of the Hub")


class MergeSettings(StageSettings):
    """Weights of several checkpoints of the chain put together by mergekit."""

    choice: ClassVar[str] = "method"
    by_kind: ClassVar[bool] = False  # which stages are merged belongs to one pipeline's merge

    method: Literal[
        "linear", "slerp", "ties", "dare_ties", "della", "task_arithmetic", "model_stock", "passthrough"
    ] = Field("linear", description="mergekit's name of the method")
    base: NonEmpty | None = Field(None, description="stage whose weights the method measures differences from")
    parameters: MergeParameters = Field(default_factory=dict, description="mergekit parameters of the whole merge")
    models: dict[NonEmpty, MergeParameters] = Field(
        default_factory=dict, description="stage name -> mergekit parameters of that model (weight, density, …)"
    )
    slices: list[dict[str, Any]] | None = Field(
        None, description="passthrough: mergekit slices, `sources` naming stages as `model`"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the merged weights")

    def members(self) -> list[str]:
        """Return the stages whose weights enter the merge, each once, in mergekit's order."""
        if self.method == "passthrough":
            named = [str(source["model"]) for piece in self.slices or [] for source in piece["sources"]]
        else:
            named = [*self.models, *([self.base] if self.base else [])]
        return list(dict.fromkeys(named))


class EvaluateSettings(StageSettings):
    """The exam that every checkpoint sits."""

    tasks: tuple[NonEmpty, ...] = Field(
        (), description="further lm-evaluation-harness tasks by name (they need the Hub)"
    )
    batch_size: int = Field(
        64, gt=0, description="requests per forward pass; rounding aside, scores do not depend on it"
    )
    chat_template: OfData[bool] = Field(True, description="ask through the checkpoint's chat template")
    limit: OfData[int | None] = Field(None, gt=0, description="questions per task; none: all")
    text_documents: OfData[int] = Field(
        120, gt=0, description="held-out documents read for bits per byte, at most, per side"
    )
    written: OfData[bool] = Field(
        False, description="also let the checkpoint write its answers to the domain's questions"
    )
    answer_tokens: OfData[int] = Field(128, gt=0, description="longest written answer, in tokens")
    long_context: OfData[LongContextSettings | None] = Field(
        None, description="also measure how far the checkpoint reads: {length: 32768}; none: not"
    )


class CardSettings(StageSettings):
    """The report on the whole chain."""

    intended_use: str = Field("", description="what the model is for, in a sentence or two")
    limits_of_use: str = Field("", description="what it is not for")
    tags: tuple[NonEmpty, ...] = Field((), description="further Hub tags")


class PublishSettings(StageSettings):
    """Where the finished model goes."""

    to: NonEmpty = Field("local", description="local (models/<domain>/<version>), hub:<owner>/<name>, or none")
    private: bool = Field(True, description="hub only: make the repository private")
    latest: bool = Field(
        False, description="local only: let models/<domain>/latest point here, whichever run it belongs to; "
        "false: only where it belongs to this run, or to none",
    )  # fmt: skip
    licence: NonEmpty | None = Field(
        None,
        description="licence of what is published, as the Hub spells it; none: the strictest of base and data",
    )
    choose: Literal["named", "best"] = Field(
        "named", description="named: the stage that the pipeline publishes; best: where that lost more than half of "
        "what was learned of the domain, the best stage before it",
    )  # fmt: skip
