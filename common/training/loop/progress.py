"""What a training does between steps: the bar, checkpoints by time, the guard, and stopping in good order.

Usage: `trainer.add_callback(progress_of(context, tokens_per_step, trainer, bar, guard, stop, before=seconds))`.

All processes decide alike: what one of them saw or was told is shared at the end of every step. A checkpoint counts
once `done.json` is in it, which is written when every process has written its part.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings
from common.cost.pace import Stopwatch
from common.store.artifacts import write_json
from common.training.distributed import parallel, ranks
from common.training.loop.loss_guard import LossSpikeGuard
from common.training.loop.stopping import Stop
from common.training.patches import note_losses

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from common.stage import StageContext

DONE = "done.json"


def form_of(run: RunSettings) -> str:
    """Return how a checkpoint holds the model: what is sharded can be read by any number of shards, and by no other."""
    return f"as {run.parallelism} shards it" if parallel.is_sharded(run) else "whole by each process"


def newest_whole(folder: Path, at_most: int | None = None) -> tuple[Path | None, float, str]:
    """Return the newest whole checkpoint, up to a step, the seconds spent before it, and its form; newer ones go."""
    whole: dict[int, tuple[Path, float, str]] = {}
    for step, path in checkpoints(folder):
        noted = _whole(path)
        if noted is None or (at_most is not None and step > at_most):
            shutil.rmtree(path)
        else:
            whole[step] = (path, *noted)
    return whole[max(whole)] if whole else (None, 0.0, "")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a training with their steps, whole or not."""
    return [(int(path.name.split("-")[1]), path) for path in folder.glob("checkpoint-*")]


def reached(folder: Path) -> tuple[int, int]:
    """Return the step of the newest whole checkpoint and the steps of the training; zeros where there is none."""
    whole = [(step, path) for step, path in checkpoints(folder) if _whole(path) is not None]
    if not whole:
        return 0, 0
    try:
        state = json.loads((max(whole)[1] / "trainer_state.json").read_text(encoding="utf-8"))
        return int(state["global_step"]), int(state["max_steps"])
    except (OSError, ValueError, KeyError):  # a run that goes on has removed it meanwhile
        return 0, 0


def _whole(folder: Path) -> tuple[float, str] | None:
    """Return the seconds and the form recorded in a checkpoint whose files have their recorded sizes, or None."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        noted = float(done["seconds"]), str(done["form"])
        intact = all((folder / name).stat().st_size == size for name, size in done["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return noted if intact else None


def _finish(folder: Path, seconds: float, form: str) -> None:
    """Mark a checkpoint as whole."""
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    write_json(folder / DONE, {"files": files, "seconds": seconds, "form": form})


def memory_used() -> str:
    """Return the most memory that this process has held so far: of its GPU where it trains on one, else its own."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


def progress_of(
    context: StageContext,
    tokens_per_step: int,
    trainer: Any,
    bar: Any,
    guard: LossSpikeGuard,
    stop: Stop,
    *,
    before: float,
) -> Any:
    """Return the callback of one training; `before` are the seconds spent by attempts before it."""
    from transformers import TrainerCallback

    run = context.config.run

    class Progress(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
        def __init__(self) -> None:
            self.started = self.saved = time.monotonic()
            self.loss: Any = None  # of the step that runs, still on its device
            self.last: Any = None  # of the step before it
            self.stopwatch = Stopwatch(context, tokens_per_step)
            note_losses(trainer, self.note)

        def note(self, loss: Any) -> None:
            self.loss = loss if self.loss is None else self.loss + loss

        def seconds(self) -> float:
            return before + time.monotonic() - self.started

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            parallel.check(trainer, run)
            self.loss = self.last = None
            self.saved = time.monotonic()
            bar.update(state.global_step * tokens_per_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(state.global_step * tokens_per_step)
            due = time.monotonic() - self.saved >= 60 * run.checkpoint_minutes
            last, self.last, self.loss = self.last, self.loss, None
            if ranks.is_main_process():
                self.stopwatch.step()
            self._decide(control, state, last, due=due)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if ranks.is_main_process():
                self.stopwatch.finish()
            if self.last is not None and not guard.trip:
                self._decide(control, state, self.last, due=False)

        def _decide(self, control: Any, state: Any, loss: Any, *, due: bool) -> None:
            """Share what this process saw, and let all of them go on, save, or stop."""
            seen = ranks.all_gather([0.0 if loss is None else float(loss), float(stop.signum), float(due)])
            if loss is not None:
                guard.note(sum(row[0] for row in seen) / len(seen))
            stop.signum = stop.signum or int(max(row[1] for row in seen))
            if guard.trip:
                control.should_training_stop = True
            elif stop.asked:
                control.should_save = control.should_training_stop = True
            # Where another callback stops the training, one would go on from there instead of stopping again.
            elif seen[0][2] and state.global_step < state.max_steps and not control.should_training_stop:
                control.should_save = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                bar.note(f"loss {float(logs['loss']):.3f}, {memory_used()}")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ranks.barrier()
            if ranks.is_main_process():
                _finish(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.seconds(), form_of(run))
            self.saved = time.monotonic()

    callback: TrainerCallback = Progress()
    return callback
