"""Make rows of a text and its translation, one behind the other.

Usage: `row = parallel_row(source, record)`; raises `UnusableRow` for a side that is missing or empty.

What becomes of the two sides is the form's: `common.data.forms.interlinear` weaves them, `translation` asks for one.
Records of one sentence each are joined into documents before, by `common.data.manifest.joining`.
"""

from __future__ import annotations

from typing import Any

from common.data.corpus import Row
from common.data.manifest.cells import cell
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow, text_of

SIDES = ("source", "target")


def parallel_row(source: Source, record: Record) -> Row:
    """Return both sides, each as a list of texts. Raises UnusableRow for a side that is missing or empty."""
    return {name: _texts(cell(source, record, name), name) for name in SIDES}


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, list) and not value:
        raise UnusableRow(f"empty {name}")
    return [text_of(item, name).strip() for item in (value if isinstance(value, list) else [value])]
