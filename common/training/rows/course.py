"""What a stage reads in the course of its steps: the real share of each source, and what its rows are ordered by.

Usage: `course(order, {"web": 900, "books": 100}, rows, steps=400, by="perplexity")`, once the final order is there.

It counts packed rows of one length, so that shares of rows are shares of tokens. It is what was ordered, not what was
asked for: that is `common.config.mixture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.config.mixture import LENGTH
from common.training.rows.shards import SCORE

if TYPE_CHECKING:
    import numpy as np

PARTS = 10  # of the steps
BATCH = 1000  # packed rows that are read at once


def course(
    order: np.ndarray, sizes: Mapping[str, int], rows: Any, *, steps: int, by: str | None = None
) -> list[dict[str, Any]]:
    """Return, for each tenth of the steps, the steps, the real shares by source, and the mean of what orders them.

    `sizes` are the packed rows of the stage's own sources, in the order in which they stand; all behind them are
    replay. `by` is the length of documents, or a score of theirs: a mean over own rows of each tenth.
    """
    import numpy as np

    ends = np.cumsum(list(sizes.values()))
    owners = np.searchsorted(ends, order, side="right")  # one above the last source is replay
    number = int(ends[-1]) if len(ends) else 0
    values = None if by is None else means_of_rows(rows, number, by)
    per_step, found = len(order) // steps, []
    bounds = np.unique(np.round(np.linspace(0, steps, PARTS + 1)).astype(int))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        part = slice(first * per_step, last * per_step)
        counts = np.bincount(owners[part], minlength=len(sizes) + 1) / (part.stop - part.start)
        line: dict[str, Any] = {"first": first + 1, "last": last, "replay": round(float(counts[-1]), 4)}
        line["shares"] = {name: round(float(share), 4) for name, share in zip(sizes, counts, strict=False)}
        own = order[part][owners[part] < len(sizes)]
        if values is not None and len(own):
            line["mean"] = round(float(values[own].mean()), 6)
        found.append(line)
    return found


def means_of_rows(rows: Any, number: int, by: str) -> np.ndarray:
    """Return of each of the first packed rows the mean length of its documents, or the mean score of its tokens."""
    import numpy as np

    found = [np.zeros(0)]
    for batch in rows.select(range(number)).with_format("arrow").iter(batch_size=BATCH):
        lengths, places = _flat(batch, "seq_lengths")
        values, weights = (
            (lengths, np.ones_like(lengths)) if by == LENGTH else (_flat(batch, f"{SCORE}{by}")[0], lengths)
        )
        total, weight = (np.bincount(places, weights=one, minlength=len(batch)) for one in (values * weights, weights))
        found.append(total / np.maximum(weight, 1))
    return np.concatenate(found)


def _flat(batch: Any, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a column of lists one after another, and the row that each of them is in."""
    import numpy as np

    lists = batch[column].combine_chunks()
    sizes = np.diff(lists.offsets.to_numpy())
    return lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64), np.repeat(np.arange(len(sizes)), sizes)
