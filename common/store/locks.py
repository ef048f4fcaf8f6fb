"""Locks between runs on one machine, or on several that share a disk: one holder, which the others can name.

Usage: `with hold(path, wait=True, busy=error, on_wait=console.line): …`.

The system frees a lock when its holder dies. A network disk may not notice that a machine is gone. So a holder writes
who it is into a file next to the lock and touches it every half minute. Those that wait on another machine show when
that stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.config.json import read_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

BEAT_SECONDS = 30.0
SILENT_SECONDS = 300.0  # a holder without a beat for this long may be gone
LOOK_SECONDS = 20.0  # between two looks at a lock that is held
OPEN_FOLDER = 0o1777  # all may add files, and none may remove another's, as in /tmp
OPEN_FILE = 0o666


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and what to do if it has been silent for long."""

    who: str
    silence: str


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    wait: bool,
    busy: Callable[[Holder], Exception],
    on_wait: Callable[[Holder], None] | None = None,
    among_users: bool = False,
) -> Iterator[None]:
    """Hold a lock. Raises what `busy` makes of the holder's description when another holds it and `wait` is false.

    With `among_users` other users of the machine may hold it too, whatever the umask of whoever was first. Raises
    OSError where the lock cannot be written.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    if among_users:
        _open_folder(path.parent)
    lock = filelock.FileLock(path, mode=OPEN_FILE) if among_users else filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise busy(holder_of(path)) from None
        _wait(lock, path, on_wait or (lambda holder: None))
    try:
        with _known(path, among_users=among_users):
            yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock right now. Makes no file."""
    import filelock

    if not path.is_file():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):  # who may not look takes it for held
        return True
    lock.release()
    return False


def holder_of(path: Path) -> Holder:
    """Return who holds a lock."""
    beside = _beside(path)
    try:
        facts = read_json(beside)
        silent = time.time() - beside.stat().st_mtime
        here = facts["host"] == platform.node()
        where = "" if here else f" on {facts['host']}"
        who = f"another run (process {facts['pid']}{where})"
    except (OSError, ValueError, KeyError, TypeError):
        return Holder("another run", "")
    if here or silent < SILENT_SECONDS:  # a lock that is held on this machine has a holder, whatever the clock says
        return Holder(who, "")
    minutes = f"Nothing was heard of it for {silent / 60:.0f} minutes"
    return Holder(who, f"{minutes}: if its machine is gone, remove {path}.")


def _wait(lock: BaseFileLock, path: Path, on_wait: Callable[[Holder], None]) -> None:
    """Wait for a lock; say who holds it, and again when that is another or falls silent."""
    import filelock

    shown: tuple[str, bool] | None = None
    while True:
        holder = holder_of(path)
        if (holder.who, bool(holder.silence)) != shown:
            on_wait(holder)
            shown = (holder.who, bool(holder.silence))
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=LOOK_SECONDS)
            return


@contextlib.contextmanager
def _known(path: Path, *, among_users: bool) -> Iterator[None]:
    """Write next to a lock who holds it, and touch that file as long as it is held."""
    beside, over = _beside(path), threading.Event()
    facts = json.dumps({"host": platform.node(), "pid": os.getpid()})
    if among_users:
        _write_open(beside, facts)
    else:
        beside.write_text(facts, encoding="utf-8")

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                beside.touch()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        try:
            beside.unlink(missing_ok=True)
        except PermissionError:
            if not among_users:
                raise
            os.truncate(beside, 0)  # another user's, left by a crash


def _open_folder(folder: Path) -> None:
    """Open a folder of this user to all. A link stays as it is, since another user may have set it."""
    facts = folder.lstat()
    if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != OPEN_FOLDER:
        folder.chmod(OPEN_FOLDER)


def _write_open(path: Path, text: str) -> None:
    """Write a file that all users may write. One that another user left is overwritten and stays theirs.

    Links are not followed: in a folder that is open to all, another user may have set them.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OPEN_FILE)
        os.fchmod(descriptor, OPEN_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _beside(path: Path) -> Path:
    return path.with_suffix(".holder")
