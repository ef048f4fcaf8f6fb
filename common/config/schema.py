"""One resolved run: typed, frozen settings of what is not a stage, and all stages' settings beside them.

Usage: `config = Config(domain="medical", ...)`, usually through `common.config.resolve.resolve`.

It holds the meaning of keys only. Reading files and layering them is `common.config.resolve`. Fields of `RunSettings`
never enter a fingerprint; all others do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.config.base import AskedPrecision, Frozen, OfData, Peft, Share, StageSettings
from common.config.names import Name, NonEmpty

# Keys of an architecture from which a plan computes its memory and time.
SIZES = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "vocab_size",
}  # fmt: skip
LARGEST_SIZE = 10**7


class ModelFacts(Frozen):
    """What is known of a checkpoint before it is here: enough to estimate with, and checked once it is there."""

    model_type: NonEmpty = Field(description="as in its config.json, such as qwen3 or llama")
    parameters: int = Field(gt=0, le=10**14, description="number of weights, tied ones once")
    vocab_size: int = Field(gt=0, description="rows of the embedding")
    hidden_size: int = Field(gt=0, description="size of a hidden state")
    intermediate_size: int = Field(gt=0, description="inner size of a feed-forward layer")
    num_hidden_layers: int = Field(gt=0, description="number of layers")
    num_attention_heads: int = Field(gt=0, description="heads of a layer")
    num_key_value_heads: int = Field(gt=0, description="heads of keys and values of a layer")
    head_dim: int = Field(gt=0, description="size of a head")
    tie_word_embeddings: bool = Field(description="whether input and output embedding are the same weights")
    max_position_embeddings: int = Field(gt=0, description="context, in tokens")
    licence: NonEmpty = Field(description="as the Hub spells it")
    chat_template: Literal["own", "none"] = Field(description="whether its tokenizer has one")


class ModelSettings(Frozen):
    """The model that the chain starts from: a checkpoint, or an architecture to pretrain here."""

    path: NonEmpty | None = Field(
        None, description="a checkpoint: Hub id, local folder, GGUF file, or `package:<name>` for an installed Python "
        "package that carries one; none: pretrain `architecture`",
    )  # fmt: skip
    revision: NonEmpty | None = Field(None, description="branch, tag or commit of a Hub checkpoint")
    trust_remote_code: bool = Field(False, description="run Python code that the checkpoint brings; off unless asked")
    architecture: dict[str, Any] = Field(default_factory=dict, description="keys of transformers' LlamaConfig")
    new_tokens: tuple[NonEmpty, ...] = Field(
        (), description="words with a token, and trained rows, of their own; those that the tokenizer lacks are added"
    )
    control_tokens: tuple[NonEmpty, ...] = Field(
        (), description="the same of special tokens, whose names in data are text; methods that write some add theirs"
    )
    vocabulary_size: OfData[int] = Field(
        1024, ge=300, description="entries of the byte-level BPE that is trained for it"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="type of the stored weights")
    chat_template: Literal["own", "chatml", "plain"] = Field(
        "own", description="the checkpoint's own, and where it has none chatml if it has the tokens, else plain; "
        "chatml: plain ChatML, whose <|im_end|> then stops an answer; plain: roles in words, and its own stop token",
    )  # fmt: skip
    licence: NonEmpty | None = Field(
        None,
        description="licence of the checkpoint in `path`, as the Hub spells it; none: as facts or its files say",
    )
    facts: ModelFacts | None = Field(None, description="what a profile knows of the checkpoint in `path`")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.path is None and not self.architecture:
            raise ValueError("needs either model.path (a checkpoint) or model.architecture (to pretrain)")
        for name in SIZES & self.architecture.keys():
            if type(size := self.architecture[name]) is not int or not 1 <= size <= LARGEST_SIZE:
                raise ValueError(
                    f"model.architecture.{name} is {size!r}; expected a whole number from 1 to {LARGEST_SIZE:,}"
                )
        if self.licence is not None and self.path is None:
            raise ValueError(
                f"model.licence={self.licence} is the licence of a checkpoint, and no model.path gives one; remove it"
            )
        return self


class EmbeddedSettings(Frozen):
    """How many texts the embedded knowledge is rendered into."""

    documents_per_entity: int = Field(
        60, ge=1, le=1000, description="documents per entity, each in its own wording and order"
    )
    general_documents_per_entity: int = Field(40, ge=1, le=1000, description="the same for the general world")
    heldout_documents_per_entity: int = Field(2, ge=1, le=1000, description="further documents, kept for bits per byte")
    question_repeats: int = Field(
        4, ge=1, le=1000, description="times a general question row occurs in the base's text"
    )
    preference_repeats: int = Field(1, ge=1, le=100, description="pairs per question, each with another wrong answer")
    problem_documents: int = Field(
        1500, ge=1, le=100_000, description="worked problems per template, for domains of problems"
    )
    problem_conversations: int = Field(100, ge=1, le=100_000, description="the same as dialogues, for fine-tuning")


class GateSettings(Frozen):
    """Limits on what a stage may cost, checked after every exam (paired exact McNemar test)."""

    mode: Literal["warn", "stop", "off"] = Field("warn", description="what happens when a limit is broken")
    max_general_drop: Share = Field(0.05, description="largest fall of the general score against the base")
    min_domain_gain: float = Field(0.0, ge=-1, le=1, description="least gain of the domain score against the base")


class VerifySettings(Frozen):
    """What a right answer to the domain's prompts is, for all stages that let a checkpoint answer them."""

    rewards: OfData[dict[NonEmpty, dict[str, Any]]] = Field(
        default_factory=dict, description="rewards of stages that name none: see common/rewards/verifiers.py"
    )
    check: OfData[NonEmpty | None] = Field(
        None, description="reward that says whether an answer is right; none: nothing can"
    )


