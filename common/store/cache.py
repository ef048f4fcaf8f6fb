"""What is read again sooner than worked out again, in the user's cache folder: digests of files, lengths of rows.

Usage: `known = cache.read("rows/1f3a")`; `cache.write("rows/1f3a", {"rows": 12})`; `known_digest(path)`;
`cache.remembered("rows", [path, size], count, check)`.

Nothing depends on it. What is missing or damaged is worked out again; a folder that cannot be written is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import RecipeError
from common.store.artifacts import digest_file, write_json
from common.system.files import read_bytes

FOLDER = "domain-recipes"
MOST_FILES = 1000  # of a folder; then the older half goes
MOST_OF = {"tasks": 4}  # of folders whose files are large
LARGE = 2**20  # bytes; smaller files are digested sooner than looked up
SETTLED = 2_000_000_000  # nanoseconds: a file changed later than that may change again under the same time
Stamp = list[int]


def folder() -> Path:
    """Return the cache folder, which may not exist: `$XDG_CACHE_HOME`, else `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / FOLDER


def read(name: str) -> dict[str, Any]:
    """Return what was written under a name; an empty mapping where nothing usable is there."""
    try:
        found = json.loads(read_bytes(folder() / f"{name}.json"))
    except (OSError, ValueError, RuntimeError):  # also of no home folder, and of thousands of brackets
        return {}
    return found if isinstance(found, dict) else {}


def write(name: str, value: dict[str, Any]) -> None:
    """Write a mapping under a name, whole or not at all."""
    with contextlib.suppress(OSError, RecipeError, RuntimeError):
        path = folder() / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
        _forget_old(path.parent)


def remembered(
    folder: str, facts: list[Any], make: Callable[[], dict[str, Any]], check: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Return what was made of some facts before, or make it now and write it.

    `check` raises AttributeError, KeyError, TypeError or ValueError for what is damaged.
    """
    name = f"{folder}/" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    found = read(name)
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        check(found)
        return found
    made = make()
    write(name, made)
    return made


def _forget_old(where: Path) -> None:
    files = list(where.glob("*.json"))
    if len(files) > MOST_OF.get(where.name, MOST_FILES):
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[: len(files) // 2]:
            path.unlink(missing_ok=True)


def stamp_of(path: Path) -> Stamp:
    """Return what changes whenever a file does: its size, both of its times, and which file it is."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def known_digest(path: Path) -> str:
    """Return a file's SHA-256. It is computed once while the stamp stays the same, of a large file for all runs."""
    stamp = stamp_of(path)
    if stamp[0] < LARGE:
        is_settled = max(stamp[1:3]) < time.time_ns() - SETTLED
        return _small_digest(path, tuple(stamp)) if is_settled else digest_file(path)
    return _large_digest(path.resolve(), tuple(stamp))


def seen_digest(path: Path) -> str | None:
    """Return the same, but None for a large file that was never digested here: it would have to be read."""
    large = path.stat().st_size >= LARGE
    return None if large and str(path.resolve()) not in read("digests") else known_digest(path)


def remember(digests: Mapping[Path, str]) -> None:
    """Note the digests of files that this process has just written, and that nobody else writes."""
    large = {path: digest for path, digest in digests.items() if path.stat().st_size >= LARGE}
    if large:
        new = {str(path.resolve()): [stamp_of(path), digest] for path, digest in large.items()}
        write("digests", {**_existing(), **new})


@functools.lru_cache(maxsize=65536)
def _small_digest(path: Path, stamp: tuple[int, ...]) -> str:
    return digest_file(path)


def _existing() -> dict[str, Any]:
    return {path: facts for path, facts in read("digests").items() if Path(path).exists()}


@functools.cache
def _large_digest(path: Path, stamp: tuple[int, ...]) -> str:
    name = str(path)
    found = read("digests").get(name)
    if isinstance(found, list) and len(found) == 2 and found[0] == list(stamp):
        return str(found[1])
    digest = digest_file(path)
    if max(stamp[1:3]) < time.time_ns() - SETTLED and stamp_of(path) == list(stamp):
        write("digests", {**_existing(), name: [list(stamp), digest]})
    return digest
