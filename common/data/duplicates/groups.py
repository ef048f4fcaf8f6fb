"""Which rows belong together, as an array that says for each row the first one of its group; on disk, however many.

Usage: `kept = new_groups(path, 1000)`; `join(kept, a, b)`; `flatten(kept)`; `kept[7]`.

It is a union-find over arrays: a row points at an earlier one, or at itself if it is the first. The order of the pairs
does not change the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Rows = np.ndarray[Any, np.dtype[Any]]
SLICE = 1 << 20  # rows that are handled at once


def new_groups(path: Path, rows: int) -> Rows:
    """Return an array in a new file in which each row is a group of its own."""
    if not rows:
        path.touch()
        return np.empty(0, "<u8")
    kept: Rows = np.memmap(path, "<u8", mode="w+", shape=(rows,))
    for start in range(0, rows, SLICE):
        end = min(rows, start + SLICE)
        kept[start:end] = np.arange(start, end, dtype="<u8")
    return kept


def roots(kept: Rows, rows: Rows) -> Rows:
    """Return the first row of the group of each of some rows; the way to it is shorter from then on."""
    found = kept[rows]
    while True:
        further = kept[found]
        if np.array_equal(found, further):
            return found
        kept[rows] = found = further


def join(kept: Rows, first: Rows, second: Rows) -> None:
    """Put the two rows of each pair into one group."""
    while len(first):
        first, second = roots(kept, first), roots(kept, second)
        apart = first != second
        first, second = first[apart], second[apart]
        kept[np.maximum(first, second)] = np.minimum(first, second)  # of several for one row, one; the rest come again


def flatten(kept: Rows) -> None:
    """Let each row point at the first one of its group."""
    for start in range(0, len(kept), SLICE):
        rows = np.arange(start, min(len(kept), start + SLICE), dtype="<u8")
        kept[rows] = roots(kept, rows)
