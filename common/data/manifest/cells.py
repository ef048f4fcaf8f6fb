"""What the columns that a source names hold in a record.

Usage: `cell(source, record, "answer")`; `joined_cells(source, record, "question")`.

What becomes of them is `common.data.manifest.shapes` and the modules of each kind of row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.values import ABSENT, joined, lookup


def cell(source: Source, record: Record, name: str, usual: Sequence[str] = ()) -> Any:
    """The value that a source's column holds; None where the source names none or the record lacks it.

    `usual` are the names of columns of the record that are read where the source names none.
    """
    column = source.named_columns.get(name)
    if column is None:
        return next((record.value[key] for key in usual if record.value.get(key) is not None), None)
    if isinstance(column, tuple):
        return [lookup(record.value, item) for item in column]
    value = lookup(record.value, column)
    return None if value is ABSENT else value


def joined_cells(source: Source, record: Record, name: str) -> str:
    """The text of a column, or of a list of columns joined by blank lines; '' where there is none."""
    columns = source.named_columns.get(name, ())
    columns = (columns,) if isinstance(columns, str) else columns
    texts = [joined(lookup(record.value, column), name) for column in columns]
    return "\n\n".join(text for text in texts if text)
