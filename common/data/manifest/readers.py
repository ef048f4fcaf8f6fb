"""Read the raw records of a file, one at a time, each with the place it came from.

Usage: `for record in read_file(SourceFile(path, "qa.jsonl"), "paragraph"): ...`.

It parses formats only: jsonl, json (a list of objects), csv, tsv, parquet, txt and md; data sets of the Hub are
`common.data.manifest.hub`. Which columns mean what is `common.data.manifest.shapes`. Raises DataError with file and
line for what cannot be read.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
PARAGRAPH_CHARACTERS = 2000  # paragraphs are joined up to about this length
LARGEST_FIELD = 2**31 - 1  # csv's default of 131,072 characters is less than one long article


def _ignore(num_bytes: float) -> None:
    """Stand in for nobody who wants to know how far a file has been read."""


class SourceFile(NamedTuple):
    """A file, and the name that messages give it (its path below the data folder)."""

    path: Path
    name: str
    on_read: Callable[[float], None] = _ignore  # is told how many of its bytes have been read, ever more


class Record(NamedTuple):
    """One raw record and its place, such as `qa.jsonl, line 12`, or `qa.json, item 3, questions 2` inside one."""

    where: str
    value: dict[str, Any]
    inside: bool = False  # an item of a list in a record of the file

    @property
    def number(self) -> str:
        """The place alone: `12`, or `3.2` inside a record."""
        return ".".join(part.rsplit(" ", 1)[-1] for part in self.where.rsplit(", ", 1 + self.inside)[1:])


def read_file(file: SourceFile, unit: str, header: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield the records of a file by its suffix; `unit` cuts text files, `header` names columns of a csv without."""
    suffix = file.path.suffix.lower()
    if suffix == ".jsonl":
        yield from _read_jsonl(file)
    elif suffix == ".json":
        yield from _read_json(file)
    elif suffix in (".csv", ".tsv"):
        yield from _read_csv(file, "\t" if suffix == ".tsv" else ",", header)
    elif suffix == ".parquet":
        yield from _read_parquet(file)
    elif suffix in (".txt", ".md"):
        yield from _read_text(file, unit, front_matter=suffix == ".md")
    else:
        raise DataError(f"{file.name}: format '{suffix}' cannot be read. Expected one of {', '.join(SUFFIXES)}.")


def read_lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield line numbers from 1 and lines with their ends. Raises DataError at the first byte that is not UTF-8."""
    offset = 0
    try:
        with file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{file.name}, line {number}: byte {offset + error.start} (0x{line[error.start]:02x}) is not "
                        "UTF-8. Save the file as UTF-8."
                    ) from error
                offset += len(line)
                file.on_read(offset)
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except OSError as error:
        raise DataError(f"{file.name}: cannot be read: {error.strerror}.") from error


def _read_jsonl(file: SourceFile) -> Iterator[Record]:
    for number, line in read_lines(file):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        value = _parse(line, where, "Repair or remove this line.")
        yield Record(where, _as_object(value, where))


def _read_json(file: SourceFile) -> Iterator[Record]:
    size = file.path.stat().st_size
    text = "".join(line for _, line in read_lines(file._replace(on_read=_ignore)))
    value = _parse(text, file.name, "A file with one object per line must be named .jsonl.")
    if not isinstance(value, list):
        raise DataError(f"{file.name}: holds a {_kind(value)}; expected a list of objects. Convert it to .jsonl.")
    for number, item in enumerate(value, start=1):
        where = f"{file.name}, item {number}"
        file.on_read(size * number / len(value))
        yield Record(where, _as_object(item, where))


def _parse(text: str, where: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise DataError(f"{where}{line}: not valid JSON: {error.msg} (column {error.colno}). {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not readable as JSON: {error}. {advice}") from error


def _as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: holds a {_kind(value)}; expected an object like {{"text": ...}}.')
    return value


def _kind(value: Any) -> str:
    return {dict: "single object", list: "list", str: "string", type(None): "null"}.get(type(value), "number")


def _read_csv(file: SourceFile, delimiter: str, given: Sequence[str] | None) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.reader((line for _, line in read_lines(file)), delimiter=delimiter, strict=True)
    header = given
    start = 1
    try:
        for cells in reader:
            where, start = f"{file.name}, line {start}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _check_header(cells, where)
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}: has {len(cells)} fields, the header has {len(header)}. Quote fields that hold "
                    f"{'tabs' if delimiter == chr(9) else 'commas'} or line ends."
                )
            else:
                yield Record(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{file.name}, line {start}: not valid CSV: {error}. Look for an unclosed quote.") from error


def _check_header(cells: list[str], where: str) -> list[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise DataError(f"{where}: the header names {twice} more than once. Give each column its own name.")
    return cells


def _read_parquet(file: SourceFile) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        size = file.path.stat().st_size
        with pyarrow.parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    row += 1
                    file.on_read(size * row / table.metadata.num_rows)
                    yield Record(f"{file.name}, row {row}", value)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name}: not readable as parquet after row {row}: {error}") from error


def _read_text(file: SourceFile, unit: str, *, front_matter: bool) -> Iterator[Record]:
    lines = _without_front_matter(read_lines(file)) if front_matter else read_lines(file)
    texts: Iterator[tuple[int, str]]
    if unit == "line":
        texts = ((number, line.rstrip("\r\n")) for number, line in lines if line.strip())
    elif unit == "file":
        texts = iter([(1, "".join(line for _, line in lines))])
    else:
        texts = _join(_paragraphs(lines), "\n\n")
    for number, text in texts:
        yield Record(f"{file.name}, line {number}", {"text": text})


def pieces_of(text: str, cut: str) -> Iterator[str]:
    """Yield a long text in pieces: paragraphs, or lines, joined up to about PARAGRAPH_CHARACTERS; none is split."""
    lines = enumerate(text.splitlines(keepends=True), start=1)
    if cut == "line":
        joined = _join(((number, line.rstrip()) for number, line in lines if line.strip()), "\n")
    else:
        joined = _join(_paragraphs(lines), "\n\n")
    yield from (piece for _, piece in joined)


def _without_front_matter(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Leave out a block between `---` lines at the very start; one that never closes is text."""
    held = [line for line in [next(lines, None)] if line is not None]
    if held and held[0][1].rstrip() == "---":
        for line in lines:
            held.append(line)
            if line[1].rstrip() in ("---", "..."):
                held = []
                break
    yield from held
    yield from lines


def _paragraphs(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for is_text, group in itertools.groupby(lines, lambda line: bool(line[1].strip())):
        if is_text:
            numbers, texts = zip(*group, strict=True)
            yield numbers[0], "\n".join(text.rstrip() for text in texts)


def _join(paragraphs: Iterator[tuple[int, str]], between: str) -> Iterator[tuple[int, str]]:
    start, held = 0, ""
    for number, text in paragraphs:
        if held and len(held) + len(text) > PARAGRAPH_CHARACTERS:
            yield start, held
            held = ""
        start, held = (start, f"{held}{between}{text}") if held else (number, text)
    if held:
        yield start, held
