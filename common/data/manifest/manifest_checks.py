"""Find every problem of a manifest before anything is spent: files, columns, licences, gates, leaks.

Usage: `files, problems = check_sources(manifest.sources, root)`; no problem is raised, all are returned.

It reads local files up to the first record that is used and never asks the network: that is
`common.data.manifest.hub`. Problems further down a file are reported when its rows are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.validation import explain
from common.data.manifest.files.locate import locate
from common.data.manifest.files.source_file import Told
from common.data.manifest.hub import gate_problem
from common.data.manifest.readers import Record, SourceFile, read_file
from common.data.manifest.records import is_chosen, missing_columns, split_record, window
from common.data.manifest.schema import HELDOUT_ROLES, Manifest, Source
from common.data.manifest.values import UnusableRow
from common.errors import DataError

NO_LICENCE = "licence is empty; name it (such as cc-by-4.0), or write unknown"
Files = dict[str, list[SourceFile]]


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


def check_sources(sources: Sequence[Source], root: Path) -> tuple[Files, list[str]]:
    """Return the local files of each enabled source, and one line per problem of a single source."""
    files: Files = {}
    problems: list[str] = []
    for source in sources:
        found: list[str] = []
        if not source.licence.strip():
            found.append(NO_LICENCE)
        if source.enabled and (gate := gate_problem(source)):
            found.append(gate)
        if source.enabled and source.path is not None:
            located, wrong = locate(source.paths, source.split, root)
            told = Told(source.id)
            files[source.id] = [file._replace(tell=told) for file in located]
            found += wrong + _peek_all(source, files[source.id])
        problems += [f"source '{source.id}': {problem}" for problem in found]
    return files, problems


def check_together(sources: Sequence[Source], files: Files) -> Iterator[str]:
    """Yield one line per problem between sources: one id twice, exam rows or held-out rows used for training."""
    for name, count in sorted(Counter(source.id for source in sources).items()):
        if count > 1:
            yield f"source '{name}': {count} sources have this id; give each its own"
    enabled = [source for source in sources if source.enabled]
    same = _SameRows(files)
    for source in (source for source in enabled if source.role != "eval"):
        for other in enabled:
            if other.role == "eval" and (place := same.exam(source, other)):
                yield (
                    f"source '{source.id}': trains on {place}, which source '{other.id}' uses as an exam. "
                    "Give one of them another file or split"
                )
            if other.heldout and not _same_cut(source, other) and (place := same.rows(source, other)):
                yield (
                    f"source '{source.id}': trains on {place}, of which source '{other.id}' holds rows out. "
                    f"Give both the same columns, unit and heldout: {other.heldout}"
                )


def check_essential(sources: Sequence[Source], roles: Sequence[str]) -> Iterator[str]:
    """Yield one line per role that no enabled source serves."""
    for role in roles:
        serving = [source for source in sources if source.part_for(role)]
        if any(source.enabled for source in serving):
            continue
        disabled = ", ".join(f"'{source.id}'" for source in serving)
        remedy = f"Enable one of {disabled}" if disabled else f"Add one with {describe_role(role)}"
        if role == "pretrain":
            remedy += ", or start from a checkpoint: model.path=<folder, or owner/name of the Hub>"
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


def _peek_all(source: Source, files: Sequence[SourceFile]) -> list[str]:
    """Read the first used record of each file and compare its columns."""
    peeked = [_peek(source, file) for file in files]
    problems = [problem for wrong, _ in peeked for problem in wrong]
    if files and not problems and not any(chosen for _, chosen in peeked):
        conditions = ", ".join(f"{column}: {' or '.join(values)}" for column, values in source.where.items())
        problems.append(f"no record of {', '.join(file.name for file in files)} has where {conditions}")
    return problems


def _peek(source: Source, file: SourceFile) -> tuple[list[str], bool]:
    """Return the problems of a file's first used record, and whether there is a record that `where` chooses."""
    if file.size == 0:
        return [f"{file.name} is empty"], False
    first = flaw = None
    try:
        for record in window(source, read_file(file, source.reading)):
            if record.flaw is not None:
                flaw = flaw or record.flaw
                continue
            first = first or record
            if _chooses(source, record):
                return missing_columns(source, record.value, file.name), True
    except DataError as error:
        return [str(error).rstrip(".")], False
    if first is None and flaw is not None:
        return [f"{flaw.detail}; no row of the file can be used"], False
    if first is None:
        skipped = f" after the {source.skip} that skip leaves out" if source.skip else ""
        return [f"{file.name} has no row{skipped}"], False
    wrong = missing_columns(source, first.value, file.name)
    # Objects of several kinds in one file may have other columns than the ones that are chosen.
    return [problem for problem in wrong if "(for where)" in problem or "(for each)" in problem], False


def _chooses(source: Source, record: Record) -> bool:
    try:
        return any(is_chosen(source, part) for part in split_record(source, record))
    except UnusableRow:
        return not source.where


def _same_cut(source: Source, other: Source) -> bool:
    """Whether two sources that read the same rows hold the same ones out."""
    keys = ("shape", "named_columns", "reading", "cut", "each", "heldout")
    return all(getattr(source, key) == getattr(other, key) for key in keys)


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
