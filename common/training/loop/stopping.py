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

from common.system.signals import SIGNALS, Preempted, signals_restored


@dataclass
class Stop:
    """The first signal so far; 0 means none."""

    signum: int = 0

    @property
    def asked(self) -> bool:
        return self.signum != 0


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
