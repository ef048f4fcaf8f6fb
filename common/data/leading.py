"""A corpus of which only the first rows of each source are read: enough to see what a stage would make of them.

Usage: `part = Leading(corpus, sizes)`; `list(part.rows("sft"))`; `part.parts["sft"]["faq"].rows` of how many.

A source that has no more than these rows is read whole. Exams stay whole; one that is on the Hub, or in long files, is
left out. Accounts are those of the rows that were read. It offers what reading a training role asks for, not a whole
`common.data.corpus.Corpus`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Portion, Row
from common.data.sizes import RowSizes, size_of

ROWS = 2000  # of a source
BYTES = 500_000  # of a source
HUB_ROWS = 200  # of a source on the Hub
WORKERS = 8  # sources of the Hub that are read at once


@dataclass(frozen=True)
class Part:
    """What was read of a source."""

    rows: int
    whole: bool
    times: float  # that each row is used
    about: int | None  # rows that it has; none where nobody knows


class Leading:
    """The first rows of each source of a corpus, in the roles that train."""

    def __init__(self, corpus: Corpus, sizes: RowSizes) -> None:
        self._corpus, self._sizes = corpus, sizes
        self.parts: dict[str, dict[str, Part]] = {}  # by role and source
        self._read: dict[str, list[Row]] = {}
        self._counts: dict[str, dict[str, RowCount]] = {}

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the first rows of each source of a role that trains, and all rows of an exam."""
        if role not in self._read:
            exam = role.startswith(("questions_", "text_"))
            self._read[role] = list(self._corpus.rows(role)) if exam else self._take(role)
        yield from self._read[role]

    def _take(self, role: str) -> list[Row]:
        portions = self._corpus.portions(role, hub=True) or []
        with ThreadPoolExecutor(WORKERS) as pool:
            taken = list(pool.map(_first_rows, portions))
        counts, parts = self._counts.setdefault(role, {}), self.parts.setdefault(role, {})
        for portion, (_, whole) in zip(portions, taken, strict=True):
            count = portion.count
            if count is None:
                continue
            if not whole:  # one more was read, to see that there is more
                count.rows_in, count.rows_out = count.rows_in - 1, count.rows_out - 1
            share = 1.0 if whole else portion.share()
            about = round(count.rows_in / share) if share > 0 else None
            counts[count.source], parts[count.source] = count, Part(count.rows_in, whole, portion.times, about)
        return list(itertools.chain.from_iterable(rows for rows, _ in taken))

    def counts(self, role: str) -> Mapping[str, RowCount]:
        """Return the accounts of a role by source id, of the rows that were read."""
        return self._counts.get(role, {})

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the exams that rows of a role must not repeat, where they can be read in a moment."""
        known = {exam: self._sizes.of(exam) for exam in self._corpus.exam_roles(role)}
        return tuple(exam for exam, found in known.items() if found is not None and found.whole)


def _first_rows(portion: Portion) -> tuple[list[Row], bool]:
    """Return the first rows of a source, and whether there are no more."""
    most, read = HUB_ROWS if portion.far else ROWS, 0
    if portion.count is None:  # they are made here, in no order that a part would stand for
        return list(portion.rows), True
    rows: list[Row] = []
    for row in portion.rows:
        if len(rows) == most or read > BYTES:
            return rows, False
        rows.append(row)
        read += size_of(row).total
    return rows, True
