"""Read JSON lines, and JSON files of every layout that people have, an item at a time.

Usage: `for record in read_json(file, reading): ...`, of a .json or .jsonl file.

What a file holds decides, not its name: an object per line; a list of objects; objects one after the other, as jq
writes them; one object with a list of records in it (`{"version": 1, "data": [...]}`), which `records:` names where
there are several; one object whose values are the records; one object of columns, as pandas and datasets write tables.
Whatever the name does not say is shown.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.manifest.files.encoding import read_lines, read_text
from common.data.manifest.files.json_stream import Decoder, Items, JsonStream
from common.data.manifest.files.source_file import LINES, Flaw, Reading, Record, SourceFile
from common.errors import DataError
from common.store.cache import stamp_of

_REPAIR = "Repair or remove this line."


def read_json(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a .json or .jsonl file. Raises DataError where it is not valid."""
    lines = _has_lines(file, reading)
    named = file.format in LINES
    if lines and reading.records is None:
        if not named:
            file.tell(f"{file.name} is read as JSON lines, an object in each")
        yield from _read_lines(file, reading)
        return
    if named:
        file.tell(f"{file.name} is read as one JSON document, since its lines are no objects of their own")
    yield from _read_document(file, reading)


def _has_lines(file: SourceFile, reading: Reading) -> bool:
    """Whether a file has an object in each line, by its first lines."""
    quiet = SourceFile(file.path, file.name)
    texts = (line for _, line in read_lines(quiet, reading, whole=False) if isinstance(line, Flaw) or line.strip())
    first, second = next(texts, None), next(texts, None)
    if file.format in LINES:  # the name says so, unless the first line cannot be an object
        start = first.strip() if isinstance(first, str) else ""
        opens = start == "{" and second is not None
        return not (opens or (start.startswith("[") and not (second and _is_complete(start))))
    if not isinstance(first, str) or second is None or not first.lstrip().startswith("{"):
        return False
    return _is_complete(first)


def _is_complete(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read_lines(file: SourceFile, reading: Reading) -> Iterator[Record]:
    decoder = Decoder()
    for number, line in read_lines(file, reading):
        where = f"{file.name}, line {number}"
        if isinstance(line, Flaw):
            yield Record(where, {}, flaw=line)
        elif line.strip():
            value, twice = decoder.parse(line, where, _REPAIR)
            yield _record(value, where, twice)


def _record(value: Any, where: str, twice: str | None) -> Record:
    if not isinstance(value, dict):
        what = f'{where}: holds a {kind_of(value)}; expected an object like {{"text": ...}}'
        return Record(where, {}, flaw=Flaw("no object", what))
    if twice is not None:
        return Record(where, {}, flaw=Flaw("a key is given twice", f"{where}: has the key {twice!r} more than once"))
    return Record(where, value)


def kind_of(value: Any) -> str:
    return {dict: "single object", list: "list", str: "string", type(None): "null"}.get(type(value), "number")


def _read_document(file: SourceFile, reading: Reading) -> Iterator[Record]:
    if reading.records is None and _has_columns(file, reading):
        file.tell(f"{file.name} holds columns, whose rows are read as records")
        yield from _read_columns(file, reading)
        return
    path = reading.records.split(".") if reading.records else _find_records(file, reading)
    for number, (item, twice) in enumerate(_items(file, reading, path), start=1):
        yield _record(item, f"{file.name}, item {number}", twice)


def _items(file: SourceFile, reading: Reading, path: list[str] | None) -> Items:
    """Yield the items below a path of keys; of an empty path those of the document's list, or its objects."""
    stream = JsonStream(read_text(file, reading), file.name)
    if path is None:
        return stream.members()
    return stream.items(path)


@functools.lru_cache(maxsize=16)
def _layout(path: Path, name: str, stamp: tuple[int, ...], reading: Reading) -> dict[str, str] | None:
    """Return what the keys of a document hold. All of it is read for that, so that a file's answer is remembered."""
    return JsonStream(read_text(SourceFile(path, name), reading), name).layout()


def _kinds(file: SourceFile, reading: Reading) -> dict[str, str] | None:
    return _layout(file.path, file.name, tuple(stamp_of(file.path)), Reading(encoding=reading.encoding))


def _has_columns(file: SourceFile, reading: Reading) -> bool:
    """Whether the only object of a file holds columns: lists of values, or objects of values by the row's number."""
    found = {*(_kinds(file, reading) or {}).values()}
    if found == {"object"}:
        first = next(iter(_items(file, reading, None)))[0]
        return bool(first) and all(name.isdecimal() for name in first) and not {*first} & {*reading.columns}
    return found == {"list"}


def _read_columns(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the rows of a table that is written column by column, which has to be read whole."""
    table = json.loads("".join(read_text(file, reading)), parse_constant=lambda _: None)
    columns = {name: list(column.values() if isinstance(column, dict) else column) for name, column in table.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len({*lengths.values()}) > 1:
        raise DataError(f"{file.name}: holds columns of different lengths: {lengths}. Write an object per row.")
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Record(f"{file.name}, item {number}", dict(zip(columns, cells, strict=True)))


def _find_records(file: SourceFile, reading: Reading) -> list[str] | None:
    """Return the key whose list holds the records; [] for no single object; None where each value is one."""
    kinds = _kinds(file, reading)
    if kinds is None:
        return []
    lists = [name for name, kind in kinds.items() if kind == "objects"]
    if len(lists) == 1:
        file.tell(f"{file.name} holds its records in '{lists[0]}'. Name another list with records:")
        return lists
    if lists:
        raise DataError(f"{file.name}: holds records in {', '.join(lists)}. Name one with records: {lists[0]}.")
    if len(kinds) > 1 and {*kinds.values()} == {"object"} and not {*kinds} & {*reading.columns}:
        file.tell(f"{file.name} holds one object, and each of its {len(kinds)} values is read as a record")
        return None
    raise DataError(
        f"{file.name}: holds a single object; expected a list of objects, or an object with one. Name the list inside "
        f"with records:, or convert it to .jsonl. It has: {', '.join([*kinds][:14])}."
    )
