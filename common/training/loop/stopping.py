"""Stop a training at a signal: finish the step, save a trainer checkpoint, and end the run.

Usage: `with stopping.catch_signals() as stop: …`; after each step `if stop.asked: …`; `raise Preempted(stop.signum)`.

Schedulers send SIGTERM or SIGUSR1 to every process before they take a machine away, and a launcher may repeat it.
People press Ctrl-C; the second time stops at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Preempted(KeyboardInterrupt):
    """A signal, `signum`, stopped the run, and its work so far is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class Stop:
    """The first signal so far; 0 means none."""

    signum: int = 0

    @property
    def asked(self) -> bool:
        return self.signum != 0


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Give this process its own handlers of signals back in the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def catch_signals() -> Iterator[Stop]:
    """Record the first signal instead of ending the program. Ctrl-C after it raises Preempted at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals can be caught in the main thread alone
        yield stop
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if stop.asked and signum == signal.SIGINT:
            raise Preempted(signum)
        stop.signum = stop.signum or signum

    with signals_restored():
        for number in SIGNALS:
            signal.signal(number, note)
        yield stop
