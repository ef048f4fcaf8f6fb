"""Which documents share a row: best fit, largest first, from their lengths alone.

Usage: `order, sizes = best_fit(lengths, 2048)`; row i holds the next `sizes[i]` entries of `order`.

The rows are those of TRL's packing (Ding et al. 2024, arXiv 2404.10830, section 3), which has to hold the tokens too; a
test compares both. Reading and writing tokens is `common.training.rows.shards`.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Fragments(NamedTuple):
    """Parts of documents of at most one row: where each begins among all tokens, and its length."""

    starts: np.ndarray
    lengths: np.ndarray


def split(starts: np.ndarray, lengths: np.ndarray, most: int) -> Fragments:
    """Cut documents into parts of at most `most` tokens; only the last of each is shorter."""
    import numpy as np

    lengths = lengths.astype(np.int64)
    parts = -(-lengths // most)
    within = (np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)) * most
    return Fragments(np.repeat(starts, parts) + within, np.minimum(most, np.repeat(lengths, parts) - within))


def by_place(order: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same rows in the order of the mean place of their parts."""
    import numpy as np

    rows = np.repeat(np.arange(len(sizes)), sizes)
    means = np.bincount(rows, weights=order, minlength=len(sizes)) / np.maximum(sizes, 1)
    ranks = np.argsort(means, kind="stable")
    return order[np.argsort(np.argsort(ranks)[rows], kind="stable")], sizes[ranks]


def best_fit(lengths: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of parts in the order of their rows, and how many of them each row holds.

    The longest comes first; each goes where it leaves the least room, and of such rows into the one that has waited
    longest.
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    num_full = int(np.count_nonzero(lengths == most))  # each has a row of its own
    rows: list[list[int]] = []
    waiting: dict[int, deque[list[int]]] = {}  # rows by the room that is left
    rooms = 0  # bit n: some row has room for n more
    for place, length in zip(order[num_full:].tolist(), lengths[order[num_full:]].tolist(), strict=True):
        row: list[int] = []
        room = most
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = waiting[room].popleft()
            if not waiting[room]:
                rooms ^= 1 << room
        else:
            rows.append(row)
        row.append(place)
        if left := room - length:
            waiting.setdefault(left, deque()).append(row)
            rooms |= 1 << left
    packed = np.fromiter(itertools.chain.from_iterable(rows), np.int64, len(order) - num_full)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.concatenate([order[:num_full], packed]), np.concatenate([np.ones(num_full, np.int64), sizes])
