"""Find every problem of a manifest before anything is spent: files, columns, licences, gates, leaks.

Usage: `files, problems = check_sources(manifest.sources, root)`; no problem is raised, all are returned.

It reads at most the first record of each local file and never asks the network. Problems further down a file are
reported when its rows are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.artifacts import digest_file
from common.data.schema import HELDOUT_ROLES, Source
from common.data.shapes import ABSENT, lookup
from common.data.sources import SUFFIXES, SourceFile, read_file
from common.errors import DataError, did_you_mean

Files = dict[str, list[SourceFile]]
_digests: dict[tuple[str, int, int], str] = {}


def cached_digest(path: Path) -> str:
    """Return a file's SHA-256, computed once per process while its size and time stay the same."""
    facts = path.stat()
    key = (str(path), facts.st_size, facts.st_mtime_ns)
    if key not in _digests:
        _digests[key] = digest_file(path)
    return _digests[key]


def check_sources(sources: Sequence[Source], root: Path) -> tuple[Files, list[str]]:
    """Return the local files of each enabled source, and one line per problem of a single source."""
    files: Files = {}
    problems: list[str] = []
    for source in sources:
        found: list[str] = []
        if not source.licence.strip():
            found.append("licence is empty; name it (such as cc-by-4.0), or write unknown")
        if source.enabled and source.gated and not _has_token():
            found.append(
                f"is gated and there is no token. Accept its terms on https://huggingface.co/datasets/{source.hub}, "
                "then run `hf auth login` or set HF_TOKEN; or set enabled: false"
            )
        if source.enabled and source.path is not None:
            files[source.id], wrong = _locate(source, root)
            found += wrong + [problem for file in files[source.id] for problem in _peek(source, file)]
        problems += [f"source '{source.id}': {problem}" for problem in found]
    return files, problems


def check_together(sources: Sequence[Source], files: Files) -> list[str]:
    """Return one line per problem between sources: one id twice, exam rows or held-out rows used for training."""
    problems = []
    ids = [source.id for source in sources]
    twice = [(name, ids.count(name)) for name in sorted({*ids}) if ids.count(name) > 1]
    problems += [f"source '{name}': {count} sources have this id; give each its own" for name, count in twice]
    enabled = [source for source in sources if source.enabled]
    same = _SameRows(files)
    for source in (source for source in enabled if source.role != "eval"):
        for other in enabled:
            if other.role == "eval" and (place := same.exam(source, other)):
                problems.append(
                    f"source '{source.id}': trains on {place}, which source '{other.id}' uses as an exam. "
                    "Give one of them another file or split"
                )
            if other.heldout and not _same_cut(source, other) and (place := same.rows(source, other)):
                problems.append(
                    f"source '{source.id}': trains on {place}, of which source '{other.id}' holds rows out. "
                    f"Give both the same columns, unit and heldout: {other.heldout}"
                )
    return problems


def check_essential(sources: Sequence[Source], roles: Sequence[str]) -> list[str]:
    """Return one line per role that no enabled source serves."""
    problems = []
    for role in roles:
        serving = [source for source in sources if source.part_for(role)]
        if not any(source.enabled for source in serving):
            disabled = ", ".join(f"'{source.id}'" for source in serving)
            remedy = f"Enable one of {disabled}" if disabled else f"Add one with {describe_role(role)}"
            problems.append(f"no enabled source has rows for {role}. {remedy}")
    return problems


def describe_role(role: str) -> str:
    """Say which keys make a source serve a corpus role."""
    if role == "preference_heldout":
        return "role: preference and a heldout share"
    kind, _, side = role.partition("_")
    if not side:
        return f"role: {role}"
    columns = "question, answer and choices" if kind == "questions" else "a text column"
    others = [source for source, heldout in HELDOUT_ROLES.items() if heldout == role]
    also = f", or a heldout share on role {' or '.join(others)}" if others else ""
    return f"role: eval, side: {side} and {columns}{also}"


def _has_token() -> bool:
    if os.environ.get("HF_TOKEN"):
        return True
    import huggingface_hub

    return huggingface_hub.get_token() is not None


