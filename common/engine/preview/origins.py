"""From which row the tokens of a packed row come: kept in a file while training's own code reads the rows.

Usage: `with Origins(folder, length) as origins: rows = build_rows(..., witness=origins)`; `origins.of(ids)`.

A packed row has tokens alone. A document is found again by a digest of its tokens, and a long one that packing cut by
that of each part. Memory grows by some bytes per document, not by its text.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from common.data.accounting import RowCount
from common.data.texts import texts_of
from common.errors import cut
from common.report.views import Reject
from common.training.rows.packing import IGNORED
from common.training.rows.witness import Witness

REJECTS = 2  # that are kept of each source and reason
LONGEST = 2000  # characters of a rejected row that are kept


class Origin(NamedTuple):
    """Where a document comes from."""

    number: int  # of the rows that were read, from 1
    start: int  # tokens of the document that stand in an earlier part
    length: int  # tokens of the whole document
    role: str
    row: dict[str, Any]
    changed: tuple[str, ...]


class Origins(Witness):
    """Hears of every row, and remembers those that were kept by their tokens."""

    def __init__(self, folder: Path, part: int) -> None:
        """`part` is how many tokens of a document fit a row: longer ones are cut there."""
        self._part, self._folder = part, folder
        self._places: dict[bytes, tuple[int, int]] = {}  # digest -> number of the row, and where its part begins
        self._offsets = array("Q")
        self._file = (folder / "origins.jsonl").open("w+b")
        self.learned: Counter[tuple[str, str]] = Counter()  # tokens with loss by role and source
        self.rejects: dict[tuple[str, str], list[Reject]] = {}

    def __enter__(self) -> Origins:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def kept(
        self, count: RowCount, row: dict[str, Any], ids: Sequence[int], labels: Sequence[int], changed: Sequence[str]
    ) -> None:
        length = len(ids)
        number = len(self._offsets)
        for start in range(0, length, self._part):
            key = _digest(ids[start : start + self._part])
            self._places.setdefault(key, (number, start))
        self._offsets.append(self._file.tell())
        facts = {"length": length, "role": count.role, "row": row, "changed": list(changed)}
        self._file.write(json.dumps(facts, default=str).encode() + b"\n")
        first = range(0, length, self._part)  # nothing precedes these, so they carry no loss
        unlearned = sum(labels[start] != IGNORED for start in first)
        self.learned[count.role, count.source] += length - labels.count(IGNORED) - unlearned

    def dropped(self, count: RowCount, row: dict[str, Any], reason: str) -> None:
        kept = self.rejects.setdefault((count.source, reason), [])
        if len(kept) < REJECTS:
            kept.append(Reject(count.source, reason, cut(" ⏐ ".join(filter(None, texts_of(row))), LONGEST)))

    def all_rejects(self) -> tuple[Reject, ...]:
        """Return the dropped rows that were kept to show."""
        return tuple(reject for found in self.rejects.values() for reject in found)

    def of(self, ids: Sequence[int]) -> Origin | None:
        """Return where the tokens of a document, or of a part of one, come from; None for what was not heard of."""
        found = self._places.get(_digest(ids))
        if found is None:
            return None
        number, start = found
        self._file.flush()
        self._file.seek(self._offsets[number])
        facts = json.loads(self._file.readline())
        return Origin(number + 1, start, facts["length"], facts["role"], facts["row"], tuple(facts["changed"]))


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=12).digest()
