"""Run a trainer to its end: resume a killed run, roll back from loss spikes, and return the log.

Usage: `loop = TrainingLoop(context, tokens_per_step); log = loop.run(trainer)`.

`LeanSFTTrainer` computes the same loss as TRL's, without the entropy and accuracy over all logits that TRL measures at
every step. Trainer checkpoints are in the scratch folder only. What happens between steps is
`common.training.loop.progress`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.config.schema import RunSettings
from common.config.stages import LearningSettings, TrainingSettings
from common.cost.activations import LEAN_LOGITS
from common.errors import ConfigError, ContractError
from common.models.device import device_of
from common.store.artifacts import writing
from common.system.signals import Preempted
from common.training.distributed import ranks
from common.training.loop import memory, stopping
from common.training.loop.loss_guard import LossSpikeGuard, without_skipped
from common.training.loop.progress import Progress, form_of, newest_whole
from common.training.methods.applied import Applied
from common.training.methods.rates import split_by_rate
from common.training.methods.teacher import beside
from common.training.patches import float32_adapter
from common.training.rows.packing import RowCollator
from common.training.rows.shards import SCORE, TEACHER
from common.training.speed import heap
from common.training.speed.attention import with_attention
from common.training.speed.compiling import compiled
from common.training.speed.isolation import keeps_apart
from common.training.speed.scoring import unmeasured
from common.training.tracking.reporter import reporting

if TYPE_CHECKING:
    from transformers import Trainer

    from common.stage import StageContext

logger = logging.getLogger(__name__)


@functools.cache
def lean_sft_trainer() -> type[Trainer]:
    """Return the SFTTrainer subclass; a function, so that importing this module does not import TRL."""
    import torch
    from torch.nn.functional import cross_entropy, pad
    from trl import SFTTrainer

    class LeanSFTTrainer(SFTTrainer):  # type: ignore[misc] # TRL is untyped
        """SFTTrainer whose training loss is one cross-entropy over the logits of small models."""

        lean = True
        optimizer: Any  # of transformers
        applied: Applied | None = None  # the stage's methods, where some are on

        def create_optimizer(self, model: Any = None) -> Any:
            new, learner = self.optimizer is None, self.model if model is None else model
            optimizer = super().create_optimizer(model)
            if new and self.applied is not None:
                self.optimizer = optimizer = self.applied.optimizer(optimizer, learner, self.args.max_steps)
                rates, apart = self.applied.rates(learner), self.applied.apart
                if rates or apart:
                    split_by_rate(optimizer, learner, rates, apart=apart)
            return optimizer

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            made = getattr(self, "lr_scheduler", None) is not None
            if made or self.applied is None or self.applied.schedule is None:
                return super().create_scheduler(num_training_steps, optimizer)
            multiplier = self.applied.multiplier(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, multiplier)
            self._created_lr_scheduler = True
            return self.lr_scheduler

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if self.applied is not None and "loss" in logs:
                logs |= self.applied.logged()
            super().log(logs, start_time)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            extra = {name: value for name, value in inputs.items() if name.startswith((SCORE, TEACHER))}
            inputs = {name: value for name, value in inputs.items() if name not in extra} if extra else inputs
            vocabulary = self.model.config.vocab_size
            small = inputs["input_ids"].numel() * vocabulary <= LEAN_LOGITS
            plain = self.args.loss_type == "nll" and not self.aux_loss_enabled and self.label_smoother is None
            training = self.model.training and not return_outputs
            applied = self.applied if training and self.applied is not None and self.applied.terms else None
            if not (applied or (self.lean and small and plain and training)):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # The labels are moved, not the logits: those would be copied, and their gradient too.
            next_BT = pad(inputs["labels"][:, 1:], (0, 1), value=-100)
            given = {k: v for k, v in inputs.items() if k != "labels"}
            outputs = model(**given, **(applied.forward() if applied else {}), use_cache=False)
            logits_BTV = outputs.logits

            def next_token() -> Any:
                flat_NV = logits_BTV.flatten(0, 1).float()
                return cross_entropy(flat_NV, next_BT.flatten(), ignore_index=-100, reduction="sum")

            of_methods = (given, outputs, next_BT, self.model, next_token, extra)
            total = applied.loss(*of_methods) if applied else next_token()
            learned = (next_BT != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = total / torch.as_tensor(learned).clamp(min=1)
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes
            return loss

    return LeanSFTTrainer


class TrainingLoop:
    """The training of one stage, over all its attempts."""

    def __init__(self, context: StageContext, tokens_per_step: int) -> None:
        self.context = context
        self.settings = cast(LearningSettings, context.settings)
        self.folder = context.work / "trainer"
        self.tokens_per_step = tokens_per_step
        self.seconds = 0.0  # inside the loop, over all attempts
        self.steps = 0
        self.from_step = 0  # of the trainer checkpoint that this attempt resumes from
        phases = self.settings.mixture.phases if isinstance(self.settings, TrainingSettings) else ()
        self.guard = LossSpikeGuard(self.settings.guard, self.folder, [phase.until for phase in phases])

    def run(self, trainer: Trainer, unit: str = "tokens") -> list[dict[str, Any]]:
        """Train to the end and return the log: one record per logging step, with the tokens or answers seen so far.

        Raises Preempted where a signal stopped it, and ContractError where a loss spike could not be skipped.
        """
        from transformers.trainer_callback import PrinterCallback

        run, stage = self.context.config.run, self.context.stage
        self.guard.restore()
        resume, before = self._newest()
        if resume is not None:
            logger.info("%s: resuming from %s", stage, resume.name)
            self.context.console.line(f"  {stage}: resuming at step {_step_of(resume)}")
        rows, total = trainer.train_dataset, trainer.args.max_steps
        if (applied := getattr(trainer, "applied", None)) is not None and applied.replaces:
            self.guard.usual = max
        shown = f"{stage} ({self.settings.precision})"
        with (
            self.context.console.progress(shown, total * self.tokens_per_step, unit) as bar,
            stopping.catch_signals() as stop,
            reporting(self.context) as reporter,
        ):
            progress = Progress(self.context, self.tokens_per_step, trainer, bar, self.guard, stop, before=before)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(progress.callback())
            if reporter is not None:
                trainer.add_callback(reporter.callback())
            float32_adapter(trainer.model)
            with writing(self.folder), _stopped_first(stop), optimized_for(trainer, run, stage):
                while True:
                    self.from_step = _step_of(resume) if resume else 0
                    skip_batches(trainer, rows, self.guard.skipped)
                    with memory.phase(memory.TRAINING):
                        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
                    if not self.guard.problem:
                        break
                    resume = self._roll_back(trainer)
        self.seconds = progress.seconds()
        self.steps = trainer.state.global_step
        if stop.asked:
            self.context.console.line(f"  {stage}: saved at step {self.steps} of {total}")
            raise Preempted(stop.signum)
        return self._log(trainer, unit)

    def measured(self) -> dict[str, float]:
        """Return what the card reports: how many steps were skipped, where any were."""
        steps = sum(last - first + 1 for first, last in self.guard.skipped)
        return {"passed_over_steps": steps} if steps else {}

    def _newest(self, at_most: int | None = None) -> tuple[Path | None, float]:
        """Return the trainer checkpoint that all processes resume from, and the seconds before. Raises ConfigError."""
        found, seconds, form = ranks.broadcast(
            newest_whole(self.folder, at_most) if ranks.is_main_process() else (None, 0.0, "")
        )
        now = form_of(self.context.config.run)
        if found is not None and form != now:
            raise ConfigError(
                f"Stage {self.context.stage} has a trainer checkpoint with its model {form}, which cannot be read with "
                f"the model {now}. Use run.parallelism and run.processes as before, or remove {self.folder} to start "
                "the stage again."
            )
        return found, seconds

    def _roll_back(self, trainer: Trainer) -> Path:
        """Skip the batches of a loss spike and return the trainer checkpoint before it. Raises ContractError."""
        guard, stage, step = self.guard, self.context.stage, trainer.state.global_step
        reason = f"Stage {stage}: {guard.problem} (step {step})"
        if guard.high:
            other = f", or allow high losses with {stage}.guard.spike=null"
        else:
            other = "" if self.settings.precision == "float32" else f", or set {stage}.precision=float32"
        advice = f"Nothing is saved. Lower {stage}.train.learning_rate{other}."
        before = step - 1 - max(1, guard.high)  # losses are seen one step late
        if before <= self.from_step and not guard.high:  # the weights of that checkpoint are broken too
            before = self.from_step - 1
        resume, _ = self._newest(at_most=before)
        if resume is None:
            raise ContractError(f"{reason}, and there is no trainer checkpoint before it. {advice}")
        if len(guard.skipped) >= guard.settings.times:
            raise ContractError(
                f"{reason}, and {guard.settings.times} spikes were skipped before ({stage}.guard.times). {advice}"
            )
        at = _step_of(resume)
        self.context.console.line(
            f"  {stage}: {guard.problem}; rolling back to step {at} and skipping the batches of {step - at} steps",
            always=True,
        )
        guard.skip(at + 1, step)
        return resume

    def _log(self, trainer: Trainer, unit: str) -> list[dict[str, Any]]:
        left_out = unmeasured(self.context.config.run, self.settings.train)
        records = []
        for entry in trainer.state.log_history:
            if "loss" in entry:
                numbers = {k: v for k, v in entry.items() if isinstance(v, int | float) and k not in left_out}
                # In float16 a gradient may be infinite, and is then passed over. No loss is: the guard stops there.
                kept = {key: round(float(value), 6) for key, value in numbers.items() if math.isfinite(value)}
                records.append({**kept, "step": entry["step"], unit: entry["step"] * self.tokens_per_step})
        return records


@contextlib.contextmanager
def optimized_for(trainer: Any, run: RunSettings, stage: str) -> Iterator[None]:
    """Give a trainer's model its attention, compiled layers, and a heap that keeps what steps free.

    Raises ConfigError for an attention or a compilation that is not available, and where documents share rows that the
    model cannot keep apart.
    """
    device, model = device_of(run), trainer.model
    in_one_piece = run.compile != "none" or trainer.args.torch_compile
    with (
        with_attention(model, run, device, in_one_piece=in_one_piece) as attention,
        compiled(model, run, stage) as layers,
        heap.keep_heap(run, device) as kept,
        beside(applied.teacher if (applied := getattr(trainer, "applied", None)) else None, run),
    ):
        if isinstance(trainer.data_collator, RowCollator) and not keeps_apart(model):
            whole = "run.parallelism=ddp, " if run.parallelism == "fsdp2" and ranks.size() > 1 else ""
            raise ConfigError(
                f"{stage}.packing=isolated: the documents of a row would see each other, as {model.config.model_type} "
                f"models do not go by positions with the attention '{attention}'. Use {whole}another checkpoint, or "
                f"{stage}.packing=trl, where they may see each other."
            )
        memory_kept = "kept" if kept else "as usual"
        logger.info("%s: attention %s, %d compiled layers, heap %s", stage, attention, layers, memory_kept)
        yield


@contextlib.contextmanager
def _stopped_first(stop: stopping.Stop) -> Iterator[None]:
    """Raise Preempted instead of ConfigError after a signal: it ends torch's compilers too, which then fail."""
    try:
        yield
    except ConfigError:
        if stop.asked:
            raise Preempted(stop.signum) from None
        raise


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def skip_batches(trainer: Trainer, rows: Any, steps: Sequence[tuple[int, int]]) -> None:
    """Leave the rows of some steps out of a trainer's data; where it draws them at random, use another order."""
    if not steps:
        return
    arguments = trainer.args
    in_order = arguments.train_sampling_strategy == "sequential" or not getattr(arguments, "shuffle_dataset", True)
    if not in_order or len(rows) % arguments.max_steps:
        arguments.data_seed = arguments.seed + len(steps)
        return
    size = len(rows) // arguments.max_steps
    blocks = without_skipped(range(arguments.max_steps), steps)
    trainer.train_dataset = rows.select([block * size + place for block in blocks for place in range(size)])
