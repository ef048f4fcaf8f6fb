"""What ends a run from outside: Ctrl-C, a scheduler's signals, a terminal that is closed. From the first import on.

Usage: `stop_on_signals()` once at the start of a program; `except KeyboardInterrupt as stop: sys.exit(code_of(stop))`.

How a training finishes its step and saves first is `common.training.loop.stopping`. Imports nothing that takes time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

TEMPORARY = 75  # exit code of a run that was asked to stop and may be started again (EX_TEMPFAIL of sysexits.h)
BY_HAND = 130  # exit code after Ctrl-C, as shells have it
# A terminal that is closed is one too, but not where a program was started to outlive it, as with `nohup`.
HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, *HANGUP)

STOPPED = "\nStopped. Finished stages are kept. The same command continues where this one stopped."
is_program = False  # whether this process is a command of ours and nothing else
_asked: list[int] = []  # signals that have come
before_leaving: list[Callable[[], None]] = []  # what is done in the end however a program ends, as folders removed


class Preempted(KeyboardInterrupt):
    """A signal, `signum`, stopped the run, and its work so far is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def code_of(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a program that was stopped."""
    return BY_HAND if getattr(stop, "signum", signal.SIGINT) == signal.SIGINT else TEMPORARY


def stop_on_signals() -> None:
    """Let every signal stop this program where it is, as Ctrl-C does.

    In the middle of an import a program of its own ends there and then: libraries take the exception for one of theirs,
    and some that are written in C++ abort.
    """

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        _asked.append(signum)
        stopped = Preempted(signum)
        if is_program and _imports(frame):
            say_stopped()
            leave(code_of(stopped))
        raise stopped

    _asked.clear()

    for number in SIGNALS:
        signal.signal(number, stop)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a signal came."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def say_stopped() -> None:
    """Print that the program was stopped, if anybody can still read it."""
    with contextlib.suppress(OSError, ValueError):
        print(STOPPED, file=sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
    """End this process at once, whatever its threads wait for."""
    for last in (*before_leaving, *(stream.flush for stream in (sys.stdout, sys.stderr))):
        with contextlib.suppress(OSError, ValueError):
            last()
    os._exit(code)


def stop_if_asked() -> None:
    """Stop if a signal came that somebody swallowed, as Python does in a destructor. Raises Preempted."""
    if _asked:
        raise Preempted(_asked[0])


def end_at_once() -> None:
    """Let every further signal end this process without a word: it is at its end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Give this process its own handlers of signals back in the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
