"""Find the files that the paths of a source mean: below the data folder, or at an address of another machine.

Usage: `files, problems = locate(["texts/*.jsonl.gz"], split=None, root=Path("data"))`; no problem is raised.

It looks at names, not into files, but for the two small ones that say how a folder of `save_to_disk` is made up.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.manifest.files.arrow import is_saved, shards_of
from common.data.manifest.files.remote import Note, below, fetch, is_address
from common.data.manifest.files.source_file import READABLE, SourceFile, is_readable
from common.errors import DataError, did_you_mean, quoted
from common.system.files import kind_of
from common.system.limited import LOOK_SECONDS, Exceeded, limited

_OUTSIDE = "Give a path below it, and pass data_root=<folder> to read from another folder"
_TABLE, _PACKED = "Save the sheet as .csv", "Unpack it, and give the files in it"
_WORD, _BOOK = "Save it as .docx", "Convert it to .epub"
ADVICE = {
    ".xlsx": _TABLE, ".xls": _TABLE, ".ods": _TABLE, ".zip": _PACKED, ".tar": _PACKED, ".tgz": _PACKED, ".7z": _PACKED,
    ".doc": _WORD, ".odt": _WORD, ".rtf": _WORD, ".pptx": "Save it as .pdf", ".ppt": "Save it as .pdf",
    ".mobi": _BOOK, ".azw3": _BOOK, ".djvu": "Save it as .pdf", ".mht": "Save it as .html",
    ".arc": "Convert it to .warc", ".pkl": "Save it as .jsonl or .parquet; pickles are never read",
}  # fmt: skip
_HUB_FOLDERS = ("datasets--", "models--", "spaces--")
MOST_FILES = 100_000  # of a manifest
SECONDS = 30.0  # of the processor to find what its patterns match; `**` may walk through a whole disk
MEMORY = 2**31


@dataclass
class Left:
    """What the sources of a manifest may still have together."""

    files: int = MOST_FILES
    seconds: float = SECONDS


def locate(
    patterns: Sequence[str], split: str | None, root: Path, left: Left | None = None, note: Note = lambda *_: None
) -> tuple[list[SourceFile], list[str]]:
    """Return the files that paths mean, in a stable order without repeats, and what is wrong.

    `note` keeps which content an address of another machine had.
    """
    left = left or Left()
    found: dict[Path, SourceFile] = {}
    problems = []
    for pattern in patterns:
        if is_address(pattern):
            try:
                if not pattern.lower().startswith("file:"):
                    for file in fetch(pattern, note):
                        found.setdefault(file.path, _checked(file, split))
                        left.files -= 1
                    continue
                pattern = below(pattern, root)
            except DataError as error:
                problems.append(str(error).rstrip("."))
                continue
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            problems.append(f"path {pattern} leaves the data folder {root}. {_OUTSIDE}")
            continue
        try:
            paths = [root / pattern] if (root / pattern).exists() else _matches(pattern, root, left)
        except DataError as error:
            problems.append(str(error))
            continue
        except ValueError as error:
            problems.append(f"path {pattern} is no pattern: {error}")
            continue
        except OSError as error:  # a name that no system can have
            problems.append(f"path {quoted(pattern)} cannot be looked up: {error.strerror}. Correct it")
            continue
        # Systems leave hidden files beside others, such as `._a.jsonl`; a pattern does not mean them.
        paths = [path for path in paths if path.is_file() or is_saved(path)]
        paths = [path for path in paths if path == root / pattern or not path.name.startswith(".")]
        is_first, left.files = left.files >= 0, left.files - len(paths)
        if left.files < 0:
            if not is_first:
                break
            problems.append(
                f"path {pattern}: the files of all sources are more than {MOST_FILES:,}, the most that is read. Join "
                "their rows in fewer files, such as one .jsonl"
            )
            break
        if not paths:
            problems.append(_missing(pattern, root))
        for path in paths:
            try:
                real = path.resolve()
                found.setdefault(real, _file(path, real, split, root))
            except DataError as error:
                problems.append(str(error))
    return list(found.values()), problems


def _checked(file: SourceFile, split: str | None) -> SourceFile:
    """Return a file that was fetched. Raises DataError where it cannot be read."""
    if not is_readable(file.path.name):
        raise DataError(f"{file.name}: format '{file.path.suffix}' cannot be read. {_advice(file.path)}")
    if split is not None:
        raise DataError(
            f"{file.name} is a file, and split only makes sense with a folder of save_to_disk. Remove split"
        )
    return file


def _advice(path: Path) -> str:
    return ADVICE.get(path.suffix.lower(), f"Expected {READABLE}")


def _matches(pattern: str, root: Path, left: Left) -> list[Path]:
    """Return what a pattern matches, sorted: more than may be left where there is more. Raises DataError."""
    started = time.thread_time()
    try:
        with limited(left.seconds, MEMORY):
            return sorted(itertools.islice(root.glob(pattern), max(0, left.files) + 1))
    except (Exceeded, RecursionError) as limit:
        what = f"took more than {SECONDS:g} seconds" if isinstance(limit, Exceeded) else "lead too deep"
        raise DataError(
            f"path {pattern}: the folders below {root} that it may match {what}. Name the folder, as in texts/*.jsonl"
        ) from None
    finally:
        left.seconds = max(LOOK_SECONDS, left.seconds - (time.thread_time() - started))


def _file(path: Path, real: Path, split: str | None, root: Path) -> SourceFile:
    """Return a file, or the shards of a folder, as one of a source. Raises DataError where it may not be read."""
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        try:
            shards = shards_of(path, split)
        except DataError as error:
            raise DataError(f"{name} {error}") from error
    elif not is_readable(path.name):
        raise DataError(f"{name}: format '{''.join(path.suffixes[-2:])}' cannot be read. {_advice(path)}")
    elif split is not None:
        raise DataError(f"{name} is a file, and split only makes sense with a folder of save_to_disk. Remove split")
    else:
        shards = ()
    home = root.resolve()
    for place in [shard.resolve() for shard in shards] or [real]:
        if not _stays(place, home):
            raise DataError(f"path {name} is a link that leaves the data folder {root}. {_OUTSIDE}")
    return SourceFile(path, name, shards=shards)


def _stays(path: Path, root: Path) -> bool:
    """Whether a path is below the data folder, or among the blobs of the Hub's cache that its snapshot links to."""
    if path.is_relative_to(root):
        return True
    repositories = [folder for folder in root.parents if folder.name.startswith(_HUB_FOLDERS)]
    return any(root.is_relative_to(own / "snapshots") and path.parent == own / "blobs" for own in repositories)


def _missing(pattern: str, root: Path) -> str:
    path = root / pattern
    if path.is_symlink():
        return f"{pattern} is a link to {path.readlink()}, which is no file there. Copy or download the file again"
    if (kind := kind_of(path)) and not path.is_dir():
        return f"{pattern} is {kind}, not a file that can be read again. Write what it gives into a file"
    if path.is_dir():
        return f"{pattern} is a folder. Give its files, such as {pattern.rstrip('/')}/*.jsonl"
    if any(sign in pattern for sign in "*?["):
        return f"no file matches {pattern} below {root}. Correct the pattern, or pass data_root=<folder>"
    names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"no file {pattern} below {root}.{did_you_mean(path.name, names)} Or pass data_root=<folder>"
