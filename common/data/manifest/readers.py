"""Read the raw records of a file, one at a time, each with the place it came from.

Usage: `for record in read_file(SourceFile(path, "qa.jsonl.gz"), Reading(unit="paragraph")): ...`.

It chooses the reader by what a file's name ends in. The readers are in `common.data.manifest.files`, those of HTML, PDF
and the like in `common.data.manifest.documents`, data sets of the Hub in `common.data.manifest.hub`. Which columns mean
what is `common.data.manifest.shapes`. What cannot be read raises DataError with file and line; a single record that
cannot be used comes as a record with a flaw, and so does a document.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.data.manifest.documents.reader import read_document
from common.data.manifest.files.arrow import read_arrow
from common.data.manifest.files.json_files import read_json
from common.data.manifest.files.source_file import (
    ARROW,
    DOCUMENTS,
    LINES,
    READABLE,
    TABLES,
    TEXTS,
    Flaw,
    Reading,
    Record,
    SourceFile,
    is_readable,
)
from common.data.manifest.files.tables import read_table
from common.data.manifest.files.texts import pieces_of, read_texts
from common.errors import DataError

__all__ = ["READABLE", "Flaw", "Reading", "Record", "SourceFile", "is_readable", "pieces_of", "read_file"]


def read_file(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a file by its format, in the order of the file."""
    if not file.shards and not is_readable(file.path.name):
        raise DataError(f"{file.name}: format '{file.path.suffix}' cannot be read. Expected one of {READABLE}.")
    if file.format in (*LINES, ".json"):
        return read_json(file, reading)
    if file.format in TABLES:
        return read_table(file, reading)
    if file.format in TEXTS:
        return read_texts(file, reading)
    if file.format in DOCUMENTS:
        return read_document(file, reading)
    assert file.format in (".parquet", *ARROW), f"{file.format} is among the formats"
    return read_arrow(file, reading)
