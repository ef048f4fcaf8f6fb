"""Watch every step. A loss or gradient that is no number, or a loss far above the usual, takes the training back.

Usage: `guard = LossSpikeGuard(settings.guard, folder)`; `guard.note(loss)` after each step; `if guard.problem: …`.

The training loop rolls back to a trainer checkpoint and skips the batches of the spike (as for PaLM: Chowdhery et al.
2022, arXiv 2204.02311, section 5.1). The skipped steps are written down first, so a run that is killed later skips the
same ones.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common.config.base import GuardSettings
from common.config.json import as_written, read_json
from common.store.artifacts import write_json
from common.training.distributed import ranks

FILE = "skipped_steps.json"
HALVINGS = 40  # of a gradient's scale, which begins at 2**16; after so many in a row no float16 gradient is too large


class LossSpikeGuard:
    """The losses of the last steps, and the steps whose batches are skipped."""

    def __init__(self, settings: GuardSettings, folder: Path, changes: Sequence[float] = ()) -> None:
        """`changes` are shares of all steps at which other text begins, whose loss may be another."""
        self.settings, self.changes = settings, changes
        # Of all losses of the window the median, or the highest, where a loss differs by what documents a batch holds.
        self.usual: Callable[[Iterable[float]], float] = statistics.median
        self.path = folder / FILE
        self.recent: deque[float] = deque(maxlen=settings.window)
        self.high = 0  # steps in a row whose loss was too high
        self.unscaled = 0  # steps in a row whose gradient was no number, where gradients are scaled
        self.problem = ""
        self.skipped: list[tuple[int, int]] = []  # (first, last) steps, in the order in which they were found

    def restore(self) -> None:
        """Read what a killed run skipped; all processes get the same."""
        with as_written(self.path):
            found = read_json(self.path, strict=False) if self.path.is_file() else []
            skipped = [(int(first), int(last)) for first, last in found]
        self.skipped = list(ranks.broadcast(skipped))

    def forget(self, step: int, steps: int) -> None:
        """Forget the usual loss where other text begins behind a step, or may begin, as steps were skipped before.

        The last phase ends with the training; behind it the first rows come again in the place of skipped ones.
        """
        gone = sum(last - first + 1 for first, last in self.skipped)
        if any(0 <= math.floor(share * steps) - step <= gone for share in self.changes):
            self.recent.clear()

    def note(self, loss: float, gradient: float = 0.0, *, scaled: bool = False) -> None:
        """Check the loss of one step, in whatever unit it has, and the norm of its gradient.

        Where gradients are `scaled`, as in float16, one that is no number only lowers the scale, until that is used up.
        """
        self.unscaled = 0 if math.isfinite(gradient) else self.unscaled + 1
        usual = self.usual(self.recent) if len(self.recent) == self.settings.window else math.inf
        if not math.isfinite(loss):
            self.problem = "the loss became NaN or infinite"
        elif self.unscaled > (HALVINGS if scaled else 0):
            self.problem = "the gradient became NaN or infinite"
        elif self.settings.spike is not None and loss > self.settings.spike * usual:
            self.high += 1
            if self.high >= self.settings.patience:
                self.problem = f"the loss rose from {usual:.3f} to {loss:.3f} for {self.high} steps"
        else:
            self.high = 0
            self.recent.append(loss)

    def skip(self, first: int, last: int) -> None:
        """Write down that the batches of some steps are skipped, and forget the losses seen so far."""
        self.skipped.append((first, last))
        if ranks.is_main_process():
            write_json(self.path, self.skipped)
        self.recent.clear()
        self.high, self.unscaled, self.problem = 0, 0, ""


def without_skipped(blocks: Sequence[int], skipped: Sequence[tuple[int, int]]) -> list[int]:
    """Return as many blocks of rows, one per step: skipped ones are left out, and the first come again at the end.

    Steps count from 1. A later entry of `skipped` refers to the order that the earlier ones have made.
    """
    order = list(blocks)
    for first, last in skipped:
        gone = order[first - 1 : last]
        kept = order[: first - 1] + order[last:]
        again = [block for block in kept if block not in gone]
        order = kept + [again[place % len(again)] for place in range(len(gone))]
    return order
