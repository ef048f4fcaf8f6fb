"""Read csv and tsv files row by row; a row that does not fit the header is a record with a flaw, not the end.

Usage: `for record in read_table(file, Reading(delimiter=";")): ...`.

The delimiter is found by `common.data.manifest.files.dialect` unless it is named. A tsv file has no quoting unless it
is asked for, or its first rows show it: a quotation mark in it is nearly always a character of the text. In a csv file
a quote that is never closed, or closes in the middle of a field, spoils its own line alone: reading goes on with the
next line. `\\N`, alone in a field, is the null of databases (MySQL, PostgreSQL, Hive), as JSON's is.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from common.data.accounting import NOT_CSV, WRONG_NUMBER
from common.data.manifest.files.dialect import NAMES, Dialect, find_dialect
from common.data.manifest.files.encoding import Line, read_lines
from common.data.manifest.files.source_file import Flaw, Reading, Record, SourceFile
from common.data.manifest.files.texts import nul_flaw
from common.errors import DataError

NULL = r"\N"
LONGEST_ROW = 2**26  # characters of one row in which a closing quote is looked for
Row = tuple[int, list[str] | Flaw]


def read_table(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a csv or tsv file. Raises DataError for a header that cannot be used."""
    dialect = find_dialect(file, reading)
    lines = itertools.islice(read_lines(file, reading), int(dialect.announced), None)
    rows = _quoted_rows(file, lines, dialect) if dialect.quoting else _plain_rows(lines, dialect.delimiter)
    header: Sequence[str] | None = reading.header
    for number, cells in rows:
        where = f"{file.name}, line {number}"
        if isinstance(cells, Flaw):
            yield Record(where, {}, flaw=cells)
        elif header is None:
            header = _check_header(cells, where)
        elif len(cells) != len(header):
            yield Record(where, {}, flaw=_does_not_fit(where, len(cells), len(header), dialect))
        elif any("\0" in cell for cell in cells):
            yield Record(where, {}, flaw=nul_flaw(where))
        else:
            values = cells if NULL not in cells else [None if cell == NULL else cell for cell in cells]
            yield Record(where, dict(zip(header, values, strict=True)))


def _does_not_fit(where: str, found: int, expected: int, dialect: Dialect) -> Flaw:
    name = NAMES.get(dialect.delimiter, repr(dialect.delimiter))
    advice = (
        "Its first line may be a title; delete what stands above the header" if expected == 1
        else f"Quote fields that hold {name} or line ends" if dialect.quoting
        else "Fields in quotation marks that hold tabs or line ends need quoting: true"
    )  # fmt: skip
    return Flaw(WRONG_NUMBER, f"{where}: has {found} fields, the header has {expected}. {advice}")


def _check_header(cells: list[str], where: str) -> list[str]:
    """Return the names of a table's columns; several without a name, as Excel leaves on the right, get a number."""
    twice = sorted(cell for cell, times in Counter(cells).items() if times > 1)
    if twice == [""] and sum(map(bool, cells)) > 1:
        return [cell or f"column {place} without a name" for place, cell in enumerate(cells, start=1)]
    if twice:
        advice = "Give each column its own name; if it is a row, name the columns with header:"
        if sum(map(bool, cells)) == 1:
            advice = "It looks like a title; delete it above the header"
        raise DataError(f"{where}: the header names {twice} more than once. {advice}.")
    return cells


def _plain_rows(lines: Iterator[Line], delimiter: str) -> Iterator[Row]:
    for number, line in lines:
        if isinstance(line, Flaw):
            yield number, line
        elif cells := line.rstrip("\r\n"):
            yield number, cells.split(delimiter)


class _Lines:
    """Lines that can be put back; remembers which have gone into the row that is being read."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines, self._waiting = lines, deque[tuple[int, str]]()
        self.taken: list[tuple[int, str]] = []
        self.flawed: list[Row] = []
        self.size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.size > LONGEST_ROW:
            raise csv.Error("no closing quote")
        number, line = self._waiting.popleft() if self._waiting else self._read()
        self.taken.append((number, line))
        self.size += len(line)
        return line

    def _read(self) -> tuple[int, str]:
        for number, line in self._lines:
            if not isinstance(line, Flaw):
                return number, line
            self.flawed.append((number, line))
        raise StopIteration

    def begin(self) -> None:
        """Forget the lines of the last row."""
        self.taken, self.size = [], 0

    def keep_first(self) -> int:
        """Put all lines of this row back but the first, and return its number."""
        (number, _), *rest = self.taken
        self._waiting.extendleft(reversed(rest))
        return number


def _quoted_rows(file: SourceFile, lines: Iterator[Line], dialect: Dialect) -> Iterator[Row]:
    source = _Lines(lines)
    width = 0  # fields of the first row
    while True:
        source.begin()
        try:
            reader = csv.reader(
                source, delimiter=dialect.delimiter, skipinitialspace=dialect.spaced, strict=True
            )  # fmt: skip
            cells = next(reader, None)
            problem = None
        except csv.Error as error:
            cells, problem = [], str(error)
        yield from source.flawed
        source.flawed.clear()
        if cells is None:
            return
        number = source.taken[0][0]
        if problem is None and (len(source.taken) == 1 or len(cells) == (width or len(cells))):
            if cells:
                width = width or len(cells)
                yield number, cells
            continue
        # A row of several lines that does not fit began with a stray quote: only its first line is lost.
        source.keep_first()
        what = problem or f"a quote opens there and closes in line {source.taken[-1][0]}"
        yield number, Flaw(NOT_CSV, f"{file.name}, line {number}: not valid CSV: {what}. Look for an unclosed quote")
