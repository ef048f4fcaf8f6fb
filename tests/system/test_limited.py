import mmap
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from common.system import limited as limited_module
from common.system.limited import Exceeded, flowing, growing, limited, watched, working

LIMIT = 0.3


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "for i in range(10 ** 12): pass",
        "x = 9\nfor _ in range(9): x = x ** 9",
        "import re; re.match('(a|a)*b', 'a' * 40)",
    ],
)  # fmt: skip
def test_what_does_not_end_is_stopped(program: str) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Exceeded, match=r"0\.3 seconds"), limited(LIMIT, 2**30):
        exec(program, {})
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("program", ["'%10000000000d' % 1", "'x' * 10 ** 11", "s = 'x'\nwhile True: s += s"])
def test_what_grows_without_end_is_stopped(program: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(Exceeded, match="1 GiB of memory"), limited(30, 2**30):
        exec(program, {})
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_waiting_and_what_is_within_the_limits_pass() -> None:
    with limited(0.01, 2**20):
        time.sleep(0.6)  # as on a busy machine


def test_memory_that_is_taken_between_two_blocks_does_not_count() -> None:
    """As weights that are mapped right after a conversation was rendered."""
    with limited(1, 2**28):
        pass
    with mmap.mmap(-1, 2**30), limited(1, 2**28):
        assert len(bytes(2**24)) == 2**24


def test_beside_the_main_thread_there_is_no_limit_of_time() -> None:
    done = []

    def run() -> None:
        with limited(0.0, 2**30):
            done.append(sum(range(10)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [45]


def test_a_call_that_does_not_return_is_left_behind() -> None:
    assert watched(os.getpid, 5) == os.getpid()
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 // 0, 5)
    with pytest.raises(Exceeded, match="seconds"):
        watched(lambda: time.sleep(2), 0.1)


def test_a_call_that_works_for_ever_is_left_behind_and_one_that_is_kept_waiting_is_not() -> None:
    assert working(os.getpid, 5) == os.getpid()
    with pytest.raises(ZeroDivisionError):
        working(lambda: 1 // 0, 5)
    working(lambda: time.sleep(0.5), 0.1)  # as on a busy machine
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    with pytest.raises(Exceeded, match="seconds"):
        working(spin, 0.2)
    done.set()
    with pytest.raises(Exceeded, match="seconds"):
        working(lambda: time.sleep(20), 0.02)


def test_a_download_that_stands_still_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_module, "STILL_SECONDS", 0.2)
    assert growing(os.getpid, lambda: 0) == os.getpid()
    sizes = iter(range(0, 2**30, 2**20))
    assert growing(lambda: time.sleep(0.6), lambda: next(sizes)) is None
    started = time.monotonic()
    with pytest.raises(Exceeded, match="0 seconds"):
        growing(lambda: time.sleep(5), lambda: 7)
    assert time.monotonic() - started < 3


def test_a_stream_that_stands_still_is_left_behind() -> None:
    def rows(pause: float, end: Exception | None = None) -> Iterator[int]:
        yield from range(200)
        time.sleep(pause)
        if end is not None:
            raise end
        yield 200

    assert [*flowing(rows(0.0), 5)] == [*range(201)]
    with pytest.raises(ZeroDivisionError):
        [*flowing(rows(0.0, ZeroDivisionError()), 5)]
    taken = flowing(rows(4.0), 0.2)
    assert [next(taken) for _ in range(200)] == [*range(200)]
    with pytest.raises(Exceeded, match="0 seconds"):
        next(taken)
    stopped, before = flowing(rows(0.0), 5), threading.active_count()
    next(stopped)
    stopped.close()
    assert threading.active_count() == before
