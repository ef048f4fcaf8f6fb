"""Keep rows by a score: above or below a threshold, or all but a share of the lowest or highest.

Usage: settings inherit `SelectionSettings`, and `look` returns `ByScore(settings, context, score, "score")`.

Rows of equal score stay together, so that a share may drop fewer rows than it says, and never more. It holds 8 bytes
for each row while it decides. What is scored is for the block to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from common.config.base import Share
from common.config.blocks import BlockContext, BlockSettings, Drop, Row, Task
from common.data.shards import write_array
from common.data.texts import with_score
from common.store.artifacts import write_json
from common.store.manifest import read_mapping

BOUNDS = "bounds.json"
UNUSABLE = -math.inf  # in place of a score
RULES = ("at_least", "at_most", "drop_lowest", "drop_highest")


class SelectionSettings(BlockSettings):
    """Which rows stay, by their score."""

    at_least: float | None = Field(None, description="rows with a lower score go")
    at_most: float | None = Field(None, description="rows with a higher score go")
    drop_lowest: Share = Field(0.0, description="share of the rows, those of the lowest scores, that goes")
    drop_highest: Share = Field(0.0, description="share of the rows, those of the highest scores, that goes")
    keep_all: bool = Field(False, description="drop none, and only leave the score on rows")

    @model_validator(mode="after")
    def _selects(self) -> SelectionSettings:
        drops = self.at_least is not None or self.at_most is not None or self.drop_lowest or self.drop_highest
        if not drops and not self.keep_all:
            raise ValueError(f"nothing says which rows stay; set one of {', '.join(RULES)}, or keep_all: true")
        if drops and self.keep_all:
            raise ValueError(f"keep_all drops none, and {', '.join(RULES)} say which go; keep one of them")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is above at_most {self.at_most:g}, so that no row would stay")
        if self.drop_lowest + self.drop_highest >= 1:
            raise ValueError("drop_lowest and drop_highest drop all rows; lower one")
        return self


class ByScore:
    """Scores rows in the first pass, and keeps some of them in the second; see `common.config.blocks.TwoPass`."""

    def __init__(
        self, settings: SelectionSettings, context: BlockContext, score: Callable[[Row], float | None], what: str,
        name: str | None = None, stays: Callable[[Row], Row] = lambda row: row, unusable: str = "no score",
    ) -> None:  # fmt: skip
        """`score` returns None for a row that is not judged and stays. `what` is the score's name in reasons.

        It returns UNUSABLE for one that goes without being judged, for the reason `unusable`.

        `name` is what rows call it; by default the same. `stays` is given each row that is judged and stays.
        """
        self._settings, self._folder, self._score, self._what = settings, context.folder, score, what
        self._name, self._stays, self._unusable = name or what, stays, unusable

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows, and write their scores."""
        import numpy as np

        scores: list[float] = []
        for row in rows:
            score = self._score(row)
            scores.append(np.nan if score is None else score)
            yield row
        write_array(self._path(task.number), np.array(scores, dtype=np.float64))

    def decide(self, tasks: int) -> None:
        """Find the lowest and the highest score that stay."""
        import numpy as np

        scores = np.concatenate([np.zeros(0), *(self._read(number) for number in range(tasks))])
        scores = scores[~np.isnan(scores) & (scores != UNUSABLE)]
        low, high = self._settings.at_least, self._settings.at_most
        lowest, highest = (
            int(share * len(scores)) for share in (self._settings.drop_lowest, self._settings.drop_highest)
        )
        if lowest:
            quantile = float(np.partition(scores, lowest)[lowest])
            low = quantile if low is None else max(low, quantile)
        if highest:
            place = len(scores) - 1 - highest
            quantile = float(np.partition(scores, place)[place])
            high = quantile if high is None else min(high, quantile)
        write_json(self._folder / BOUNDS, {"low": low, "high": high, "scored": len(scores)})

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what drops rows beyond the bounds."""
        scores, bounds = self._read(task.number), read_mapping(self._folder / BOUNDS)
        low, high = bounds["low"], bounds["high"]

        def judge(place: int, row: Row) -> Row | Drop:
            score = float(scores[place])
            if score == UNUSABLE:
                return row if self._settings.keep_all else Drop(self._unusable)
            if low is not None and score < low:
                return Drop(f"{self._what} too low", f"{score:.4g}, least {low:.4g}")
            if high is not None and score > high:
                return Drop(f"{self._what} too high", f"{score:.4g}, most {high:.4g}")
            if math.isnan(score):  # it was not judged
                return row
            return self._stays(with_score(row, self._name, score))

        return judge

    def _path(self, number: int) -> Path:
        return self._folder / f"scores-{number:05d}.npy"

    def _read(self, number: int) -> Any:
        import numpy as np

        return np.load(self._path(number), allow_pickle=False)
