"""Choose among the records of a source, and make rows of the chosen ones.

Usage: `for found in rows_of(source, record): ...`, of the records that `window(source, records)` lets through.

What the columns of a record become is `common.data.manifest.shapes`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from common.data.corpus import Row
from common.data.manifest.questions import with_answer_by
from common.data.manifest.readers import Record, pieces_of
from common.data.manifest.schema import Source
from common.data.manifest.shapes import shape_row
from common.data.manifest.values import ABSENT, UnusableRow, lacks, lookup
from common.errors import did_you_mean

FIRST_RECORDS = 100  # of a source with choices: they tell how all its answers name them


class Found(NamedTuple):
    """What a record gave: its place, and a row, or the reason why there is none."""

    where: str
    row: Row | UnusableRow
    whole: Row  # what the row was cut out of, or the row itself; empty without one
    detail: str = ""  # what the log says of the first row without one for this reason


def window(source: Source, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records of one file, or of one split, that `skip`, `take` and `every` let through."""
    end = None if source.take is None else source.skip + source.take
    return itertools.islice(records, source.skip, end, source.every)


def with_answers_told(source: Source, records: Iterator[Record]) -> tuple[Source, Iterator[Record]]:
    """Return a source that says how its answers name choices, by the first of its records, and all of these."""
    if source.answer_by is not None or (source.choices is None and "choices" not in source.columns):
        return source, records
    first = list(itertools.islice(records, FIRST_RECORDS))
    return with_answer_by(source, parts_of(source, first)), itertools.chain(first, records)


def parts_of(source: Source, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the parts of records that are used, as far as there are any."""
    for record in records:
        with contextlib.suppress(UnusableRow):
            yield from (part for part in split_record(source, record) if is_chosen(source, part))


def rows_of(source: Source, record: Record) -> Iterator[Found]:
    """Yield what a record gives: a row; several with `each` or `cut`; none where `where` asks for others."""
    if record.flaw is not None:
        yield Found(record.where, UnusableRow(record.flaw.reason), {}, record.flaw.detail)
        return
    try:
        parts = split_record(source, record)
    except UnusableRow as reason:
        yield Found(record.where, reason, {})
        return
    for part in parts:
        if not is_chosen(source, part):
            continue
        try:
            whole = shape_row(source, part)
        except UnusableRow as reason:
            yield Found(part.where, reason, {})
            continue
        pieces = [None] if source.cut is None else pieces_of(whole["text"], source.cut)
        for piece in pieces:
            row = whole if piece is None else whole | {"text": piece}
            if source.longest is not None and _num_characters(row) > source.longest:
                yield Found(part.where, UnusableRow(f"longer than {source.longest} characters"), {})
            else:
                yield Found(part.where, row, whole)


def _num_characters(row: Row) -> int:
    """How long a row is for a model: all it reads, with the longer of two answers; of an exam only what is asked."""
    own = len(row["text"]) if "text" in row else len(row.get("question", ""))
    sides = [sum(map(_length_of, row.get(name, ()))) for name in ("chosen", "rejected", "completion")]
    return own + max(sides) + sum(map(_length_of, (*row.get("messages", ()), *row.get("prompt", ()))))


def _length_of(turn: dict[str, Any]) -> int:
    calls = sum(len(json.dumps(call["function"])) for call in turn.get("tool_calls", ()))
    return len(turn["content"]) + len(turn.get("reasoning_content", "")) + calls


def split_record(source: Source, record: Record) -> list[Record]:
    """Return the record itself or, with `each`, one for every item of that list, the item in the list's place."""
    if source.each is None:
        return [record]
    items = record.value.get(source.each)
    if not isinstance(items, list):
        raise UnusableRow(f"no list in {source.each}")
    if not items:
        raise UnusableRow(f"empty {source.each}")
    return [
        record._replace(
            where=f"{record.where}, {source.each} {number}", value=record.value | {source.each: item}, inside=True
        )
        for number, item in enumerate(items, start=1)
    ]


def is_chosen(source: Source, record: Record) -> bool:
    """Whether a record has one of the values that `where` asks for, in every column it names."""
    return all(_as_text(lookup(record.value, column)) in values for column, values in source.where.items())


def _as_text(value: Any) -> str | None:
    """A value as `where` compares it; a list or an object equals none."""
    return None if value is ABSENT or isinstance(value, list | Mapping) else str(value)


def missing_columns(source: Source, record: Mapping[str, Any], place: str) -> list[str]:
    """Return one line per named column that a record lacks, with the columns that it has."""
    known = list(record)
    if source.each is not None:
        if source.each not in record:
            return [_lacking(place, source.each, "each", known)]
        items = record[source.each]
        if not isinstance(items, list):
            return [f"{place}: column '{source.each}' (each) is no list"]
        if not items:
            return []
        record = {**record, source.each: items[0]}
        if isinstance(items[0], Mapping):
            known += [f"{source.each}.{name}" for name in items[0]]
    columns = [(ours, theirs) for ours, theirs in source.named_columns.items()]
    columns += [("where", column) for column in source.where]
    return [
        _lacking(place, column, ours, known)
        for ours, theirs in columns
        for column in ((theirs,) if isinstance(theirs, str) else theirs)
        if lacks(record, column)
    ]


def _lacking(place: str, column: str, ours: str, known: list[str]) -> str:
    hint = did_you_mean(column, known)
    near = hint if "Did you mean" in hint else ""
    return f"{place} has no column '{column}' (for {ours}). It has: {', '.join(known)}.{near}"
