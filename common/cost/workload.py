"""What a training stage computes in one process at a time: rows, tokens, logits, and what of the model learns.

Usage: `work = work_of("cpt", settings, config)`; `work.tokens`, `work.accumulation`.

Batches are split as `common.training.options` splits them (`common.config.batches.accumulate`). Defaults are those
of TRL's config classes, which keep activations checkpointed unless set otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.config.answering import OnlineSettings
from common.config.base import AskedPrecision, Peft
from common.config.batches import accumulate, micro_tokens
from common.config.growth import DIVERGENCE
from common.config.kinds import kind_of
from common.config.methods import LossMethod, RowsMethod, chosen, keeps, teaches
from common.config.pruning import MODULES
from common.config.schema import Config, RunSettings
from common.config.stages import ContinuedSettings, LearningSettings, PreferenceSettings, TrainingSettings
from common.cost.shapes import Shape

# How logits come about: all at once (lean), in TRL's pieces (chunked), for the answers' tokens in ours (scored), all by
# a trainer that knows no better (full), all for losses beside that of the next token (terms), also of a teacher
# that runs beside (taught) or has left some of its own (kept), or not at all.
Head = Literal["lean", "chunked", "scored", "full", "terms", "taught", "kept", "none"]
STEPS = 100  # of a training of which only shares of the steps matter
HELDOUT_PAIRS = 32  # answers that `common.training.rows.preferences` scores at once
# Bytes of an optimizer's state per weight that learns: two float32 moments; one; two of 8 bits with a float32 scale for
# each 256 of them (bitsandbytes; Dettmers et al. 2021, arXiv 2110.02861, section 2); factors alone; none.
STATES = {"adamw": 8.0, "lion": 4.0, "8bit": 2.0 + 8 / 256, "adafactor": 0.0, "sgd": 0.0}


@dataclass(frozen=True)
class Work:
    """One training stage in one process."""

    kind: str
    rows: int  # of a forward pass
    length: int  # tokens of a row, padding included
    accumulation: int  # forward passes of a step
    scored: int  # tokens whose logits a forward pass computes
    head: Head
    certain: bool  # rows are always filled; else the lengths are at most these, and the data decides
    peft: Peft
    checkpointing: bool
    precision: AskedPrecision  # that matrix products are computed in
    optimizer: str
    lora: Mapping[str, Any]
    eight_bit: bool  # the quantised copy holds 8 bits a weight, not 4
    only: tuple[int, ...] | None = None  # places of the layers that learn; none: all
    tables: tuple[str, ...] = ()  # with `only`: embed_tokens and lm_head, where they learn too
    pairs: int = 0  # of a frozen layer and its copy, whose outputs meet
    keeps_frozen: bool | None = False  # frozen layers are not checkpointed with the others; none: where that fits
    part: float = 1.0  # share of a row that is read as a row of its own, as a mean over the steps

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def looked_at(self) -> float:
        """Tokens of the row that a token is in, padding included, as a mean over the steps."""
        return self.length * self.part

    @property
    def halved(self) -> bool:
        """Whether autocast computes in 16 bits, so that copies of weights and inputs of layers are half as wide."""
        return self.precision != "float32"

    @property
    def state(self) -> float:
        """Bytes of optimizer state per weight that learns."""
        name = self.optimizer
        if "8bit" in name:
            return STATES["8bit"] / (2 if "lion" in name else 1)
        return next((size for prefix, size in STATES.items() if name.startswith(prefix)), STATES["adamw"])

    def learned(self, shape: Shape) -> int:
        """Return the number of weights that learn: all, or the adapter's and what trains whole with it."""
        if self.only is not None:
            shared = shape.tied and len(self.tables) > 1
            layers = len(self.only) * shape.layer_parameters + (shape.mixing_learned if self.only else 0)
            return layers + shape.table * (1 if shared else len(self.tables))
        if self.peft == "full":
            return shape.parameters
        return shape.adapter_parameters(self.rank, self.targets) + self.kept_whole(shape)

    def saved(self, shape: Shape) -> int:
        """Return the number of weights in a trainer checkpoint, of which an adapter's holds those that learn alone."""
        return shape.parameters if self.peft == "full" else self.learned(shape)

    def passed(self, shape: Shape) -> int:
        """Return the layers that the backward pass goes through: down to the lowest one that learns."""
        if self.only is None or "embed_tokens" in self.tables or (shape.tied and self.tables):
            return shape.layers
        return shape.layers - min(self.only, default=shape.layers)

    def learning(self, shape: Shape) -> int:
        """Return the layers that learn, whole or by an adapter."""
        return shape.layers if self.only is None else len(self.only)

    def again(self, shape: Shape) -> int:
        """Return the layers that are computed again in the backward pass."""
        if not self.checkpointing:
            return 0
        return self.learning(shape) if self.keeps_frozen else self.passed(shape)

    def head_learns(self, shape: Shape) -> bool:
        """Whether the table that makes the logits learns, which is that of words too where both are tied."""
        return self.only is None or "lm_head" in self.tables or (shape.tied and bool(self.tables))

    def kept_whole(self, shape: Shape) -> int:
        """Return the weights that `lora.modules_to_save` copies and trains beside the adapter."""
        named = self.lora.get("modules_to_save") or ()
        return shape.table * sum(name in named for name in ("embed_tokens", "lm_head"))

    @property
    def rank(self) -> int:
        return int(self.lora.get("r", 0))

    @property
    def targets(self) -> tuple[str, ...]:
        named = self.lora.get("target_modules", "all-linear")
        return MODULES if isinstance(named, str) else tuple(str(name) for name in named)


