"""What a training does between steps: progress bar, checkpoints by time, loss guard, and stopping at a signal.

Usage: `trainer.add_callback(Progress(context, tokens_per_step, trainer, bar, guard, stop, before=seconds).callback())`.

All processes decide alike: losses and signals are shared at the end of every step. A trainer checkpoint counts once it
contains `done.json`, which is written after every process has written its part.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.json import UNREADABLE, read_json
from common.config.schema import RunSettings
from common.cost.pace import Stopwatch
from common.store.artifacts import flush, write_json
from common.store.manifest import list_files
from common.training.callbacks import callback
from common.training.distributed import parallel, ranks
from common.training.loop.loss_guard import LossSpikeGuard
from common.training.loop.stopping import Stop
from common.training.patches import note_gradients, note_losses

if TYPE_CHECKING:
    from common.stage import StageContext

DONE = "done.json"


def form_of(run: RunSettings) -> str:
    """Return how a trainer checkpoint holds the model. Shards can be read by any number of processes."""
    return f"sharded by {run.parallelism}" if parallel.is_sharded(run) else "whole in each process"


def newest_whole(folder: Path, at_most: int | None = None) -> tuple[Path | None, float, str]:
    """Return the newest whole trainer checkpoint up to a step, the seconds before it, its form. Remove newer ones."""
    whole: dict[int, tuple[Path, float, str]] = {}
    for step, path in checkpoints(folder):
        noted = _whole(path)
        if noted is None or (at_most is not None and step > at_most):
            shutil.rmtree(path)
        else:
            whole[step] = (path, *noted)
    return whole[max(whole)] if whole else (None, 0.0, "")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the trainer checkpoints in a folder, whole or not."""
    return [(int(path.name.split("-")[1]), path) for path in folder.glob("checkpoint-*")]


def reached(folder: Path) -> tuple[int, int]:
    """Return the step of the newest whole trainer checkpoint and the steps of the training; zeros if there is none."""
    whole = [(step, path) for step, path in checkpoints(folder) if _whole(path) is not None]
    if not whole:
        return 0, 0
    try:
        state = read_json(max(whole)[1] / "trainer_state.json", strict=False)
        return int(state["global_step"]), int(state["max_steps"])
    except UNREADABLE:  # a running stage has removed it meanwhile
        return 0, 0


def _whole(folder: Path) -> tuple[float, str] | None:
    """Return the seconds and the form recorded in a checkpoint whose files have their recorded sizes, or None."""
    try:
        done = read_json(folder / DONE)
        noted = float(done["seconds"]), str(done["form"])
        intact = all((folder / name).stat().st_size == size for name, size in done["files"].items())
    except UNREADABLE:
        return None
    return noted if intact else None


def finish(folder: Path, seconds: float, form: str) -> None:
    """Mark a checkpoint as whole, once all of it is on the disk."""
    files = {}
    for path in list_files(folder):
        flush(path)
        files[path.relative_to(folder).as_posix()] = path.stat().st_size
    write_json(folder / DONE, {"files": files, "seconds": seconds, "form": form})


def memory_used() -> str:
    """Return the peak memory of this process: on its GPU where it trains on one, else in main memory."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


class Progress:
    """The state of one training between its steps; `before` are the seconds of earlier attempts."""

    def __init__(
        self, context: StageContext, tokens_per_step: int, trainer: Any, bar: Any, guard: LossSpikeGuard, stop: Stop,
        *, before: float,
    ) -> None:  # fmt: skip
        self.run, self.tokens_per_step, self.trainer = context.config.run, tokens_per_step, trainer
        self.bar, self.guard, self.stop, self.before = bar, guard, stop, before
        self.started = self.saved = time.monotonic()
        self.loss: Any = None  # of the present step, still on its device
        self.last: Any = None  # of the step before it
        self.gradient: Any = 0.0  # norm of the present step's, still on its device
        self.last_gradient: Any = 0.0
        self.stopwatch = Stopwatch(context, tokens_per_step)
        note_losses(trainer, self.note)
        note_gradients(trainer, self.note_gradient)

    def callback(self) -> Any:
        return callback(
            on_train_begin=self.train_begin, on_step_end=self.step_end, on_train_end=self.train_end, on_log=self.log,
            on_save=self.save,
        )  # fmt: skip

    def note(self, loss: Any) -> None:
        """Add the loss of a micro batch to that of the present step."""
        self.loss = loss if self.loss is None else self.loss + loss

    def note_gradient(self, norm: Any) -> None:
        """Take the norm of the present step's gradient."""
        self.gradient = norm

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        parallel.check(self.trainer, self.run)
        self.loss = self.last = None
        self.gradient = self.last_gradient = 0.0
        self.saved = time.monotonic()
        self.bar.update(state.global_step * self.tokens_per_step)

    def step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step * self.tokens_per_step)
        due = time.monotonic() - self.saved >= 60 * self.run.checkpoint_minutes
        last, self.last, self.loss = self.last, self.loss, None
        before, self.last_gradient = self.last_gradient, self.gradient
        if ranks.is_main_process():
            self.stopwatch.step()
        self._decide(control, state, last, before, due=due)

    def train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if ranks.is_main_process():
            self.stopwatch.finish()
        if self.last is not None and not self.guard.problem:
            self._decide(control, state, self.last, self.last_gradient, due=False)

    def _decide(self, control: Any, state: Any, loss: Any, gradient: Any, *, due: bool) -> None:
        """Share loss, signal and clock with all processes, and decide: continue, save, or stop.

        `loss` and `gradient` are of the step before, which the device has finished: reading them does not wait.
        """
        guard, stop = self.guard, self.stop
        numbers = [0.0 if loss is None else float(loss), float(stop.signum), float(due), float(gradient)]
        seen = ranks.all_gather(numbers)
        if loss is not None:
            scaled = getattr(self.trainer.accelerator, "scaler", None) is not None
            guard.note(sum(row[0] for row in seen) / len(seen), sum(row[3] for row in seen), scaled=scaled)
            guard.forget(state.global_step - 1, state.max_steps)
        stop.signum = stop.signum or int(max(row[1] for row in seen))
        if guard.problem:
            control.should_training_stop = True
        elif stop.asked:
            control.should_save = control.should_training_stop = True
        # Where another callback stops the training, a checkpoint would let a resumed run train past the stop.
        elif seen[0][2] and state.global_step < state.max_steps and not control.should_training_stop:
            control.should_save = True

    def log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.note(f"loss {float(logs['loss']):.3f}, {memory_used()}")

    def save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ranks.barrier()
        if ranks.is_main_process():
            finish(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.seconds(), form_of(self.run))
        self.saved = time.monotonic()
