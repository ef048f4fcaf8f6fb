"""Watch the loss of every step: a loss that is no number, or stays far above what it was, takes the training back.

Usage: `guard = LossSpikeGuard(settings.guard, folder)`; `guard.note(loss)` after a step; `guard.trip` says why.

What was learned since the last checkpoint is given up, the rows of those steps are passed over, and training goes on
behind them (as for PaLM: Chowdhery et al. 2022, arXiv 2204.02311, section 5.1). What was passed over is written down
first, so that a run which is killed later passes over the same.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from common.config.base import GuardSettings
from common.store.artifacts import write_json
from common.training.distributed import ranks

FILE = "passed_over.json"


class LossSpikeGuard:
    """The losses of the last steps, and the steps whose rows were passed over."""

    def __init__(self, settings: GuardSettings, folder: Path) -> None:
        self.settings = settings
        self.path = folder / FILE
        self.recent: deque[float] = deque(maxlen=settings.window)
        self.high = 0  # steps in a row that were too high
        self.trip = ""
        self._gone: list[tuple[int, int]] = []

    def begin(self) -> None:
        """Read what a run that was killed passed over, for all processes alike."""
        self._gone = ranks.broadcast(self._read() if ranks.is_main_process() else [])

    def note(self, loss: float) -> None:
        """Look at the loss of one step, in whatever unit it has."""
        limit = self._limit()
        if not math.isfinite(loss):
            self.trip = "the loss became NaN or infinite"
        elif limit is not None and loss > limit:
            self.high += 1
            if self.high >= self.settings.patience:
                usual = statistics.median(self.recent)
                self.trip = f"the loss rose from {usual:.3f} to {loss:.3f} for {self.high} steps"
        else:
            self.high = 0
            self.recent.append(loss)

    def _limit(self) -> float | None:
        if self.settings.spike is None or len(self.recent) < self.settings.window:
            return None
        return self.settings.spike * statistics.median(self.recent)

    def passed_over(self) -> list[tuple[int, int]]:
        """Return (first, last) of the steps whose rows are left out, in the order in which that was found."""
        return list(self._gone)

    def _read(self) -> list[tuple[int, int]]:
        if not self.path.is_file():
            return []
        return [(first, last) for first, last in json.loads(self.path.read_text(encoding="utf-8"))]

    def pass_over(self, first: int, last: int) -> None:
        """Write down that the rows of some steps are left out, and begin to look anew."""
        self._gone.append((first, last))
        if ranks.is_main_process():
            write_json(self.path, self._gone)
        self.recent.clear()
        self.high, self.trip = 0, ""


def without(blocks: Sequence[int], passed_over: Sequence[tuple[int, int]]) -> list[int]:
    """Return as many blocks of rows, one for a step: without those passed over, the first ones once more at the end.

    Steps count from 1, and a later entry of `passed_over` speaks of the order that the earlier ones have made.
    """
    order = list(blocks)
    for first, last in passed_over:
        gone = order[first - 1 : last]
        kept = order[: first - 1] + order[last:]
        again = [block for block in kept if block not in gone]
        order = kept + [again[place % len(again)] for place in range(len(gone))]
    return order
