"""Locks between runs on one machine, or on several that share a disk: one holder, whom the others can name.

Usage: `with hold(path, wait=True, busy=error, on_wait=console.line): …`.

The system frees a lock when its holder dies, however it dies; of a machine that is gone a network disk may not know.
So a holder says who it is beside the lock and touches that every half minute, and who waits is told when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

BEAT_SECONDS = 30.0
SILENT_SECONDS = 300.0  # without a beat for so long, a holder may be gone
LOOK_SECONDS = 20.0  # between two looks at a lock that is held


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and what is to be done where nothing has been heard of them for long."""

    who: str
    silence: str


@contextlib.contextmanager
def hold(
    path: Path, *, wait: bool, busy: Callable[[Holder], Exception], on_wait: Callable[[Holder], None] | None = None
) -> Iterator[None]:
    """Hold a lock. Raises what `busy` makes of the holder's description when another holds it and `wait` is false."""
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise busy(holder_of(path)) from None
        _wait(lock, path, on_wait or (lambda holder: None))
    try:
        with _known(path):
            yield
    finally:
        lock.release()


def holder_of(path: Path) -> Holder:
    """Return who holds a lock."""
    beside = _beside(path)
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
        silent = time.time() - beside.stat().st_mtime
        where = "" if facts["host"] == platform.node() else f" on {facts['host']}"
        who = f"another run (process {facts['pid']}{where})"
    except (OSError, ValueError, KeyError):
        return Holder("another run", "")
    if silent < SILENT_SECONDS:
        return Holder(who, "")
    minutes = f"Nothing was heard of it for {silent / 60:.0f} minutes"
    return Holder(who, f"{minutes}: if its machine is gone, remove {path}.")


def _wait(lock: BaseFileLock, path: Path, on_wait: Callable[[Holder], None]) -> None:
    """Wait for a lock; say who holds it, and again when that is another or falls silent."""
    import filelock

    told: tuple[str, bool] | None = None
    while True:
        holder = holder_of(path)
        if (holder.who, bool(holder.silence)) != told:
            on_wait(holder)
            told = (holder.who, bool(holder.silence))
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=LOOK_SECONDS)
            return


@contextlib.contextmanager
def _known(path: Path) -> Iterator[None]:
    """Say beside a lock who holds it, and keep on saying so."""
    beside, over = _beside(path), threading.Event()
    facts = {"host": platform.node(), "pid": os.getpid()}
    beside.write_text(json.dumps(facts), encoding="utf-8")

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                beside.touch()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".holder")
