"""Stop a training in good order: a signal is noted, the step is finished, a checkpoint is saved, and the run ends.

Usage: `with stopping.noted() as stop: …`, and at the end of each step `if stop.asked: …`; `raise Preempted(stop.name)`.

Schedulers send SIGTERM or SIGUSR1 before they take a machine away, to every process, and a launcher may send it on to
those that have it already; people press Ctrl-C, and who presses it twice is not kept waiting.
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
    """A signal stopped the run, and what it had done is saved. `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class Stop:
    """What has been asked for so far."""

    signum: int = 0

    @property
    def asked(self) -> bool:
        return self.signum != 0


@contextlib.contextmanager
def noted() -> Iterator[Stop]:
    """Note the first signal instead of following it; Ctrl-C after it raises Preempted where the program is then."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield stop
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if stop.asked and signum == signal.SIGINT:
            raise Preempted(signum)
        stop.signum = stop.signum or signum

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
