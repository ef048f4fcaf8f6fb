"""Read the first used records of a source: they show which columns a manifest leaves out, and whether named ones exist.

Usage: `found = peek(source, files)`; `found.source` has its columns, `found.shape` says what it was taken for.

It reads little of each file. Problems further down a file are reported when its rows are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from common.data.manifest.columns import are_rare, with_rare
from common.data.manifest.descriptions import describe, read_columns
from common.data.manifest.fields import Unclear
from common.data.manifest.files.source_file import DOCUMENTS, TABLES, TEXTS
from common.data.manifest.readers import Record, SourceFile, read_file
from common.data.manifest.recognition import WAYS, recognise
from common.data.manifest.records import is_chosen, missing_columns, split_record, window
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow
from common.errors import DataError

MOST_RECORDS = 100  # of a source that are looked at: what is rare in it is not in the first record
SOME_RECORDS = 20  # where the columns are given
MOST_FILES = 1_000  # of a source; all of them are read before a run
MOST_CHARACTERS = 4_000_000  # and fewer of them where they are long
MOST_COLUMNS = 12  # that a message names
LONGEST_NAME = 60  # characters of a column's name; a longer one is rather a text
WORDS = 4  # that a sentence has, at least; a name that ends in a full stop is else an abbreviation
HEADLESS = "Its first line looks like a row: name the columns with header: [question, A, B, …]"


@dataclass
class Peek:
    """What the first records of a source told."""

    source: Source  # with the columns that were recognised
    problems: list[str] = field(default_factory=list)
    shape: str = ""  # what its rows were taken for
    # The columns that were there to be recognised, and those that are read; None where all are named.
    seen: frozenset[str] | None = None


def peek(source: Source, files: Sequence[SourceFile]) -> Peek:
    """Return a local source with its columns, or what is wrong with it."""
    found = Peek(source)
    looked: list[_Look] = []
    for file in files[:MOST_FILES]:
        few = any(look.used for look in looked)
        most = 1 if few else MOST_RECORDS if source.unrecognised else SOME_RECORDS
        looked.append(_look(source, file, most, among=len(files) > 1))
    found.problems += [look.problem for look in looked if look.problem]
    sample = next((look for look in looked if look.used), None)
    if sample is not None:  # of documents one that cannot be read is counted with the rows
        kinds = {look.file.name for look in looked if look.problem and look.costs_itself}
        found.problems = [look.problem for look in looked if look.problem and look.file.name not in kinds]
        looked = [look for look in looked if look.file.name not in kinds]
    if found.problems:
        return found
    if sample is not None:
        values = [part.value for record in sample.used for part in _parts(source, record)]
        _tell(found, values[:MOST_RECORDS], sample.file.name)
    if not found.problems:
        found.problems += [problem for look in looked for problem in _missing(found.source, look)]
    if found.problems and sample is not None and (hint := _about_header(source, sample)):
        found.problems = [f"{problem}. {hint}" for problem in found.problems]
    if files and not found.problems and sample is None:
        conditions = ", ".join(f"{column}: {' or '.join(values)}" for column, values in source.where.items())
        found.problems.append(f"no record of {', '.join(file.name for file in files)} has where {conditions}")
    return found


def _about_header(source: Source, look: _Look) -> str:
    """Return what to do where the names of a table's columns look like a title, or like what is in a row."""
    names = [*look.used[0].value] if look.file.format in TABLES and source.header is None else []
    if len(names) > 1 and sum(map(bool, names)) == 1:
        return "Its first line looks like a title: delete it above the header"
    return HEADLESS if any(_is_content(name) for name in names) else ""


def _is_content(name: str) -> bool:
    """Whether a column's name is rather what a row holds: long, a sentence, or a number. `Lfd. Nr.` is neither."""
    is_sentence = name.strip().endswith("?") or (name.strip().endswith(".") and len(name.split()) >= WORDS)
    return len(name) > LONGEST_NAME or is_sentence or _is_number(name)


def _is_number(name: str) -> bool:
    return name.strip().lstrip("-").replace(".", "", 1).isdecimal()


def peek_records(source: Source, records: Iterable[Record], place: str) -> Peek:
    """Return a source with the columns that some of its records tell, wherever they come from."""
    found = Peek(source)
    parts = (part for record in itertools.islice(records, MOST_RECORDS) for part in _parts(source, record))
    if not (values := [part.value for part in parts]):
        found.problems.append(f"{place} has no row that is used")
    else:
        _tell(found, values, place)
    return found


def _tell(found: Peek, values: Sequence[dict[str, Any]], place: str) -> None:
    """Complete a source by its first records, and say what it was taken for."""
    if found.source.unrecognised:
        try:
            keys = recognise(found.source, values)
            given = found.source
            found.source = Source.model_validate(given.model_dump() | keys)
            if given.is_json and given.each is None:
                keys["columns"] = with_rare(found.source.shape, found.source.columns) | given.columns
                found.source = Source.model_validate(given.model_dump() | keys)
            found.seen = frozenset(name for value in values for name in value) | {*read_columns(found.source)}
        except Unclear as unclear:
            found.problems.append(_unclear(found.source, values, place, str(unclear)))
            return
        except ValidationError as error:
            told = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
            found.problems.append(f"{place}: taken for {describe_keys(keys)}; but {told}")
            return
    found.shape = describe(found.source, values)


