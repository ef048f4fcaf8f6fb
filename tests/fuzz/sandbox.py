"""One hostile input: its files are laid into a folder of their own, and the product's own entry is run on it.

Usage: `outcome = run_case(case, folder, seconds=10)`; it runs in this process,
    up to where a stage would begin to train.

What a case does to the machine is seen twice: an audit hook notes what Python opens for writing, makes, moves and
removes, and what stood around `out` is listed before and after.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from tests.conftest import REPOSITORY

FIFO = "a FIFO"
LINK = "a link to "
RAW_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NAME = re.compile(r"[A-Za-z0-9._+@=,()-][A-Za-z0-9._+@=,() -]*")  # of what the product makes
WAITING = 0.02  # share of the time that a process works which waits for a file
LONGEST = 30_000  # characters of a message; `config` lists every setting in 21,000
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> where its paths are among its arguments, and where the open folder is that each of them starts from.
CHANGES = {
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.rename": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),), "os.link": ((1, 3),), "os.truncate": ((0, 9),), "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),), "os.utime": ((0, 3),),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Arguments of the command line, and files by their path below the sandbox; text FIFO or LINK makes such a one."""

    kind: str
    arguments: tuple[str, ...]
    files: dict[str, bytes | str] = field(default_factory=dict)
    own_repository: bool = False  # pipelines and profiles are those of the case


@dataclass
class Outcome:
    """How a case ended: `clean`, `error` (the product's own), or one of the failures."""

    result: str
    detail: str = ""


FAILURES = ("traceback", "hang", "crash", "outside", "name", "output")


class Reached(BaseException):
    """The checks before the first stage are passed."""


class Hang(BaseException):
    """A case took too long."""


class Watcher:
    """Notes the paths that are written while it is on. An audit hook cannot be removed, so there is one a process."""

    def __init__(self) -> None:
        self.on = False
        self.paths: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (flags & WRITES or set(mode or "") & set("wax+")):
                self._add(path)
        elif event in CHANGES:
            for path, folder in CHANGES[event]:
                self._add(arguments[path], *arguments[folder : folder + 1])
        elif event in ("socket.connect", "os.system", "os.exec"):
            self.paths.append(f"{event} {arguments[1:] if event == 'socket.connect' else arguments}"[:200])

    def _add(self, path: Any, folder: int = -1) -> None:
        with contextlib.suppress(TypeError, ValueError):
            start = "" if folder < 0 else os.readlink(f"/proc/self/fd/{folder}")
            self.paths.append(os.path.abspath(os.path.join(start, os.fsdecode(path))))


_watcher: Watcher | None = None


def watcher() -> Watcher:
    global _watcher
    _watcher = _watcher or Watcher()
    return _watcher


def lay(case: Case, root: Path) -> None:
    """Make the sandbox: `cwd`, `home`, `tmp`, `out`, and the files of the case."""
    for name in ("cwd", "home", "tmp", "out"):
        (root / name).mkdir(parents=True)
    if case.own_repository:
        shutil.copytree(REPOSITORY / "pipelines", root / "repository" / "pipelines")
        for name in ("common", "domains"):
            (root / "repository" / name).symlink_to(REPOSITORY / name)
    for name, content in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == FIFO:
            os.mkfifo(path)
        else:
            path.symlink_to(content.removeprefix(LINK))


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Return what is in a folder, with size and time of change; `out`, `tmp` and the product's cache left out."""
    left_out = {root / "out", root / "tmp", root / "home" / ".cache"}
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) not in left_out]
        for name in (*folders, *files):
            facts = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (0, 0) if name in folders else (facts.st_size, facts.st_mtime_ns)
    return found


