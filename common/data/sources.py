"""Read the raw records of a source, one at a time, each with the place it came from.

Usage: `for where, record in read_file(SourceFile(path, "qa.jsonl"), "paragraph"): ...`, or `read_hub(source)`.

It parses formats only: jsonl, json (a list of objects), csv, tsv, parquet, txt, md, and data sets of the Hub.
Which columns mean what is `common.data.shapes`. Raises DataError with file and line for what cannot be read.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.data.schema import Source
from common.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
PARAGRAPH_CHARACTERS = 2000  # paragraphs are joined up to about this length
LARGEST_FIELD = 2**31 - 1  # csv's default of 131,072 characters is less than one long article


class SourceFile(NamedTuple):
    """A file, and the name that messages give it (its path below the data folder)."""

    path: Path
    name: str


class Record(NamedTuple):
    """One raw record and its place, such as `qa.jsonl, line 12`."""

    where: str
    value: dict[str, Any]


def read_file(file: SourceFile, unit: str) -> Iterator[Record]:
    """Yield the records of a file by its suffix; `unit` cuts text files into rows."""
    suffix = file.path.suffix.lower()
    if suffix == ".jsonl":
        yield from _read_jsonl(file)
    elif suffix == ".json":
        yield from _read_json(file)
    elif suffix in (".csv", ".tsv"):
        yield from _read_csv(file, "\t" if suffix == ".tsv" else ",")
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
    text = "".join(line for _, line in read_lines(file))
    value = _parse(text, file.name, "A file with one object per line must be named .jsonl.")
    if not isinstance(value, list):
        raise DataError(f"{file.name}: holds a {_kind(value)}; expected a list of objects. Convert it to .jsonl.")
    for number, item in enumerate(value, start=1):
        where = f"{file.name}, item {number}"
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


def _read_csv(file: SourceFile, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.reader((line for _, line in read_lines(file)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
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
        with pyarrow.parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    row += 1
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
        texts = _join(_paragraphs(lines))
    for number, text in texts:
        yield Record(f"{file.name}, line {number}", {"text": text})


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
    start, held = 0, list[str]()
    for number, line in lines:
        if line.strip():
            start = start if held else number
            held.append(line.rstrip())
        elif held:
            yield start, "\n".join(held)
            held = []
    if held:
        yield start, "\n".join(held)


def _join(paragraphs: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    start, held = 0, ""
    for number, text in paragraphs:
        if held and len(held) + len(text) > PARAGRAPH_CHARACTERS:
            yield start, held
            held = ""
        start, held = (start, f"{held}\n\n{text}") if held else (number, text)
    if held:
        yield start, held


def read_hub(source: Source) -> Iterator[Record]:
    """Stream the records of a Hub data set. Raises DataError when it cannot be reached or is not as described."""
    import datasets

    assert source.hub is not None, f"source {source.id} is not on the Hub"
    files = [*source.data_files] if isinstance(source.data_files, tuple) else source.data_files
    name = f"{source.hub}[{source.split}]"
    row = 0
    try:
        stream = datasets.load_dataset(
            source.hub, source.config, split=source.split, revision=source.revision, data_files=files, streaming=True
        )
        for value in stream:
            row += 1
            yield Record(f"{name}, row {row}", value)
    except Exception as error:  # the library raises a dozen types here; the message below keeps the cause
        raise DataError(f"Source '{source.id}': {_hub_problem(name, row, error)}") from error


def _hub_problem(name: str, row: int, error: Exception) -> str:
    cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    place = f"{name} after row {row}" if row else name
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "TimeoutError", "TransportError", "HfHubHTTPError", "RequestException"}:
        return (
            f"the Hub could not be reached for {place} ({cause}). Check the network and try again; "
            "data=embedded needs none."
        )
    if "scripts are no longer supported" in cause:
        return f"{place} needs a loading script, which datasets no longer runs. Try revision: refs/convert/parquet."
    return f"{place} cannot be read ({cause}). Compare hub, config, split and data_files with the data set's page."
