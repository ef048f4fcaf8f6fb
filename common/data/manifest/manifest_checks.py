"""Find every problem of a manifest before anything is spent: files, columns, licences, gates, leaks.

Usage: `checked = check_sources(manifest.sources, root, read)`; no problem is raised, all are in `checked.problems`.

Of files it reads the first records (`common.data.manifest.peeking`), of the Hub only what tells columns that the
manifest leaves out. Problems further down a file are reported when its rows are read.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.validation import explain
from common.data.manifest.descriptions import describe
from common.data.manifest.files.locate import Left, locate
from common.data.manifest.files.remote import Note
from common.data.manifest.files.source_file import Findings
from common.data.manifest.hub import gate_problem
from common.data.manifest.peeking import Peek, peek, peek_records
from common.data.manifest.readers import Record, SourceFile
from common.data.manifest.records import window
from common.data.manifest.schema import Manifest, Source
from common.data.manifest.source_keys import HELDOUT_ROLES
from common.errors import DataError

NO_LICENCE = "licence is empty; name it (such as cc-by-4.0), or write unknown"
MOST_PAIRS = 1_000_000  # of sources that read the same file, compared in seconds
Files = dict[str, list[SourceFile]]
# Given which corpus roles have rows, the names of the pipelines that need no others.
Suited = Callable[[Callable[[str], bool]], Sequence[str]]


def parse_manifest(raw: Mapping[str, Any]) -> tuple[Manifest | None, list[Source], list[str]]:
    """Return the manifest (None when a key or value is wrong), the sources that are right, and the problems."""
    try:
        manifest = Manifest.model_validate(raw)
        return manifest, list(manifest.sources), []
    except ValidationError as error:
        problems = explain(error, Manifest, raw)
    right = []
    entries = raw.get("sources")
    for entry in entries if isinstance(entries, list) else []:
        try:
            right.append(Source.model_validate(entry))
        except ValidationError:  # already among the problems, its licence perhaps not
            if isinstance(entry, dict) and not str(entry.get("licence") or "").strip():
                problems.append(f"source '{entry.get('id')}': {NO_LICENCE}")
    return None, right, problems


@dataclass
class CheckedSources:
    """The sources of a manifest with the columns that were recognised, their files, and what is wrong with each."""

    sources: list[Source]
    files: Files
    shapes: dict[str, str]  # what the rows of a source were taken for
    problems: list[str]
    findings: dict[str, Findings]  # what was found out about the data of a source
    seen: dict[str, frozenset[str]] = field(default_factory=dict)  # columns of sources that were recognised


def check_sources(
    sources: Sequence[Source],
    root: Path,
    of_hub: Callable[[Source], Iterator[Record]],
    note: Note = lambda *_: None,
) -> CheckedSources:
    """Return the sources, the local files of each enabled one, and one line per problem of a single source.

    `of_hub` reads a data set of the Hub: only for those whose columns are not named. `note` keeps which content an
    address had.
    """
    done = CheckedSources([], {}, {}, [], {source.id: Findings(source.id) for source in sources})
    left = Left()
    for source in sources:
        problems: list[str] = []
        found = Peek(source)
        if not source.licence.strip():
            problems.append(NO_LICENCE)
        gate = gate_problem(source) if source.enabled else None
        if source.enabled and source.path is not None:
            located, wrong = locate(source.paths, source.split, root, left, note)
            done.files[source.id] = [
                file._replace(tell=functools.partial(done.findings[source.id], file=file.name)) for file in located
            ]
            problems += wrong
            found = peek(source, done.files[source.id])
        elif source.enabled and gate is None:
            found = _peek_hub(source, of_hub)
        done.sources.append(found.source)
        if found.shape:
            done.shapes[source.id] = found.shape
        if found.seen is not None:
            done.seen[source.id] = found.seen
        problems += [*([gate] if gate else []), *found.problems]
        done.problems += [f"source '{source.id}': {problem}" for problem in problems]
    return done


def _peek_hub(source: Source, of_hub: Callable[[Source], Iterator[Record]]) -> Peek:
    if not source.unrecognised:
        return Peek(source, shape=describe(source))
    try:
        return peek_records(source, window(source, of_hub(source)), f"{source.hub}[{source.split}]")
    except DataError as error:
        message = str(error).removeprefix(f"Source '{source.id}': ").rstrip(".")
        return Peek(source, [f"{message}; with columns named, it is not asked before a run"])


def check_together(sources: Sequence[Source], files: Files) -> Iterator[str]:
    """Yield one line per problem between sources: one id twice, exam rows or held-out rows used for training."""
    for name, count in sorted(Counter(source.id for source in sources).items()):
        if count > 1:
            yield f"source '{name}': {count} sources have this id; give each its own"
    enabled = [source for source in sources if source.enabled]
    same = _SameRows(files)
    kept: dict[str, dict[int, Source]] = {}  # sources whose rows others may not use, by what they read
    for number, source in enumerate(enabled):
        for key in same.keys(source) if source.role == "eval" or source.heldout else ():
            kept.setdefault(key, {})[number] = source
    training = [source for source in enabled if source.role != "eval"]
    if sum(len(kept.get(key, ())) for source in training for key in same.keys(source)) > MOST_PAIRS:
        yield f"so many sources read the same files that there are over {MOST_PAIRS:,} pairs to compare. Join sources"
        return
    for source in training:
        near = {number: other for key in same.keys(source) for number, other in kept.get(key, {}).items()}
        for _, other in sorted(near.items()):
            if other.role == "eval" and (place := same.exam(source, other)):
                yield (
                    f"source '{source.id}': trains on {place}, which source '{other.id}' uses as an exam. "
                    "Give one of them another file or split"
                )
            if other.heldout and not _same_cut(source, other) and (place := same.rows(source, other)):
                keys = "columns, form, unit" + (", skip, take, every, where" if _joins(source) or _joins(other) else "")
                yield (
                    f"source '{source.id}': trains on {place}, of which source '{other.id}' holds rows out. "
                    f"Give both the same {keys} and heldout: {other.heldout}"
                )


def check_essential(sources: Sequence[Source], roles: Sequence[str], suited: Suited) -> Iterator[str]:
    """Yield one line per role that no enabled source serves, with the pipelines that need none but served ones."""
    others = ""
    for role in roles:
        serving = [source for source in sources if source.part_for(role)]
        if any(source.enabled for source in serving):
            continue
        disabled = ", ".join(f"'{source.id}'" for source in serving)
        remedy = f"Enable one of {disabled}" if disabled else f"Add one with {describe_role(role)}"
        if role == "pretrain":
            remedy += ", or start from a checkpoint: model.path=<folder, or owner/name of the Hub>"
        elif not others and (names := suited(lambda role: any(s.enabled and s.part_for(role) for s in sources))):
            others = f", or take a pipeline that these data have rows for: {', '.join(names)}"
            remedy += others
        yield f"no enabled source has rows for {role}. {remedy}"


def describe_role(role: str) -> str:
    """Say which keys make a source serve a corpus role."""
    if role == "preference_heldout":
        return "role: preference and a heldout share"
    kind, _, side = role.partition("_")
    if not side:
        return f"role: {role}"
    columns = "question, answer and choices (or match)" if kind == "questions" else "a text column"
    others = [source for source, heldout in HELDOUT_ROLES.items() if heldout == role]
    also = f", or a heldout share on role {' or '.join(others)}" if others else ""
    return f"role: eval, side: {side} and {columns}{also}"


def _same_cut(source: Source, other: Source) -> bool:
    """Whether two sources that read the same rows hold the same ones out."""
    keys = ("shape", "cut", "each", "heldout")
    return all(getattr(source, key) == getattr(other, key) for key in keys) and _rows_of(source) == _rows_of(other)


def _rows_of(source: Source) -> Any:
    """Return what decides the texts by which the rows of a source are known; a translation is so in both directions.

    Where records are joined, which ones are chosen decides it too.
    """
    form, own = source.formed or (None, None)
    where = {column: {*values} for column, values in source.where.items()}
    joined = (source.skip, source.take, source.every, where) if _joins(source) else ()
    if form is not None and form.cuts is not None:
        reading = source.reading._replace(columns=())
        columns = {str(column) for column in source.named_columns.values()}
        return reading, form.cuts(own), columns, [*source.where], joined
    return source.reading, source.named_columns, source.form, joined


def _joins(source: Source) -> bool:
    """Whether several records of a source make one row."""
    return source.formed is not None and source.formed[0].joins(source.formed[1]) > 1


def _apart(source: Source, other: Source) -> bool:
    """Whether two sources that read one file, or one split, use different records of it, whatever is in them.

    Places are those of the file's own records, before `where`, `each` and `cut`; `unit`, `header` and the like say
    what counts as one. Sources that count, or name the columns, differently never count as apart.
    """
    if source.reading._replace(columns=()) != other.reading._replace(columns=()):
        return False
    ends = [None if item.take is None else item.skip + item.take for item in (source, other)]
    if (ends[0] is not None and ends[0] <= other.skip) or (ends[1] is not None and ends[1] <= source.skip):
        return True
    shared = source.where.keys() & other.where.keys() if source.each == other.each else set()
    return any(not {*source.where[column]} & {*other.where[column]} for column in shared)


class _SameRows:
    """Compares what two sources read: the same files (also copies of them), or the same split of a Hub data set."""

    def __init__(self, files: Files) -> None:
        by_size: dict[int, set[Path]] = {}
        for file in (file for found in files.values() for file in found):
            by_size.setdefault(file.size, set()).add(file.path)
        # Only files of equal size can be copies, so that large files are rarely read here.
        twins = {path for paths in by_size.values() if len(paths) > 1 for path in paths}
        self._names = {
            name: {file.digest if file.path in twins else str(file.path): file.name for file in found}
            for name, found in files.items()
        }

    def keys(self, source: Source) -> list[str]:
        """Return what a source reads: two that have none of it in common read no same row."""
        return [f"hub {source.hub}"] if source.hub is not None else list(self._names.get(source.id, {}))

    def exam(self, source: Source, exam: Source) -> str | None:
        """Name what both read, or None. A test or validation split counts whatever the configuration."""
        if source.hub is not None and source.hub == exam.hub and not _apart_on_hub(source, exam):
            split = _split(source)
            if split == _split(exam) and split != "train":
                return f"split '{split}' of {source.hub}"
        return self.rows(source, exam)

    def rows(self, source: Source, other: Source) -> str | None:
        """Name what both read, or None."""
        if source.hub is not None:
            same = (source.hub, source.config, _split(source)) == (other.hub, other.config, _split(other))
            files = source.data_files == other.data_files or None in (source.data_files, other.data_files)
            same = same and files and not _apart_on_hub(source, other)
            return f"split '{_split(source)}' of {source.hub}" if same else None
        mine, theirs = self._names.get(source.id, {}), self._names.get(other.id, {})
        for key in sorted(mine.keys() & theirs.keys()):
            # A copy under another suffix is read by other rules: front matter of md, commas of csv.
            alike = Path(mine[key]).suffix.lower() == Path(theirs[key]).suffix.lower()
            if not (alike and _apart(source, other)):
                return mine[key] if mine[key] == theirs[key] else f"{mine[key]} (a copy of {theirs[key]})"
        return None


def _apart_on_hub(source: Source, other: Source) -> bool:
    """Like `_apart`; places count from the same start only in the same files of the same split."""
    keys = ("config", "split", "revision", "data_files")
    return all(getattr(source, key) == getattr(other, key) for key in keys) and _apart(source, other)


def _split(source: Source) -> str:
    return (source.split or "").partition("[")[0]  # `test[:50%]` is a part of test