@contextlib.contextmanager
def stopped_before_training(case: Case) -> Iterator[None]:
    """Let a run end where its first stage would begin; a checkpoint's weights are still loaded and looked at."""
    from common.engine import run
    from common.stages import base
    from common.training import fit

    def stop(*_: Any, **__: Any) -> NoReturn:
        raise Reached

    with contextlib.ExitStack() as stack:
        if case.kind in ("checkpoint", "header"):
            stack.enter_context(mock.patch.object(base, "check_and_save", stop))
            stack.enter_context(mock.patch.object(fit.clean_process, "start"))
        else:
            stack.enter_context(mock.patch.object(run.Run, "make", stop))
        yield


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise Hang in this thread after so many seconds of its work, or where it waits for something that long.

    On a busy machine others work meanwhile; that is no hang.
    """
    last = started = time.process_time()

    def look(*_: Any) -> None:
        nonlocal last
        now = time.process_time()
        if now - started >= seconds or now - last < WAITING * seconds:
            raise Hang
        last = now
        signal.alarm(seconds)

    before = signal.signal(signal.SIGALRM, look)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def surroundings(case: Case, root: Path) -> Iterator[None]:
    """Be in the sandbox: its folder, its home, its temporary folder, its repository."""
    import tempfile

    from common.cli import commands

    environment = {
        **os.environ, "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"),
        "XDG_CACHE_HOME": str(root / "home/.cache"), "XDG_CONFIG_HOME": str(root / "home/.config"),
    }  # fmt: skip
    before = Path.cwd()
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(tempfile, "tempdir", str(root / "tmp")),
        mock.patch.object(commands, "REPOSITORY", root / "repository" if case.own_repository else REPOSITORY),
    ):
        os.chdir(root / "cwd")
        try:
            yield
        finally:
            os.chdir(before)


def run_case(case: Case, root: Path, seconds: int = 10) -> Outcome:
    """Run one case in a new folder and return how it ended."""
    from common.cli.main import main

    lay(case, root)
    before, watch = listing(root), watcher()
    streams: list[Any] = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=how) for how in ("strict", "backslashreplace")
    ]
    code: int | str | None = None
    failure = ""
    watch.paths.clear()
    with (
        surroundings(case, root),
        stopped_before_training(case),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            with limited(seconds):
                watch.on = True
                code = main(case.arguments)
        except Reached:
            code = 0
        except Hang:
            failure = f"hang\n{traceback.format_exc()}"
        except BaseException:
            failure = f"traceback\n{traceback.format_exc()}"
        finally:
            watch.on = False
            logging.getLogger().handlers.clear()
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "surrogatepass"))
    if failure:
        result, _, detail = failure.partition("\n")
        return Outcome(result, detail)
    return judge(root, before, watch.paths, code, *texts)


def judge(
    root: Path, before: dict[str, tuple[int, int]], written: list[str], code: int | str | None, out: str, err: str
) -> Outcome:
    """Return what the output, the exit code and the files of a case that ended say."""
    allowed = tuple(str(root / name) for name in ("out", "tmp", "home/.cache"))
    outside = sorted({path for path in written if not path.startswith((*allowed, "/dev/"))})
    after = listing(root)
    outside += sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if outside:
        return Outcome("outside", "\n".join(outside[:20]))
    for folder, folders, files in os.walk(root / "out"):
        for name in (*folders, *files):
            if not NAME.fullmatch(name):
                return Outcome("name", repr(os.path.join(folder, name)))
    if list((root / "tmp").iterdir()):
        return Outcome("outside", f"left in the temporary folder: {os.listdir(root / 'tmp')}")
    if found := RAW_CONTROL.search(out) or RAW_CONTROL.search(err):
        return Outcome("output", f"raw control character {found.group()!r}:\n{(out + err)[-2000:]!r}")
    if len(out) + len(err) > LONGEST:
        return Outcome("output", f"{len(out) + len(err)} characters:\n{err[-1000:]!r}")
    if code == 0:
        return Outcome("clean", out[-300:])
    if code != 1 or len(re.findall("^error: ", err, re.M)) != 1 or "Traceback (most recent" in err:
        return Outcome("traceback", f"exit code {code} without one message:\n{err[-3000:]}")
    return Outcome("error", err[err.index("error: ") :])
