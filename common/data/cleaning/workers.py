"""Processes of this machine that run the tasks of a cleaning, one pass after another.

Usage: `with Workers(cleaning, 4) as workers: cleaning.cut(rows, workers.begin); workers.run(0, [0, 1, 2])`.

They start once for all passes, and only when there is work for them: a process imports what it needs for a second
or two, so that few rows are cleaned sooner in this one. It is a pool of the standard library, which notices a worker
that dies. Who runs a task decides nothing about what it writes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from common.data.cleaning.clean import Cleaning
from common.system.signals import stop_if_asked

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

START_SECONDS = 2.0  # that a process takes before its first task; less to be saved is not worth it


class Workers(AbstractContextManager["Workers"]):
    """The processes of one cleaning; none as long as none is worth it."""

    def __init__(self, cleaning: Cleaning, number: int) -> None:
        """`number` is how many tasks run at once."""
        self._cleaning, self._number = cleaning, number
        self._pool: ProcessPoolExecutor | None = None
        self._had_pool = False
        self._read: list[int] = []  # tasks whose rows are read, and that wait
        self._started: dict[int, Future[None]] = {}  # of the first pass, by task
        self._first = 0.0  # seconds of the first task

    def begin(self, task: int) -> None:
        """Take a task through the first pass while the rows of others are read, where that saves time.

        Raises what a task raised that was started so.
        """
        stop_if_asked()
        if self._number == 1 or not self._cleaning.can_begin_early:
            return
        from concurrent.futures import BrokenExecutor  # a plan needs none of this

        self._read.append(task)
        if self._is_worth(self._first, len(self._read)):
            with contextlib.suppress(BrokenExecutor):  # what it has left undone is run again
                self._started.update((task, self._submit(0, task)) for task in self._read)
                for one in self._started.values():
                    if one.done():
                        one.result()
            self._read.clear()
        elif not self._first:
            self._first = self._run_here(0, self._read.pop())

    def run(self, number: int, tasks: Sequence[int]) -> None:
        """Run tasks of a pass. What a process that died has left undone stays undone."""
        from concurrent.futures import BrokenExecutor, as_completed

        started, self._started = self._started if number == 0 else {}, {}
        left, seconds, done = [task for task in tasks if task not in started], 0.0, 0
        while left and not self._is_worth(seconds / max(1, done), len(left)):
            seconds += self._run_here(number, left.pop(0))
            done += 1
        try:
            # The last tasks are the largest; those that start last should be short.
            waiting = [*started.values(), *(self._submit(number, task) for task in reversed(left))]
            for one in as_completed(waiting):
                one.result()
                stop_if_asked()
        except BrokenExecutor:
            self._end()

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._started = None, {}

    def _is_worth(self, seconds: float, left: int) -> bool:
        """Whether processes save more than they take to begin, if each task that is left takes some seconds.

        Once there were any it always is: a task that has killed one would kill the run here.
        """
        if self._number == 1:
            return False
        return self._had_pool or seconds * left * (1 - 1 / self._number) >= START_SECONDS

    def _run_here(self, number: int, task: int) -> float:
        stop_if_asked()
        started = time.perf_counter()
        self._cleaning.run_task(number, task)
        return time.perf_counter() - started

    def _submit(self, number: int, task: int) -> Future[None]:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._number, context, _start, (self._cleaning,))
            self._had_pool = True
        return self._pool.submit(_run_task, number, task)


_cleaning: Cleaning | None = None  # that this worker runs tasks of


def _start(cleaning: Cleaning) -> None:
    """Start a worker, which gets the cleaning once."""
    global _cleaning
    _cleaning = cleaning
    _end_with_parent()


def _run_task(number: int, task: int) -> None:
    assert _cleaning is not None, "a worker starts before its tasks"
    _cleaning.run_task(number, task)


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ended.

    A worker left behind would wait for ever, and write into the folder in which the next run works.
    """
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker has a parent"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