def work_of(kind: str, settings: LearningSettings, config: Config, added: Sequence[int] = ()) -> Work:
    """Return what a training stage computes at once under `run.processes` and its tokens of a forward pass.

    `added` are the places of layers that an earlier stage has added, which may be all that learns.
    """
    train, run, part = settings.train, config.run, 1.0
    head: Head
    if isinstance(settings, OnlineSettings):
        length = settings.prompt_tokens + settings.answer_tokens
        rows, accumulation = split(settings.answers, length, settings, run)
        scored, head, certain = rows * settings.answer_tokens, "scored", False
    elif isinstance(settings, PreferenceSettings):
        length = settings.sequence_length
        pairs, accumulation = split(settings.batch_pairs, 2 * length, settings, run)
        rows, certain = 2 * pairs, False
        head = "full" if settings.trainer == "ORPOConfig" else "scored"
        if kind_of(kind).makes == "reward model":
            head = "none"
        scored = 0 if head == "none" else rows * length
    else:
        assert isinstance(settings, TrainingSettings)
        length = settings.sequence_length
        rows, accumulation = split(settings.batch_tokens // length, length, settings, run)
        scored, certain = rows * length, True
        part = _mean_part(settings)
        # Whether the logits are few enough for one piece is for the shape to say: see `common.cost.activations`.
        head = "lean" if settings.packing == "isolated" and not run.token_metrics else "chunked"
        if any(isinstance(method, LossMethod) for method, _ in chosen(settings)):
            head = "taught" if teaches(settings) else "kept" if keeps(settings) else "terms"
    return Work(
        kind=kind, rows=rows, length=length, accumulation=accumulation, scored=scored, head=head,
        certain=certain, part=part,
        peft=settings.peft, checkpointing=bool(train.get("gradient_checkpointing", True)),
        precision=settings.precision,
        optimizer=str(train.get("optim", "adamw_torch_fused")), lora=settings.lora or {},
        eight_bit=bool((settings.quantization or {}).get("load_in_8bit")), **_part(settings, added, run),
    )  # fmt: skip


def _mean_part(settings: TrainingSettings) -> float:
    """Return the mean over the steps of the share of a packed row that is read as one row."""
    cutting = [(way.parts, own) for way, own in chosen(settings) if isinstance(way, RowsMethod) and way.parts]
    if not cutting:
        return 1.0
    return sum(1 / math.prod(parts(step, STEPS, own) for parts, own in cutting) for step in range(STEPS)) / STEPS


def _part(settings: LearningSettings, added: Sequence[int], run: RunSettings) -> dict[str, Any]:
    """Return what learns where that is a part of the model, and whether the rest keeps its activations."""
    if not isinstance(settings, ContinuedSettings) or settings.train_only is None:
        return {}
    # The other way of checkpointing needs gradients in all layers, and is left as it is.
    reentrant = (settings.train.get("gradient_checkpointing_kwargs") or {}).get("use_reentrant")
    found: dict[str, Any] = {"keeps_frozen": False if reentrant else run.keep_frozen}
    if settings.train_only == "embeddings":
        return {**found, "only": (), "tables": ("embed_tokens", "lm_head")}
    pairs = len(added) if DIVERGENCE in settings.methods else 0
    return {**found, "only": tuple(added), "tables": settings.train_also, "pairs": pairs}


def split(batch: int, tokens_each: int, settings: LearningSettings, run: RunSettings) -> tuple[int, int]:
    """Return (units of a forward pass, forward passes of a step) in one of `run.processes`."""
    micro = micro_tokens(settings, run)
    most = None if micro is None else micro // tokens_each
    return accumulate(max(1, batch // run.processes), most)
