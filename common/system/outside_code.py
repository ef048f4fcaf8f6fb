"""Code that is not part of the package: what it is by its bytes, whether this process may run it, and where from.

Usage: `allow(files)` once the user's consent is checked; `require(files, "./mine")` and `private_folder(files, others)`
right before anything imports them.

A file may run if its very bytes were allowed, wherever it lies. What runs is a private copy of the bytes that were
compared, so that an edit in between changes nothing. Who consents to what is `common.system.consents`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from common.errors import ConfigError
from common.system.files import read_bytes
from common.system.signals import before_leaving

Files = Mapping[str, bytes]  # names with slashes -> what is in them
DIGITS = 32  # of a digest: 128 bits, so that nobody can make other code with the same
MOST_BYTES = 64 * 2**20
MOST_FILES = 10_000
_allowed: set[str] = set()  # SHA-256 of files that this process may run; what is not in it may not
_private: dict[str, tempfile.TemporaryDirectory[str]] = {}  # what is in it -> a folder, removed when the process ends


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests_of(files: Files) -> dict[str, str]:
    """Return the SHA-256 of each file, in the order of their names."""
    return {name: sha256(data) for name, data in sorted(files.items())}


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest for files by their names and digests."""
    return sha256(repr(sorted(digests.items())).encode())[:DIGITS]


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder by name. What is hidden, `__pycache__`, an editor's copies and links to folders are
    passed over.

    Python takes compiled code from `__pycache__` without a look at its source; nothing that runs may come from there.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(x for x in folders if not x.startswith(".") and x != "__pycache__")
        for name in sorted(x for x in names if not x.startswith((".", "#")) and not x.endswith("~")):
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), path


def read_files(found: Iterable[tuple[str, Path]], whose: str) -> dict[str, bytes]:
    """Return the bytes of files that may be code. Raises ConfigError for too many, DataError for what is no file."""
    files: dict[str, bytes] = {}
    size = 0
    for name, path in found:
        with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere
            size += path.stat().st_size
            if size > MOST_BYTES or len(files) == MOST_FILES:
                raise ConfigError(
                    f"{whose} holds more than {MOST_BYTES >> 20} MiB or {MOST_FILES:,} files of what may be code, at "
                    f"{name}: too much to consent to. Keep data in files that a manifest reads, or elsewhere."
                )
            files[name] = read_bytes(path)
    return files


def allow(files: Files) -> None:
    """Let this process run these very bytes."""
    _allowed.update(map(sha256, files.values()))


def allowed_digests() -> list[str]:
    """Return what this process may run, to pass it on to a process of its own."""
    return sorted(_allowed)


def allow_digests(digests: Iterable[str]) -> None:
    """Let a process that was started for it run what its starter may run."""
    _allowed.update(digests)


def may_run(files: Files) -> bool:
    """Whether this process may run all of some files."""
    return all(sha256(data) in _allowed for data in files.values())


def require(files: Files, whose: str) -> None:
    """Raise ConfigError unless this process may run all of these files."""
    if changed := [name for name, data in files.items() if sha256(data) not in _allowed]:
        raise ConfigError(
            f"{whose}: this run may not execute {', '.join(changed[:5])}: the code changed since the run began, or "
            "nobody allowed it. Start the run again; it names the code."
        )


def private_folder(name: str, files: Files, others: Mapping[str, Path]) -> Path:
    """Return a folder that only this user can write, with copies of files and links to others that are no code."""
    key = sha256(repr((name, digests_of(files), sorted(others.items()))).encode())
    if key not in _private:
        made = tempfile.TemporaryDirectory(prefix="allowed-code-", ignore_cleanup_errors=True)
        before_leaving.append(made.cleanup)
        place = Path(made.name, name)
        for part in (*files, *others):
            (place / part).parent.mkdir(parents=True, exist_ok=True)
        for part, data in files.items():
            (place / part).write_bytes(data)
        for part, path in others.items():
            (place / part).symlink_to(path.absolute())
        _private[key] = made
    return Path(_private[key].name, name)
