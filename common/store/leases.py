"""Leases: which results a run that is under way reads or makes, so that nobody removes them meanwhile.

Usage: `with leased(store.artifacts) as lease: lease.add("base-0123456789abcdef")`; `names_in_use(store.artifacts)`.

A lease is a file that its process holds locked, so that the system frees it when the process dies, however it dies.
Results are named before they are looked at, and removed only under `guarded`: a result that a run has found stays.
Who makes a result is another question: `common.store.locks`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.store.manifest import read_mapping

FOLDER = ".leases"
LOOK_SECONDS = 0.01  # between two looks at the guard, which nobody holds for long
PATIENCE_SECONDS = 10.0  # somebody may be looking whether a new lease is held
# A store that cannot be written: a run that finds everything there reads it all the same.
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR)


@dataclass
class Lease:
    """The results that one run uses. Without a path nothing is written."""

    artifacts: Path
    path: Path | None
    facts: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def add(self, *names: str) -> None:
        """Name further results. Whatever is there when this returns stays until the run ends."""
        if self.path is None or self.names.issuperset(names):
            return
        self.names.update(names)
        with guarded(self.artifacts):
            self._write()

    def _write(self) -> None:
        assert self.path is not None, "a lease without a file writes none"
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({**self.facts, "results": sorted(self.names)}), encoding="utf-8")
        os.replace(fresh, self.path)


@contextlib.contextmanager
def guarded(artifacts: Path) -> Iterator[None]:
    """Let no other process begin to use a result, or remove one, for a moment."""
    import filelock

    path = artifacts / ".locks" / "store.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path).acquire(poll_interval=LOOK_SECONDS):
        yield


@contextlib.contextmanager
def leased(artifacts: Path, **facts: str) -> Iterator[Lease]:
    """Hold a lease for as long as a run lasts, with what others should know of it. Raises OSError on a full disk."""
    with contextlib.ExitStack() as held:
        try:
            lease = held.enter_context(_held(artifacts, facts))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            lease = Lease(artifacts, None)
        yield lease


@contextlib.contextmanager
def _held(artifacts: Path, facts: Mapping[str, str]) -> Iterator[Lease]:
    import filelock

    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    lock = filelock.FileLock(artifacts / FOLDER / f"{name}.lock")
    lease = Lease(
        artifacts, artifacts / FOLDER / f"{name}.json", {"host": platform.node(), "pid": os.getpid(), **facts}
    )
    with guarded(artifacts):
        (artifacts / FOLDER).mkdir(exist_ok=True)
        lock.acquire(timeout=PATIENCE_SECONDS)
        lease._write()
    try:
        yield lease
    finally:
        with contextlib.suppress(OSError):  # whoever looks next finds it dead
            _forget(Path(lock.lock_file))
        lock.release()


def live(artifacts: Path, *, clean: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what is known of the runs that are under way. With `clean`, under the guard, dead leases are removed."""
    import filelock

    for path in sorted((artifacts / FOLDER).glob("*.lock")):
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except (filelock.Timeout, OSError):  # who may not look takes it for held
            yield read_mapping(path.with_suffix(".json"))
            continue
        if clean:
            _forget(path)
        lock.release()


def under_way(artifacts: Path) -> list[dict[str, Any]]:
    """Return what is known of the runs that are under way. No two look at once: each takes the other for a holder."""
    if not (artifacts / FOLDER).is_dir():
        return []
    try:
        with guarded(artifacts):
            return list(live(artifacts, clean=True))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
    return list(live(artifacts))


def names_in_use(artifacts: Path, *, clean: bool = False) -> set[str]:
    """Return the results that runs which are under way read or make."""
    found: set[str] = set()
    for facts in live(artifacts, clean=clean):
        results = facts.get("results", [])
        found.update(map(str, results if isinstance(results, list) else []))
    return found


def _forget(lock: Path) -> None:
    for path in (lock.with_suffix(".json"), lock.with_suffix(".new"), lock):
        path.unlink(missing_ok=True)
