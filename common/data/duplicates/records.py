"""Records on disk, sorted by a key, read in the order of their keys over many files at once.

Usage:
    files = [SortedFile(path, start=0, count=1000, offset=0), ...]
    for records in in_key_order(files, dtype): rows, heads = records["row"], group_heads(records, ["key"])

A key is a hash of 64 bits, so that a range of keys is a share of the records. What is in memory at once is a range,
however many records there are. Records with one key come together, ordered by their rows; if they are too many for
one piece, each further piece begins with the first of them again.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Records = np.ndarray[Any, np.dtype[Any]]
KEYS = 1 << 64
MOST = 1 << 18  # records in memory at once


@dataclass(frozen=True)
class SortedFile:
    """Some records in a file, sorted by key and then by their place in the part of the rows that they are of."""

    path: Path
    start: int  # bytes before the first of them
    count: int
    offset: int  # rows in the parts before this one


def sort_records(records: Records) -> Records:
    """Return records in the order of their fields."""
    names = records.dtype.names or ()
    return records[np.lexsort([records[name] for name in reversed(names)])]


def group_heads(records: Records, fields: Sequence[str]) -> Records:
    """Return for each of some sorted records the place of the first one whose fields are the same."""
    new = np.ones(len(records), dtype=bool)
    new[1:] = np.any([records[name][1:] != records[name][:-1] for name in fields], axis=0)
    return np.maximum.accumulate(np.where(new, np.arange(len(records)), 0))


def in_key_order(files: Sequence[SortedFile], dtype: np.dtype[Any], most: int = MOST) -> Iterator[Records]:
    """Yield all records in pieces, with the number of the row over all parts as "row" in place of "place"."""
    opened = [_Opened(file, dtype) for file in files if file.count]
    total = sum(one.file.count for one in opened)
    pieces = -(-total // most)
    for number in range(pieces):
        yield from _between(opened, number * KEYS // pieces, (number + 1) * KEYS // pieces, most)


def _between(opened: Sequence[_Opened], low: int, high: int, most: int) -> Iterator[Records]:
    """Yield the records whose keys are from low to below high."""
    spans = [(one.find(low), one.find(high)) for one in opened]
    count = sum(end - start for start, end in spans)
    if count <= most:
        if count:
            parts = [one.read(*span) for one, span in zip(opened, spans, strict=True) if span[0] < span[1]]
            yield sort_records(np.concatenate(parts))
    elif high - low > 1:
        middle = (low + high) // 2
        yield from _between(opened, low, middle, most)
        yield from _between(opened, middle, high, most)
    else:
        yield from _same_key(opened, spans, most)


def _same_key(opened: Sequence[_Opened], spans: Sequence[tuple[int, int]], most: int) -> Iterator[Records]:
    head: Records | None = None
    for one, (start, end) in zip(opened, spans, strict=True):
        for begin in range(start, end, most):
            found = one.read(begin, min(end, begin + most))
            yield found if head is None else np.concatenate([head, found])
            head = found[:1] if head is None else head


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    names = dtype.names or ()
    return np.dtype([("row", "<u8") if name == "place" else (name, dtype[name]) for name in names])


class _Opened:
    """A file whose keys can be looked up."""

    def __init__(self, file: SortedFile, dtype: np.dtype[Any]) -> None:
        self.file, self._dtype = file, dtype
        self._wide = _wide(dtype)

    def find(self, key: int) -> int:
        """Return how many records have a smaller key. Nothing is mapped: it would count as memory of the process."""
        size, fields = self._dtype.itemsize, self._dtype.fields
        assert fields is not None, "records have fields"
        start = self.file.start + fields["key"][1]
        with self.file.path.open("rb", buffering=0) as file:

            def key_at(place: int) -> int:
                return int.from_bytes(os.pread(file.fileno(), 8, start + place * size), "little")

            return bisect.bisect_left(range(self.file.count), key, key=key_at)

    def read(self, start: int, end: int) -> Records:
        size = self._dtype.itemsize
        found = np.fromfile(self.file.path, self._dtype, end - start, offset=self.file.start + start * size)
        wide = np.empty(len(found), self._wide)
        for name in self._dtype.names or ():
            if name == "place":
                wide["row"] = found[name] + np.uint64(self.file.offset)
            else:
                wide[name] = found[name]
        return wide