def describe_keys(keys: dict[str, Any]) -> str:
    """Write columns as a manifest has them."""
    named = ", ".join(f"{ours}: {theirs}" for ours, theirs in keys["columns"].items())
    return f"columns: {{{named}}}"


def _unclear(source: Source, values: Sequence[dict[str, Any]], place: str, doubt: str) -> str:
    names = list(dict.fromkeys(name for value in values for name in value))
    more = f" and {len(names) - MOST_COLUMNS} more" if len(names) > MOST_COLUMNS else ""
    ways = "; or ".join(WAYS[shape] for shape in source.kinds)
    why = f": {doubt}" if doubt else ""
    what = f"role {source.role}" if source.formed is None else f"form {source.formed[0].name}"
    return (
        f"{place}: what {what} needs is not clear from its columns ({', '.join(names[:MOST_COLUMNS])}"
        f"{more}){why}. Write {ways}"
    )


class _Look(NamedTuple):
    """The first records of one file."""

    file: SourceFile
    first: Record | None
    used: list[Record]  # those with something that `where` asks for
    problem: str | None = None
    costs_itself: bool = False  # the problem is one document's, and the others are read


def _look(source: Source, file: SourceFile, most: int, *, among: bool = False) -> _Look:
    """Read a file up to some records that are used. What is broken behind the first of them is reported by a run.

    `among` others a text file without text is one that gives no row.
    """
    is_document = file.format in DOCUMENTS
    if file.size == 0 and not is_document:
        return _without_text(file, f"{file.name} is empty. Fill it, copy it again, or leave it out of path", among)
    first: Record | None = None
    used: list[Record] = []
    flaw = ""
    length = 0
    try:
        for record in window(source, read_file(file, source.reading)):
            if record.flaw is not None:
                flaw = flaw or record.flaw.detail
                continue
            first = first or record
            if _parts(source, record):
                used.append(record)
                length += _num_characters(record.value)
            if len(used) == (1 if source.is_plain_text else most) or length >= MOST_CHARACTERS:
                break
    except DataError as error:
        if not used:
            return _Look(file, first, [], str(error).rstrip("."))
    if first is None and flaw:
        return _Look(file, None, [], f"{flaw}; no row of the file can be used", is_document)
    if first is None:
        skipped = f" after the {source.skip} that skip leaves out" if source.skip else ""
        wrong = f"{file.name} has no row{skipped}"
        return _Look(file, None, [], wrong, costs_itself=True) if is_document else _without_text(file, wrong, among)
    return _Look(file, first, used)


def _without_text(file: SourceFile, problem: str, among: bool) -> _Look:
    """Return a file that gives no row: among others no problem if it is one of text."""
    if passed := among and file.format in TEXTS:
        file.tell(f"{file.name} has no text, and gives no row")
    return _Look(file, None, [], problem, costs_itself=passed)


def _num_characters(value: Any) -> int:
    """Count the characters of all texts in a value, and the bytes of pictures."""
    count, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str | bytes):
            count += len(item)
        elif isinstance(item, dict | list):
            rest.extend(item.values() if isinstance(item, dict) else item)
    return count


def _parts(source: Source, record: Record) -> list[Record]:
    """Return what `each` makes of a record, as far as `where` asks for it; without `where` a broken one counts too."""
    try:
        return [part for part in split_record(source, record) if is_chosen(source, part)]
    except UnusableRow:
        return [] if source.where else [record]


def _missing(source: Source, look: _Look) -> list[str]:
    """Return one line per named column that none of the first records of a file has."""
    assert look.first is not None, "a file without a record is a problem of its own"
    if not look.used:  # objects of several kinds in one file may have other columns than the ones that are chosen
        wrong = missing_columns(source, look.first.value, look.file.name)
        return [problem for problem in wrong if "(for where)" in problem or "(for each)" in problem]
    lacking = _lacking_in_all(source, look)
    if source.is_json:
        rare = [f"no column '{theirs}' (for {ours})" for ours, theirs in are_rare(source.shape, source.columns)]
        lacking = [problem for problem in lacking if not any(mark in problem for mark in rare)]
    if lacking and len(look.used) == 1:
        lacking = _lacking_in_all(source, _look(source, look.file, MOST_RECORDS))
    return lacking


def _lacking_in_all(source: Source, look: _Look) -> list[str]:
    found = [missing_columns(source, record.value, look.file.name) for record in look.used]
    subjects = [{problem.partition(". It has:")[0] for problem in problems} for problems in found]
    return [problem for problem in found[0] if all(problem.partition(". It has:")[0] in some for some in subjects)]
