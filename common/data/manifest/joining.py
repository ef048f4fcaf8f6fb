"""Join records of one sentence each, with its translation, into documents.

Usage: `source, records = in_documents(source, records)`.

Which records are joined the form says, by how many, and the column `document`, by where it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from common.data.manifest.cells import cell
from common.data.manifest.parallel import SIDES
from common.data.manifest.readers import Flaw, Record
from common.data.manifest.records import is_chosen, split_record
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow, lookup


def in_documents(source: Source, records: Iterator[Record]) -> tuple[Source, Iterator[Record]]:
    """Return the records of a source whose form joins some in a row, joined, and the source that they are read by.

    A document ends with its file, where the column `document` holds another value, and at the form's number of records.
    A record that lacks a side stays alone, so that it is counted.
    """
    most = 1 if source.formed is None else source.formed[0].joins(source.formed[1])
    if most == 1:
        return source, records
    return source.model_copy(update={"each": None, "where": {}}), _documents(source, records, most)


def _documents(source: Source, records: Iterable[Record], most: int) -> Iterator[Record]:
    found: list[Record] = []
    before: Any = None
    for part in _parts(source, records):
        if part.flaw is not None or not all(_is_text(cell(source, part, name)) for name in SIDES):
            yield part
            continue
        place = (part.file, str(cell(source, part, "document")))
        if found and (place != before or len(found) == most):
            yield _joined(source, found)
            found = []
        found.append(part)
        before = place
    if found:
        yield _joined(source, found)


def _parts(source: Source, records: Iterable[Record]) -> Iterator[Record]:
    """Yield what `each` makes of records, as far as `where` asks for it; one that cannot be split with its reason."""
    for record in records:
        if record.flaw is not None:
            yield record
            continue
        try:
            parts = split_record(source, record)
        except UnusableRow as reason:
            yield record._replace(value={}, flaw=Flaw(str(reason), f"{record.where}: {reason}"))
            continue
        yield from (part for part in parts if is_chosen(source, part))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _joined(source: Source, found: list[Record]) -> Record:
    """Return one record with a list in each side's column; of all others it has what the first has."""
    columns = {name: str(source.named_columns[name]) for name in source.named_columns}
    value = {column: lookup(found[0].value, column) for column in columns.values()}
    value |= {columns[name]: [lookup(one.value, columns[name]) for one in found] for name in SIDES}
    return found[0]._replace(value=value, joined=len(found) - 1)
