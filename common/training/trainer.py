"""TRL's trainers with the per-step cost removed where it buys nothing, and checkpoints that can be trusted.

Usage: `loop = TrainingLoop(context, work); loop.run(build_trainer)` trains, resuming a killed run by itself.

`LeanSFTTrainer` computes the same loss as TRL's, without the entropy and accuracy over all logits that TRL
measures at every step. Trainer checkpoints live in the scratch folder only; one counts once `done.json` is in it.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.artifacts import write_json, writing
from common.errors import ContractError
from common.training.adapters import widen
from common.training.attention import attending
from common.training.device import device_of
from common.training.scoring import unmeasured

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

    from common.stages import StageContext

logger = logging.getLogger(__name__)

DONE = "done.json"
# Above this many logits in one forward pass TRL's chunked loss saves more memory than it costs time.
LEAN_LOGITS = 64_000_000


@functools.cache
def lean_sft_trainer() -> type[Trainer]:
    """Return the SFTTrainer subclass; a function, so that importing this module does not import TRL."""
    import torch
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class LeanSFTTrainer(SFTTrainer):  # type: ignore[misc] # TRL is untyped
        """SFTTrainer whose training loss is one cross-entropy over the logits of small models."""

        lean = True

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["input_ids", "labels", "seq_lengths"]

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            vocabulary = self.model.config.vocab_size
            small = inputs["input_ids"].numel() * vocabulary <= LEAN_LOGITS
            plain = self.args.loss_type == "nll" and not self.aux_loss_enabled and self.label_smoother is None
            if not (self.lean and small and plain and self.model.training and not return_outputs):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels_BT = inputs["labels"]
            logits_BTV = model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits
            total = cross_entropy(
                logits_BTV[:, :-1].float().flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=-100, reduction="sum"
            )
            learned = (labels_BT[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = total / torch.as_tensor(learned).clamp(min=1)
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes
            return loss

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            # TRL writes a model card per checkpoint; ours is written once, for the whole chain.
            super(SFTTrainer, self)._save_checkpoint(model, trial)

    return LeanSFTTrainer


class TrainingLoop:
    """One stage's training: resume from the last whole checkpoint, report progress, return the log."""

    def __init__(self, context: StageContext, tokens_per_step: int) -> None:
        self.context = context
        self.folder = context.work / "trainer"
        self.tokens_per_step = tokens_per_step
        self.seconds = 0.0  # inside the loop, over all attempts
        self.steps = 0

    def run(self, trainer: Trainer, unit: str = "tokens") -> list[dict[str, Any]]:
        """Train to the end and return the log, one record per logging step with tokens, or answers, seen so far."""
        from transformers.trainer_callback import PrinterCallback

        resume, before = self._last_checkpoint()
        if resume is not None:
            logger.info("%s: resuming from %s", self.context.stage, resume.name)
            self.context.console.line(f"  {self.context.stage}: resuming at step {resume.name.split('-')[1]}")
        total = trainer.args.max_steps
        with self.context.console.progress(self.context.stage, total * self.tokens_per_step, unit) as bar:
            callback = _progress_callback(self, bar, before)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(callback)
            widen(trainer.model)
            run = self.context.config.run
            with writing(self.folder), attending(trainer.model, run, device_of(run)) as attention:
                logger.info("%s: attention %s", self.context.stage, attention)
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        self.seconds = callback.seconds()
        self.steps = trainer.state.global_step
        return self._log(trainer, unit)

    def _log(self, trainer: Trainer, unit: str) -> list[dict[str, Any]]:
        left_out = unmeasured(self.context.config.run, getattr(self.context.settings, "train", {}))
        records = []
        for entry in trainer.state.log_history:
            if "loss" in entry:
                numbers = {k: v for k, v in entry.items() if isinstance(v, int | float) and k not in left_out}
                kept = {key: round(float(value), 6) for key, value in numbers.items()}
                records.append({**kept, "step": entry["step"], unit: entry["step"] * self.tokens_per_step})
        if records and not all(_finite(record["loss"]) for record in records):
            raise ContractError(
                f"Stage {self.context.stage}: the loss became NaN or infinite; nothing is kept. Lower "
                f"{self.context.stage}.train.learning_rate, or set train.bf16=false."
            )
        return records

    def _last_checkpoint(self) -> tuple[Path | None, float]:
        """Return the newest whole checkpoint and the seconds spent before it; half-made ones are removed."""
        whole: list[tuple[int, Path, float]] = []
        for folder in self.folder.glob("checkpoint-*"):
            seconds = _whole(folder)
            if seconds is None:
                shutil.rmtree(folder)
            else:
                whole.append((int(folder.name.split("-")[1]), folder, seconds))
        if not whole:
            return None, 0.0
        _, folder, seconds = max(whole)
        return folder, seconds


def write_log(records: list[dict[str, Any]], path: Path) -> None:
    """Write the training log as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _whole(folder: Path) -> float | None:
    """Return the seconds recorded in a checkpoint whose files all have their recorded sizes, or None."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        intact = all((folder / name).stat().st_size == size for name, size in done["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return float(done["seconds"]) if intact else None


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _progress_callback(loop: TrainingLoop, bar: Any, before: float) -> Any:
    """Return the callback that moves the bar, saves by time, and marks a checkpoint once it is whole."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
        def __init__(self) -> None:
            self.started = self.saved = time.monotonic()

        def seconds(self) -> float:
            return before + time.monotonic() - self.started

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = self.saved = time.monotonic()
            bar.update(state.global_step * loop.tokens_per_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(state.global_step * loop.tokens_per_step)
            due = time.monotonic() - self.saved >= loop.context.config.run.checkpoint_seconds
            # Where another callback stops the training, one would go on from there instead of stopping again.
            if due and state.global_step < state.max_steps and not control.should_training_stop:
                control.should_save = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                bar.note(f"loss {float(logs['loss']):.3f}")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
            write_json(folder / DONE, {"files": files, "seconds": self.seconds()})
            self.saved = time.monotonic()

    callback: TrainerCallback = Progress()
    return callback
