"""Typed, frozen settings: what every key of a profile, pipeline, domain or command line means.

Usage: `settings = StageSettings.of("cpt").model_validate({...})`, usually through `common.layers.resolve`.

It holds the meaning of keys only. Reading files and layering them is `common.layers`; which TRL options
exist is `common.trl_options`. Fields of `RunSettings` never enter a fingerprint; all others do.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
TrainOptions = dict[str, Any]


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, no silent type coercion of strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)


class ModelSettings(Frozen):
    """The model that the chain starts from: a checkpoint, or an architecture to pretrain here."""

    path: str | None = Field(None, description="Hub id or local folder of a checkpoint; none: pretrain `architecture`")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub checkpoint")
    trust_remote_code: bool = Field(False, description="run Python code that the checkpoint brings; off unless asked")
    architecture: dict[str, Any] = Field(default_factory=dict, description="keys of transformers' LlamaConfig")
    vocabulary_size: int = Field(1024, ge=300, description="entries of the byte-level BPE that is trained for it")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="type of the stored weights")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.path is None and not self.architecture:
            raise ValueError("needs either model.path (a checkpoint) or model.architecture (to pretrain)")
        return self


class EmbeddedSettings(Frozen):
    """How many texts the embedded knowledge is rendered into."""

    documents_per_entity: int = Field(60, ge=1, description="documents per entity, each in its own wording and order")
    general_documents_per_entity: int = Field(40, ge=1, description="the same for the general world")
    heldout_documents_per_entity: int = Field(2, ge=1, description="further documents, kept for bits per byte")
    question_repeats: int = Field(4, ge=1, description="times a general question row occurs in the base's text")
    problem_documents: int = Field(1500, ge=1, description="worked problems per template, for domains of problems")
    problem_conversations: int = Field(100, ge=1, description="the same as dialogues, for fine-tuning")


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


class StageSettings(Frozen):
    """What every stage kind has in common; `of(kind)` gives the class of one kind."""

    kinds: ClassVar[dict[str, type[StageSettings]]] = {}
    trainer: ClassVar[str] = ""
    choice: ClassVar[str] = ""  # a key whose new value makes the other keys of lower layers meaningless
    by_kind: ClassVar[bool] = True  # a section named after the kind holds for all stages of it, whatever their names
    either: ClassVar[tuple[str, ...]] = ()  # keys of which a layer's takes the place of the others in lower layers

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            StageSettings.kinds[kind] = cls

    @classmethod
    def of(cls, kind: str) -> type[StageSettings]:
        """Return the settings class of a stage kind. Raises KeyError for a kind that does not exist."""
        return StageSettings.kinds[kind]


class LearningSettings(StageSettings):
    """What all stages that run a trainer have in common."""

    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    lora: dict[str, Any] | None = Field(None, description="options of peft's LoraConfig; none: full fine-tuning")
    train: TrainOptions = Field(default_factory=dict, description="options of the TRL config class, by their own names")


class TrainingSettings(LearningSettings):
    """Settings of the stages that train on tokens; budgets do not change with the number of devices."""

    trainer: ClassVar[str] = "SFTConfig"
    either: ClassVar[tuple[str, ...]] = ("tokens", "epochs")

    tokens: int | None = Field(
        None, gt=0, description="token positions to train on, padding included; more means epochs"
    )
    epochs: float | None = Field(None, gt=0, description="passes over the data, instead of a token budget")
    batch_tokens: int = Field(2048, gt=0, description="tokens per optimizer step, over all devices")
    sequence_length: int = Field(128, ge=16, description="tokens per row")
    packing: Literal["isolated", "trl"] = Field(
        "isolated", description="isolated: rows of whole documents that cannot see each other; trl: TRL's own packing"
    )
    replay: Share = Field(0.0, description="share of all tokens that comes from the replay sources")

    @model_validator(mode="after")
    def _budget(self) -> TrainingSettings:
        if self.tokens is not None and self.epochs is not None:
            raise ValueError("tokens and epochs are both set; keep one")
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_length {self.sequence_length}"
            )
        return self


class BaseSettings(TrainingSettings, kind="base"):
    """The start of the chain: pretrain the profile's small architecture, or check and take its checkpoint."""


class CptSettings(TrainingSettings, kind="cpt"):
    """Continued pre-training on the domain's text, mixed with replay."""


class SftSettings(TrainingSettings, kind="sft"):
    """Supervised fine-tuning on conversations; only the assistant's tokens are learned."""


class PreferenceSettings(LearningSettings):
    """Settings of the stages that learn from pairs of a chosen and a rejected answer."""

    epochs: float = Field(1.0, gt=0, description="passes over the pairs")
    batch_pairs: int = Field(16, gt=0, description="pairs per optimizer step, over all devices")
    sequence_length: int = Field(128, ge=16, description="longest prompt plus answer, in tokens")


class DpoSettings(PreferenceSettings, kind="dpo"):
    """DPO against the stage before it, whose log-probabilities are computed once, in advance."""

    trainer: ClassVar[str] = "DPOConfig"


class OrpoSettings(PreferenceSettings, kind="orpo"):
    """ORPO: fine-tuning on the chosen answers and their odds against the rejected ones, without a reference."""

    trainer: ClassVar[str] = "ORPOConfig"


class KtoSettings(PreferenceSettings, kind="kto"):
    """KTO: each answer of a pair by itself, as wanted or unwanted, against the stage before it."""

    trainer: ClassVar[str] = "KTOConfig"