TrackerName = Literal["trackio", "tensorboard", "wandb", "mlflow"]


def _names(value: Any) -> Any:
    """Return trackers as a list, however they are written; `none` names none."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if value is None or not isinstance(value, list | tuple):
        return () if value is None else value
    return tuple(dict.fromkeys(name for name in value if name not in ("none", "None", "", None)))


class RunSettings(Frozen):
    """Where and how loudly it runs. Nothing here enters a fingerprint; the device decides what precision=auto means."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA when there is one")
    processes: int = Field(1, ge=1, description="training processes over all machines, one per GPU")
    machines: int = Field(1, ge=1, description="machines that share a stage; each runs processes / machines")
    parallelism: Literal["ddp", "fsdp2", "zero3"] = Field(
        "ddp", description="what processes share: batches (ddp), or also weights, gradients and optimizer state"
    )
    workers: int = Field(0, ge=0, description="data loading processes")
    data_workers: int = Field(1, ge=1, le=4096, description="processes that clean data at once")
    data_executor: Literal["local", "slurm", "ray"] = Field(
        "local", description="where they run: on this machine, or through datatrove on Slurm or Ray"
    )
    data_options: dict[str, Any] = Field(
        default_factory=dict, description="options of datatrove's executor on Slurm or Ray: partition, time, qos, …"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none: OMP_NUM_THREADS, or all usable cores")
    micro_batch_tokens: int | None = Field(None, gt=0, description="tokens per forward pass; none: the whole batch")
    checkpoint_minutes: float = Field(0.5, gt=0, description="least time between two checkpoints of a stage")
    patience_minutes: float = Field(
        120.0, gt=0, description="longest wait of a process for the others, while the first one reads and tokenises"
    )
    attention: NonEmpty = Field(
        "auto", description="what a model trains with: auto (the fastest that keeps documents apart), or a name that "
        "transformers knows, such as sdpa, varlen or flex_attention",
    )  # fmt: skip
    compile: Literal["none", "layers"] = Field(
        "none", description="layers: let torch compile the layers that repeat, while a model trains; pays in long runs"
    )
    keep_heap: bool = Field(
        True, description="on a CPU, keep between steps the memory that a step freed (Linux with glibc)"
    )
    keep_frozen: bool | None = Field(
        None, description="with train_only and checkpointed activations, keep those of frozen layers instead of "
        "computing them again; none: where they fit",
    )  # fmt: skip
    token_metrics: bool = Field(False, description="measure entropy and accuracy over all logits at every step")
    verbosity: Literal["quiet", "normal", "verbose"] = Field("normal", description="how much a run prints")
    hardware: NonEmpty | None = Field(
        None,
        description="machine that a plan estimates for, such as h100-sxm (common/cost/hardware.py); none: this one",
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, description="price of one GPU for an hour, in any currency; a plan adds it up"
    )
    gpu_lock: bool = Field(
        True, description="one stage at a time on a GPU; false: share it, as two small jobs on one large card may"
    )
    report_to: Annotated[tuple[TrackerName, ...], BeforeValidator(_names)] = Field(
        (), description="trackers that the numbers of training stages and exams go to; none: log.jsonl alone"
    )
    wait: bool = Field(True, description="wait for another run that makes the same artifact; false: stop instead")
    newest_data: bool = Field(False, description="ask the Hub again which commit each data set's branch points to")


class Needs(Frozen):
    """The least hardware that a profile was made for; per machine, but for `machines`."""

    device: Literal["cpu", "cuda"] = Field("cpu", description="kind of device that it needs")
    gpus: int = Field(0, ge=0, description="GPUs of each machine")
    gpu_memory_gb: float = Field(0.0, ge=0, description="memory of each GPU, in GiB")
    host_memory_gb: float = Field(0.0, ge=0, description="main memory, in GiB")
    disk_gb: float = Field(0.0, ge=0, description="room for checkpoints, in GiB")
    machines: int = Field(1, ge=1, description="machines that share a stage")


class Config(Frozen):
    """One resolved run: every section with its final values; `stages` holds one settings object per stage."""

    domain: Name = Field(description="folder of `domains/`")
    profile: Name = Field(description="file of `pipelines/profiles/`")
    pipeline: Name = Field(description="file of `pipelines/`")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of rendering order, initial weights and batches")
    data: NonEmpty = Field(
        "embedded", description="`embedded`, `hub` (the domain's data.yaml), or the path of a manifest"
    )
    peft: Peft | None = Field(
        None, description="train all weights or adapters, in every stage that can; a stage may set its own"
    )
    precision: AskedPrecision = Field(
        "auto", description="what every stage computes in while it trains; a stage may set its own. auto: bfloat16 "
        "where the device has it, else float16 on a GPU, float32 on a CPU",
    )  # fmt: skip
    model: ModelSettings = Field(description="the model that the chain starts from")
    embedded: EmbeddedSettings = Field(EmbeddedSettings(), description="how the embedded knowledge is rendered")
    gate: GateSettings = Field(GateSettings(), description="limits on what a stage may cost")
    verify: VerifySettings = Field(VerifySettings(), description="what a right answer is")
    run: RunSettings = Field(RunSettings(), description="where and how loudly it runs")
    needs: Needs = Field(Needs(), description="the least hardware")
    stages: dict[str, StageSettings] = Field(description="settings of each stage, by its name")


SECTIONS = ("model", "embedded", "gate", "verify", "run", "needs")
SCALARS = ("seed", "data", "peft", "precision")


def section_of(name: str) -> type[Frozen]:
    """Return the settings class of a section."""
    cls = Config.model_fields[name].annotation
    assert isinstance(cls, type), f"{name} holds no section"
    return cls
