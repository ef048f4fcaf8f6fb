"""Run what others programmed within limits of time and memory: a chat template is a program, and so is a pattern.

Usage: `with limited(seconds=5, memory=2**31): ...` for Python; `working(encode, seconds=30)` for a library's own code,
`watched(ask, seconds=30)` for what waits for others.

`limited` stops Python code, in the main thread, where signals arrive. A library that never returns to Python cannot be
stopped; these leave it behind in a thread of its own. Neither is for code of ours, nor a wall against attacks.
"""

from __future__ import annotations

import contextlib
import math
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import FrameType
from typing import TypeVar

LOOK_SECONDS = 0.5  # between two looks at the time that was used
STILL_SECONDS = 60.0  # that a download may stand still
IDLE = 30.0  # seconds of the clock for each second of work; more is as good as nothing
LEAST = 2**16  # bytes in that time; less is as good as nothing
AHEAD = 64  # items of a stream that are read before they are asked for
PAGE = resource.getpagesize()
STATM = "/proc/self/statm"  # on Linux; its first number is the memory that this process has, in pages
Result = TypeVar("Result")


class Exceeded(Exception):
    """A limit was reached; the text is the limit."""


@contextlib.contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Let a block use so many seconds of the processor and bytes of new memory. Raises Exceeded.

    The thread's own time counts, so that a busy machine or a pause is no fault. On systems that do not say how much
    memory a process has, none is limited.
    """
    try:
        with _memory(memory), _time(seconds):
            yield
    except MemoryError:
        raise Exceeded(f"{memory / 2**30:.0f} GiB of memory") from None


@contextlib.contextmanager
def _time(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started, active = time.thread_time(), True

    def look(signum: int, frame: FrameType | None) -> None:
        if active and time.thread_time() - started > seconds:
            raise Exceeded(f"{seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, look)
    timer = signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        active = False
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory(more: int) -> Iterator[None]:
    held = memory_held()
    if held is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    given = (held + more, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (min(given), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def memory_held() -> int | None:
    """Return the bytes of addresses that this process has now; None where that is not known.

    It is what RLIMIT_AS limits, and more than the memory in use: libraries and reserved space count too.
    """
    try:
        with open(STATM, "rb") as stream:
            return int(stream.read().split()[0]) * PAGE
    except OSError:
        return None


def watched(call: Callable[[], Result], seconds: float) -> Result:
    """Return what a call returns. Raises Exceeded where it takes longer, and what it raises otherwise."""
    return _left_to(call, lambda: 0, seconds)


def working(call: Callable[[], Result], seconds: float) -> Result:
    """Return what a call returns. Raises Exceeded where this process works longer on it, and what it raises otherwise.

    The processor's time counts, so that a busy machine is no fault. What only waits is left after IDLE times as long.
    """
    return _left_to(call, lambda: 0, IDLE * seconds, work=seconds)


def growing(call: Callable[[], Result], size: Callable[[], int]) -> Result:
    """Return what a call returns, however long it takes, as long as what it makes grows.

    Raises Exceeded where it grows by less than LEAST bytes in STILL_SECONDS, and what the call raises otherwise.
    """
    return _left_to(call, size, STILL_SECONDS)


def flowing(items: Iterable[Result], seconds: float) -> Generator[Result]:
    """Yield what an iterable yields, a few items ahead, in its order.

    Raises Exceeded where the next one takes longer, by the clock, and what the iterable raises otherwise.
    """
    taken: queue.Queue[tuple[Result] | BaseException | None] = queue.Queue(AHEAD)
    is_over = threading.Event()

    def give(item: tuple[Result] | BaseException | None) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                taken.put(item, timeout=LOOK_SECONDS)
                return

    def run() -> None:
        try:
            for item in items:
                give((item,))
                if is_over.is_set():
                    return
            give(None)
        except BaseException as error:  # as below
            give(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (found := taken.get(timeout=seconds)) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    except queue.Empty:
        raise Exceeded(f"{seconds:.0f} seconds") from None
    finally:
        is_over.set()
        thread.join(2 * LOOK_SECONDS)


def _left_to(call: Callable[[], Result], size: Callable[[], int], seconds: float, work: float = math.inf) -> Result:
    """Wait for a call, and start over whenever `size` has grown. A pause of this process counts as one look at most."""
    answer: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(call())
        except BaseException as error:  # a panic of a library in Rust is none of Exception
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    before, waited, worked = size(), 0.0, time.process_time()
    while thread.is_alive() and waited < seconds and time.process_time() - worked < work:
        thread.join(look := min(LOOK_SECONDS, seconds))
        waited += look
        if (now := size()) >= before + LEAST:
            before, waited = now, 0.0
    if raised:
        raise raised[0]
    if not answer:
        raise Exceeded(f"{min(seconds, work):.0f} seconds")
    return answer[0]
