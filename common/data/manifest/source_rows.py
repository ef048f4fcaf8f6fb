"""Read the rows of one source of a data manifest: those of one part, counted, with the losses and the first of each.

Usage: `rows = usable_rows(source, "train", 1.0, file_records(source, files), RowCount(source.id, "cpt"), note=print)`.

It knows one source at a time. Which sources serve a role, and how often, is `common.data.manifest.manifest`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence

from common.data.accounting import RowCount
from common.data.corpus import Row
from common.data.manifest.hub import read_hub
from common.data.manifest.joining import in_documents
from common.data.manifest.questions import Faults
from common.data.manifest.readers import Record, SourceFile, read_file
from common.data.manifest.records import Found, missing_columns, rows_of, window, with_answers_told
from common.data.manifest.schema import Source
from common.data.manifest.source_keys import Part
from common.data.manifest.values import UnusableRow
from common.data.texts import UNWOVEN
from common.errors import DataError


def file_records(source: Source, files: Sequence[SourceFile]) -> Iterator[Record]:
    """Yield the records of a source's files."""
    for place, file in enumerate(files, start=1):
        for record in window(source, read_file(file, source.reading)):
            yield record._replace(file=place) if len(files) > 1 else record


def hub_records(source: Source) -> Iterator[Record]:
    """Yield the records of a data set of the Hub. Raises DataError where it lacks a column that is named."""
    for number, record in enumerate(window(source, read_hub(source))):
        problems = [] if number else missing_columns(source, record.value, str(source.hub))
        if problems:
            raise DataError("\n".join(f"Source '{source.id}': {problem}" for problem in problems))
        yield record


def usable_rows(
    source: Source, part: Part, share: float, records: Iterator[Record], count: RowCount,
    *, note: Callable[[str], None], told: frozenset[str] | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Yield an evenly spaced share of the usable rows of one part of a source; count those and their losses.

    `note` takes the first loss of each kind. `told` are the columns of the records that the source's own were
    recognised in, where they were.
    """
    num_usable = num_unusable = num_kept = 0
    names, reasons = set[str](), set[str]()
    faults = Faults(source)
    source, records = in_documents(*with_answers_told(source, records))
    found = (  # where documents are cut, their pieces are what is counted
        (found, 0 if source.cut else record.joined)
        for record in records
        for found in _telling_late(rows_of(source, record), record, told)
    )
    for (where, row, whole, detail), joined in found:
        if source.limit is not None and num_usable == source.limit:
            break
        if isinstance(row, UnusableRow):
            num_unusable += 1
            faults.add(where, row)
            if str(row) not in reasons:
                reasons.add(str(row))
                note(f"dropped first for '{row}': {detail or where}")
            if part == "train" and _is_due(num_unusable, share):  # once: nothing tells to which part it would belong
                count.rows_in += 1 + joined
                count.drop(str(row), number=1 + joined)
            continue
        num_usable += 1
        if source.heldout and is_held_out(whole, source.heldout) != (part == "heldout"):
            continue
        if row.get("id") in names:
            raise DataError(f"Source '{source.id}', {where}: id '{row['id']}' is given twice.")
        names.update([row["id"]] if "id" in row else [])
        num_kept += 1
        if _is_due(num_kept, share):
            count.rows_in += 1 + joined
            count.joined += joined
            count.rows_out += 1
            for what in row.pop("changed", ()):
                count.change(what)
            yield row
    faults.check(num_usable + num_unusable)


def _telling_late(found: Iterator[Found], record: Record, seen: frozenset[str] | None) -> Iterator[Found]:
    """Add to rows the columns that nobody reads because the records that told the columns of a source lack them."""
    names = set() if seen is None else record.value.keys() - seen
    late = sorted(name for name in names if record.value[name] not in (None, "", [], {}))
    for one in found:
        if late and not isinstance(one.row, UnusableRow):
            what = f"'{late[0][:30]}' not read, a column that the first rows lack"
            one = one._replace(row=one.row | {"changed": (*one.row.get("changed", ()), what)})
        yield one


def is_held_out(row: Row, share: float) -> bool:
    """Whether a row is in the share kept from training. Its own text decides, so it is the same in every source."""
    return int.from_bytes(digest_row(row)) < share * 2**64


def digest_row(row: Row) -> bytes:
    """Return by what a text, or the prompt of a pair, is known in all sources; a woven text is by its sides."""
    if UNWOVEN in row:
        text = json.dumps(sorted(row[UNWOVEN]), ensure_ascii=False)
    else:
        text = row["text"] if "text" in row else json.dumps(row["prompt"], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _is_due(number: int, share: float) -> bool:
    """Whether the n-th item (from 1) belongs to an evenly spaced share of all items."""
    # The small term keeps 0.1 * 30 from falling short of 3.
    return math.floor(number * share + 1e-9) > math.floor((number - 1) * share + 1e-9)