def _locate(source: Source, root: Path) -> tuple[list[SourceFile], list[str]]:
    """Return the files that a source's paths mean, in a stable order without repeats, and what is wrong."""
    found: dict[Path, SourceFile] = {}
    problems = []
    for pattern in (source.path,) if isinstance(source.path, str) else source.path or ():
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            problems.append(f"path {pattern} leaves the data folder {root}. {_OUTSIDE}")
            continue
        try:
            paths = [root / pattern] if (root / pattern).exists() else sorted(root.glob(pattern))
        except ValueError as error:
            problems.append(f"path {pattern} is no pattern: {error}")
            continue
        paths = [path for path in paths if path.is_file()]
        if not paths:
            problems.append(_missing(pattern, root))
        for path in paths:
            name = path.relative_to(root).as_posix()
            if not path.resolve().is_relative_to(root.resolve()):
                problems.append(f"path {name} is a link that leaves the data folder {root}. {_OUTSIDE}")
            elif path.suffix.lower() not in SUFFIXES:
                problems.append(f"{name}: format '{path.suffix}' cannot be read. Expected {', '.join(SUFFIXES)}")
            else:
                found.setdefault(path.resolve(), SourceFile(path, name))
    return list(found.values()), problems


_OUTSIDE = "Give a path below it, and pass data_root=<folder> to read from another folder"


def _missing(pattern: str, root: Path) -> str:
    path = root / pattern
    if path.is_dir():
        return f"{pattern} is a folder. Give its files, such as {pattern.rstrip('/')}/*.jsonl"
    if any(sign in pattern for sign in "*?["):
        return f"no file matches {pattern} below {root}. Correct the pattern, or pass data_root=<folder>"
    names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"no file {pattern} below {root}.{did_you_mean(path.name, names)} Or pass data_root=<folder>"


def _peek(source: Source, file: SourceFile) -> list[str]:
    """Read a file's first record and compare its columns."""
    if file.path.stat().st_size == 0:
        return [f"{file.name} is empty"]
    try:
        record = next(read_file(file, source.unit), None)
    except DataError as error:
        return [str(error).rstrip(".")]
    if record is None:
        return [f"{file.name} has no row"]
    return missing_columns(source, record.value, file.name)


def missing_columns(source: Source, record: Mapping[str, object], place: str) -> list[str]:
    """Return one line per named column that a record lacks, with the columns that it has."""
    problems = []
    for ours, columns in source.named_columns.items():
        for column in (columns,) if isinstance(columns, str) else columns:
            if not _lacks(record, column):
                continue
            hint = did_you_mean(column, record)
            near = hint if "Did you mean" in hint else ""
            problems.append(f"{place} has no column '{column}' (for {ours}). It has: {', '.join(record)}.{near}")
    return problems


def _lacks(record: Mapping[str, object], column: str) -> bool:
    """Whether no record of this kind can have the column; an empty list or null on the way tells nothing."""
    if lookup(record, column) is not ABSENT:
        return False
    value: object = record
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return not (value is None or (isinstance(value, list) and part.isdecimal()))
    return False


def _same_cut(source: Source, other: Source) -> bool:
    """Whether two sources that read the same rows hold the same ones out."""
    facts = [(item.shape, item.named_columns, item.unit, item.heldout) for item in (source, other)]
    return facts[0] == facts[1]


class _SameRows:
    """Compares what two sources read: the same files (also copies of them), or the same split of a Hub data set."""

    def __init__(self, files: Files) -> None:
        by_size: dict[int, set[Path]] = {}
        for file in (file for found in files.values() for file in found):
            by_size.setdefault(file.path.stat().st_size, set()).add(file.path)
        # Only files of equal size can be copies, so that large files are rarely read here.
        twins = {path for paths in by_size.values() if len(paths) > 1 for path in paths}
        self._names = {
            name: {cached_digest(file.path) if file.path in twins else str(file.path): file.name for file in found}
            for name, found in files.items()
        }

    def exam(self, source: Source, exam: Source) -> str | None:
        """Name what both read, or None. A test or validation split counts whatever the configuration."""
        if source.hub is not None and source.hub == exam.hub:
            split = _split(source)
            if split == _split(exam) and split != "train":
                return f"split '{split}' of {source.hub}"
        return self.rows(source, exam)

    def rows(self, source: Source, other: Source) -> str | None:
        """Name what both read, or None."""
        if source.hub is not None:
            same = (source.hub, source.config, _split(source)) == (other.hub, other.config, _split(other))
            files = source.data_files == other.data_files or None in (source.data_files, other.data_files)
            return f"split '{_split(source)}' of {source.hub}" if same and files else None
        mine, theirs = self._names.get(source.id, {}), self._names.get(other.id, {})
        for key in sorted(mine.keys() & theirs.keys()):
            return mine[key] if mine[key] == theirs[key] else f"{mine[key]} (a copy of {theirs[key]})"
        return None


def _split(source: Source) -> str:
    return (source.split or "").partition("[")[0]  # `test[:50%]` is a part of test
