"""Locks between runs on one machine, or on several that share a disk: one holder, which the others can name.

Usage: `with hold(path, wait=True, busy=error, on_wait=console.line): …`.

The system frees a lock when its holder dies. A network disk may not notice that a machine is gone. So a holder writes
who it is into a file next to the lock and touches it every half minute. Those that wait on another machine show when
that stops.
"""

from __future__ import annotations

import contextlib
import errno
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

from common.config.json import UNREADABLE
from common.errors import visible
from common.system.files import open_regular

if TYPE_CHECKING:
    from filelock import BaseFileLock

BEAT_SECONDS = 30.0
SILENT_SECONDS = 300.0  # a holder without a beat for this long may be gone
LOOK_SECONDS = 20.0  # between two looks at a lock that is held
OPEN_FOLDER = 0o1777  # all may add files, and none may remove another's, as in /tmp
OPEN_FILE = 0o666
LONGEST = 4096  # bytes of what a holder writes
MOST_OF_HOST = 64  # characters of a machine's name
MOST_PID = 2**22


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and what to do if it has been silent for long."""

    who: str
    silence: str


@contextlib.contextmanager
def hold(
    path: Path, *, wait: bool, busy: Callable[[Holder], Exception], on_wait: Callable[[Holder], None] | None = None,
    among_users: bool = False,
) -> Iterator[None]:  # fmt: skip
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
    """Return who holds a lock. What its file says may be anybody's text: nothing of it is shown unchecked."""
    beside = _beside(path)
    try:
        with open_regular(beside) as stream:
            facts, written = json.loads(stream.read(LONGEST)), os.fstat(stream.fileno())
        host, pid = visible(str(facts["host"]))[:MOST_OF_HOST], facts["pid"]
        here = host == platform.node()
        if type(pid) is not int or not 0 < pid <= MOST_PID or (here and not _is_process(pid, written.st_uid)):
            return Holder("another run", "")
    except UNREADABLE:
        return Holder("another run", "")
    silent = time.time() - written.st_mtime
    who = f"another run (process {pid}{'' if here else f' on {host}'})"
    if here or silent < SILENT_SECONDS:  # a lock that is held on this machine has a holder, whatever the clock says
        return Holder(who, "")
    minutes = f"Nothing was heard of it for {silent / 60:.0f} minutes"
    return Holder(who, f"{minutes}: if its machine is gone, remove {path}.")


def _is_process(pid: int, user: int) -> bool:
    """Whether a user has a process of that number here; true where the system does not say."""
    try:
        return os.stat(f"/proc/{pid}").st_uid in (user, 0)
    except OSError:
        return not os.path.exists("/proc/self")


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
    try:
        descriptor = _open_holder(beside, OPEN_FILE if among_users else None)
    except OSError:
        if not among_users:
            raise
        yield  # another user left something there; the lock holds all the same
        return
    os.write(descriptor, json.dumps({"host": platform.node(), "pid": os.getpid()}).encode())

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(descriptor)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        os.close(descriptor)
        with contextlib.suppress(PermissionError) if among_users else contextlib.nullcontext():
            beside.unlink(missing_ok=True)


def _open_folder(folder: Path) -> None:
    """Open a folder of this user to all. Raises OSError for one that is a link, or closed to this user."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is a link or no folder", str(folder))
    if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != OPEN_FOLDER:
        folder.chmod(OPEN_FOLDER)
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _open_holder(path: Path, mode: int | None) -> int:
    """Return the descriptor of an empty file, with a mode whatever the umask. One of another user's stays theirs.

    In a folder that is open to all, another user may have put a link, a second name of a file, or a pipe there. None of
    them is written to. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if mode is not None:
            os.fchmod(descriptor, mode)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file of its own", str(path))
    os.ftruncate(descriptor, 0)
    return descriptor


def _beside(path: Path) -> Path:
    return path.with_suffix(".holder")
