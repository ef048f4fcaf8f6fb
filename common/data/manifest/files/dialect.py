"""Find out what separates the fields of a csv or tsv file, from its header and its first rows.

Usage: `dialect = find_dialect(file, reading)`; `dialect.delimiter`, `dialect.quoting`.

A named delimiter is taken as it is. Else the first of these rules that tells one from the others decides: a header
that has the columns which the source names; the same number of fields, two or more, in most rows; the suffix. A
decimal comma or a semicolon within a text does not make the rows of a file equal, so neither is taken for a delimiter.
In a tsv file quotation marks are text, unless its rows fit the header with quoting alone.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from common.data.manifest.files.encoding import read_lines
from common.data.manifest.files.source_file import Reading, SourceFile

NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE_LINES = 200
SAMPLE_CHARACTERS = 2**20
LARGEST_FIELD = 2**31 - 1  # csv's default of 131,072 characters is less than one long article
csv.field_size_limit(LARGEST_FIELD)  # of the process: set here, as this is imported before any table is read
_ANNOUNCED = re.compile('"?sep=(.)"?')


class Dialect(NamedTuple):
    """What separates fields, whether quotation marks may wrap them, and whether the first line says so itself."""

    delimiter: str
    quoting: bool
    announced: bool = False  # by a line `sep=;`, which Excel reads and which is no row
    spaced: bool = False  # whether a blank stands between the sign and a field in quotation marks


def find_dialect(file: SourceFile, reading: Reading) -> Dialect:
    """Return how a table is written: as the source says, else as its first rows show; a surprise is reported."""
    usual = "\t" if file.format == ".tsv" else ","
    quoting = reading.quoting if reading.quoting is not None else file.format != ".tsv"
    lines = _sample(file, reading)
    announced = _ANNOUNCED.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if announced:
        return Dialect(reading.delimiter or announced[1], quoting, announced=True)
    delimiter = reading.delimiter or _find_delimiter(lines, usual, quoting, reading)
    if reading.delimiter is None and delimiter != usual:
        file.tell(f"{file.name} is read with {NAMES[delimiter]} between its fields. Name others with `delimiter`")
    if quoting and _is_spaced(lines, delimiter):
        file.tell(f"{file.name} has blanks before fields in quotation marks; they are taken for none of the text")
        return Dialect(delimiter, quoting, spaced=True)
    if reading.quoting is None and not quoting and _needs_quoting(lines, delimiter):
        file.tell(f"{file.name} is read with quotation marks around fields. quoting: false takes them as they stand")
        return Dialect(delimiter, quoting=True)
    if reading.quoting is None and not quoting and _has_wrapped_fields(lines, delimiter):
        file.tell(
            f"{file.name} has fields in quotation marks, which are read as they stand. If the marks only wrap the "
            "fields, set quoting: true"
        )
    return Dialect(delimiter, quoting)


def _sample(file: SourceFile, reading: Reading) -> list[str]:
    lines, size = [], 0
    quiet = SourceFile(file.path, file.name)  # what the encoding is will be reported when the rows are read
    for _, line in itertools.islice(read_lines(quiet, reading), SAMPLE_LINES):
        if isinstance(line, str):
            lines.append(line)
            size += len(line)
            if size > SAMPLE_CHARACTERS:
                break
    return lines


def _find_delimiter(lines: Sequence[str], usual: str, quoting: bool, reading: Reading) -> str:
    candidates = [usual, *(sign for sign in NAMES if sign != usual)]
    rows = {sign: _rows(lines, sign, quoting) for sign in candidates}
    named = {column.split(".")[0] for column in reading.columns} | {*reading.columns}
    scores = {sign: _score(rows[sign], named, reading.header) for sign in candidates}
    best = max(scores.values())
    equals = [sign for sign in candidates if scores[sign] == best]
    # Where commas fit as well as another sign, they are decimal commas: the others are rare in texts.
    rare = [sign for sign in equals if sign != "," and best[1]]
    return (rare if usual == "," and rare else equals)[0]


def _rows(lines: Sequence[str], delimiter: str, quoting: bool) -> list[list[str]]:
    if not quoting:
        return [line.rstrip("\r\n").split(delimiter) for line in lines if line.strip()]
    rows = []
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows


def _score(rows: Sequence[Sequence[str]], named: set[str], header: Sequence[str] | None) -> tuple[int, bool]:
    """Return how many named columns the first row has, and whether nearly all rows have its number of fields."""
    if not rows:
        return 0, False
    first, *others = rows
    width = len(first if header is None else header)
    known = len(named & {*first}) if header is None else 0
    counts = Counter(map(len, others if header is None else rows))
    fits = counts[width] if counts else 1
    return known, width > 1 and fits >= 0.8 * (sum(counts.values()) or 1)


def _needs_quoting(lines: Sequence[str], delimiter: str) -> bool:
    """Whether rows fit the header only if quotation marks wrap fields, or marks within wrapped fields are doubled.

    A mark that is a character of the text stands alone somewhere, so that the rows do not fit with quoting.
    """
    plain = _rows(lines, delimiter, quoting=False)
    try:
        quoted = [row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        if len(lines) < SAMPLE_LINES or "unexpected end" not in str(error):
            return False
        quoted = _rows(lines, delimiter, quoting=True)[:-1]  # the sample ends within a row
    if len(quoted) < 2 or any(len(row) != len(quoted[0]) for row in quoted):
        return False
    if any(len(row) != len(plain[0]) for row in plain):
        return any("\n" in cell or delimiter in cell for row in quoted for cell in row)
    return _has_wrapped_fields(lines, delimiter) and any('""' in cell[1:-1] for row in plain for cell in row)


def _is_spaced(lines: Sequence[str], delimiter: str) -> bool:
    """Whether the first line has fields like ` "answer"`, whose marks a reader takes for text."""
    first = next(iter(_rows(lines, delimiter, quoting=True)), [])
    return any(cell.startswith(' "') and cell.endswith('"') and len(cell) > 2 for cell in first)


def _has_wrapped_fields(lines: Sequence[str], delimiter: str) -> bool:
    """Whether some fields are in quotation marks, and none begins or ends with one alone."""
    cells = [cell for line in lines for cell in line.rstrip("\r\n").split(delimiter) if '"' in (cell[:1], cell[-1:])]
    return bool(cells) and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
