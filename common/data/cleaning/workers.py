"""Processes of this machine that run the tasks of a cleaning, one pass after another.

Usage: `with Workers(cleaning, 4) as workers: workers.run(0, [0, 1, 2])`.

They are begun once for all passes, and only when there is work for them: a process imports what it needs for a second
or two, so that few rows are cleaned sooner in this one. It is a pool of the standard library, which notices a worker
that dies. Who runs a task decides nothing about what it writes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from common.data.cleaning.clean import Cleaning
from common.system.signals import stop_if_asked

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

START_SECONDS = 2.0  # that a process takes before its first task; less to be saved is not worth it


class Workers(AbstractContextManager["Workers"]):
    """The processes of one cleaning; none as long as none is worth it."""

    def __init__(self, cleaning: Cleaning, number: int) -> None:
        self._cleaning, self._number = cleaning, min(number, cleaning.tasks)
        self._pool: ProcessPoolExecutor | None = None

    def run(self, number: int, tasks: Sequence[int]) -> None:
        """Run tasks of a pass. What a process that died has left undone stays undone."""
        left, seconds = list(tasks), 0.0
        while left and not self._is_worth(seconds, len(tasks) - len(left), len(left)):
            stop_if_asked()
            started = time.perf_counter()
            self._cleaning.run_task(number, left.pop(0))
            seconds += time.perf_counter() - started
        if left:
            self._in_processes(number, left)

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _is_worth(self, seconds: float, done: int, left: int) -> bool:
        """Whether processes save more than they take to begin, by the tasks of this pass that this one has done."""
        if self._number <= 1:
            return False
        saved = seconds / max(1, done) * left * (1 - 1 / self._number)
        return self._pool is not None or saved >= START_SECONDS

    def _in_processes(self, number: int, left: Sequence[int]) -> None:
        import concurrent.futures  # a plan needs none of this
        import multiprocessing
        from concurrent.futures.process import BrokenProcessPool

        if self._pool is None:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._number, multiprocessing.get_context("spawn"), _begin, (self._cleaning,)
            )
        try:
            # The last tasks are the largest; those that begin last should be short.
            waiting = [self._pool.submit(_run_task, number, task) for task in reversed(left)]
            for _ in concurrent.futures.as_completed(waiting):
                stop_if_asked()
            for one in waiting:
                one.result()
        except BrokenProcessPool:
            self.__exit__()


_cleaning: Cleaning | None = None  # that this worker runs tasks of


def _begin(cleaning: Cleaning) -> None:
    """Begin a worker: it gets the cleaning once, and keeps what all its tasks share."""
    global _cleaning
    _cleaning = cleaning
    end_with_parent()


def _run_task(number: int, task: int) -> None:
    assert _cleaning is not None, "a worker begins before its tasks"
    _cleaning.run_task(number, task)


def end_with_parent() -> None:
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
