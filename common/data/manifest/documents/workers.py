"""The processes that read documents: started when needed, bounded, used again, replaced when one dies.

Usage: `for part in read_parts({"format": ".pdf", "path": "/data/report.pdf"}): ...`.

Documents that are read by turns have a process each. It knows no format: that is `documents.worker`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.accounting import DAMAGED, TOO_SLOW
from common.data.manifest.documents.parts import OPENED, Part, as_part
from common.data.manifest.documents.worker import DOCLING_SECONDS, SECONDS

IDLE = 30  # seconds of the clock for each second of work; more is as good as nothing
MOST_DEATHS = 3  # for one document, then the rest of it is given up
MOST_DOCUMENTS = 1000  # that a process reads: libraries keep some of what they have seen
FIRST_SECONDS, PART_SECONDS = 120.0, 2.0  # by the clock, for a document and each of its parts
MOST_IDLE = 4  # processes that wait for documents


class Died(Exception):
    """The process ended before it answered; the text says how."""


class _Worker:
    def __init__(self) -> None:
        self.documents = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "common.data.manifest.documents.worker"], cwd=Path(__file__).parents[4], bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, question: dict[str, Any], data: bytes, seconds: float) -> dict[str, Any]:
        """Return the answer to a question. Raises Died."""
        assert self._process.stdin is not None, "it was started with pipes"
        try:
            rest = memoryview(json.dumps(question).encode() + b"\n" + data)
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
            end = time.monotonic() + seconds
            size = int.from_bytes(self._read(8, end), "big")
            return dict(json.loads(self._read(size, end)))
        except OSError:
            raise self._death() from None

    def _read(self, size: int, end: float) -> bytes:
        assert self._process.stdout is not None, "as above"
        found = bytearray()
        while len(found) < size:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), min(size - len(found), 2**20)) if ready else None
            if data is None:
                self.close()
                raise Died(TOO_SLOW)
            if not data:
                raise self._death()
            found += data
        return bytes(found)

    def _death(self) -> Died:
        self.close(wait=5.0)
        code = self._process.returncode
        return Died(TOO_SLOW if code == -signal.SIGXCPU else DAMAGED)

    def close(self, wait: float = 0.0) -> None:
        """End the process, at once or after it had the time to end by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Close the pipes alone: the process is another's."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0


_lock = threading.Lock()
_idle: list[_Worker] = []
_busy: set[_Worker] = set()


def _leave_to_parent() -> None:
    """In a forked process: its parent goes on with the processes that it started."""
    global _lock
    _lock = threading.Lock()
    for worker in (*_idle, *_busy):
        worker.forget()
    _idle.clear()
    _busy.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _lease() -> _Worker:
    with _lock:
        worker = _idle.pop() if _idle else None
    worker = worker or _Worker()
    with _lock:
        _busy.add(worker)
    return worker


def _give_back(worker: _Worker, *, alive: bool) -> None:
    with _lock:
        _busy.discard(worker)
        keep = alive and worker.documents < MOST_DOCUMENTS and len(_idle) < MOST_IDLE
        if keep:
            _idle.append(worker)
    if not keep:
        worker.close()


def close_all() -> None:
    """End the processes that wait for documents."""
    with _lock:
        waiting, _idle[:] = list(_idle), []
    for worker in waiting:
        worker.close()


atexit.register(close_all)


def read_parts(asked: dict[str, Any], data: bytes = b"") -> Iterator[Part]:
    """Yield the parts of a document; one with number 0 and a reason says that the document as a whole is not read.

    `asked` says the format, and the path where `data` does not hold the document.
    """
    first, deaths, started, count = 1, 0, time.monotonic(), 0
    seconds = IDLE * SECONDS if asked.get("pdf") != "docling" else DOCLING_SECONDS
    worker, alive, is_open = _lease(), False, False
    worker.documents += 1
    try:
        while True:
            question = {} if is_open else {**asked, "first": first, "size": len(data)}
            alive = False  # until it has answered: an interrupt here leaves half an answer in the pipe
            try:
                found = worker.ask(question, b"" if is_open else data, seconds)
            except Died as death:
                deaths += 1
                rest = not is_open or deaths == MOST_DEATHS  # it may be the document that no process survives
                yield _fallen(str(death), 0 if rest else first)
                if rest:
                    return
                _give_back(worker, alive=False)
                worker, is_open, first = _lease(), False, first + 1
                continue
            alive, is_open = not found.get("fatal"), True
            if "part" not in found:
                return
            part = as_part(found)
            if part == OPENED:
                continue
            count += 1
            yield part
            if not alive or part.number == 0:
                return
            first = part.number + 1
            if time.monotonic() - started > FIRST_SECONDS + count * PART_SECONDS and seconds < DOCLING_SECONDS:
                yield Part(0, reason=TOO_SLOW, detail=f"takes too long to be read after {count} parts. Split it")
                return
    finally:
        _give_back(worker, alive=alive)


def _fallen(reason: str, number: int) -> Part:
    if reason == TOO_SLOW:
        return Part(number, reason=reason, detail=f"takes more than {SECONDS} seconds of the processor. Leave it out")
    return Part(number, reason=reason, detail="made the process that reads it crash. Leave it out, or save it again")