class WatchSettings(Frozen):
    """When a stage that learns from rewards looks at held-out prompts, and what stops it."""

    every: int = Field(20, gt=0, description="steps between two looks")
    prompts: int = Field(64, ge=8, description="prompts that are kept from training for it")
    check: str = Field("exact", description="reward that says whether a held-out answer is right")
    drop: Share = Field(0.1, description="stop when the share of right answers falls this far below its best")
    longer: float = Field(1.0, gt=0, description="stop when answers grew by this share since the start")


class RewardedSettings(LearningSettings):
    """Settings of the stages that learn from rewards on answers of their own."""

    steps: int = Field(200, gt=0, description="optimizer steps")
    prompts_per_step: int = Field(16, gt=0, description="prompts per step, over all devices")
    samples: int = Field(8, ge=2, description="answers to each prompt, compared with each other")
    prompt_tokens: int = Field(256, ge=8, description="longest prompt; longer ones are left out and counted")
    answer_tokens: int = Field(128, ge=1, description="longest answer; a longer one is cut and counts as not stopped")
    rewards: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="reward -> its weight and options; see common/rewards/verifiers.py"
    )
    order: Literal["weighted", "ranked"] = Field("weighted", description="add the rewards up, or rank by the first")
    watch: WatchSettings = WatchSettings()


class GrpoSettings(RewardedSettings, kind="grpo"):
    """GRPO: each answer against the mean of its siblings, in units of their spread."""

    trainer: ClassVar[str] = "GRPOConfig"


class RlooSettings(RewardedSettings, kind="rloo"):
    """RLOO: each answer against the mean of the others to the same prompt."""

    trainer: ClassVar[str] = "RLOOConfig"


MERGE_METHODS = ("linear", "slerp", "ties", "dare_ties", "della", "task_arithmetic", "model_stock", "passthrough")


class MergeSettings(StageSettings, kind="merge"):
    """Weights of several checkpoints of the chain put together by mergekit."""

    choice: ClassVar[str] = "method"
    by_kind: ClassVar[bool] = False  # which stages are merged belongs to one pipeline's merge

    method: Literal[
        "linear", "slerp", "ties", "dare_ties", "della", "task_arithmetic", "model_stock", "passthrough"
    ] = "linear"
    base: str | None = Field(None, description="stage whose weights the method measures differences from")
    parameters: dict[str, Any] = Field(default_factory=dict, description="mergekit parameters of the whole merge")
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="stage name -> mergekit parameters of that model (weight, density, …)"
    )
    slices: list[dict[str, Any]] | None = Field(
        None, description="passthrough: mergekit slices, `sources` naming stages as `model`"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the merged weights")


class EvaluateSettings(StageSettings, kind="evaluate"):
    """The exam that every checkpoint sits."""

    tasks: tuple[str, ...] = Field((), description="further lm-evaluation-harness tasks by name (they need the Hub)")
    batch_size: int = Field(
        64, gt=0, description="requests per forward pass; rounding aside, scores do not depend on it"
    )
    chat_template: bool = Field(True, description="ask through the checkpoint's chat template")
    limit: int | None = Field(None, gt=0, description="questions per task; none: all")
    text_documents: int = Field(120, gt=0, description="held-out documents read for bits per byte, at most, per side")
    written: bool = Field(False, description="also let the checkpoint write its answers to the domain's questions")
    answer_tokens: int = Field(128, gt=0, description="longest written answer, in tokens")


class CardSettings(StageSettings, kind="card"):
    """The report on the whole chain."""

    intended_use: str = Field("", description="what the model is for, in a sentence or two")
    limits_of_use: str = Field("", description="what it is not for")
    tags: tuple[str, ...] = Field((), description="further Hub tags")
    licence: str = Field("apache-2.0", description="licence of the published weights, as the Hub spells it")


class PublishSettings(StageSettings, kind="publish"):
    """Where the finished model goes."""

    to: str = Field("local", description="local (models/<domain>/<version>), hub:<owner>/<name>, or none")
    private: bool = Field(True, description="hub only: make the repository private")


class GateSettings(Frozen):
    """Limits on what a stage may cost, checked after every exam (paired exact McNemar test)."""

    mode: Literal["warn", "stop", "off"] = "warn"
    max_general_drop: Share = Field(0.05, description="largest fall of the general score against the base")
    min_domain_gain: float = Field(0.0, ge=-1, le=1, description="least gain of the domain score against the base")


class RunSettings(Frozen):
    """Where and how loudly it runs. Nothing here changes a result or enters a fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA when there is one")
    workers: int = Field(0, ge=0, description="data loading processes")
    threads: int | None = Field(None, ge=1, description="CPU threads; none: as many as there are cores")
    micro_batch_tokens: int | None = Field(None, gt=0, description="tokens per forward pass; none: the whole batch")
    checkpoint_seconds: float = Field(30.0, gt=0, description="least time between two checkpoints of a stage")
    verbosity: Literal["quiet", "normal", "verbose"] = "normal"
    wait: bool = Field(True, description="wait for another run that makes the same artifact; false: stop instead")
    newest_data: bool = Field(False, description="ask the Hub anew which commit each data set's branch points to")
    tokens_per_second: float = Field(12000.0, gt=0, description="guess for `plan` until a stage has been measured")


class Config(Frozen):
    """One resolved run: every section with its final values; `stages` holds one settings object per stage."""

    domain: str
    profile: str
    pipeline: str
    seed: int = Field(0, ge=0, description="seed of rendering order, initial weights and batches")
    data: str = Field("embedded", description="`embedded`, `hub` (the domain's data.yaml), or the path of a manifest")
    model: ModelSettings
    embedded: EmbeddedSettings = EmbeddedSettings()
    gate: GateSettings = GateSettings()
    run: RunSettings = RunSettings()
    stages: dict[str, StageSettings]


SECTIONS = ("model", "embedded", "gate", "run")
SCALARS = ("seed", "data")
