"""Keep, between steps on a CPU, the memory that a step has freed.

Usage: `with keep_heap(config.run, device="cpu"): trainer.train()`.

The C library of Linux (glibc) gives what a step frees back to the system. The next step asks for every page again, and
each is filled with zeros: for the tiny model a tenth to a fifth of its time. Peaks grow by little, since the next step
needs as much. With other C libraries nothing happens. glibc's environment variables save the same pages, but give
nothing back before the result is saved, and must be set before a process starts (tests/bench/RESULTS.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
from collections.abc import Iterator
from typing import Any

from common.config.schema import RunSettings

# Numbers of the parameters in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GIB = 1 << 30
# The most that glibc's own adjustment of both comes to (mallopt(3)); setting them turns it off.
USUAL_LARGEST, USUAL_FREE = 32 << 20, 64 << 20


@contextlib.contextmanager
def keep_heap(run: RunSettings, device: str) -> Iterator[bool]:
    """Let the heap keep what is freed while a model trains; yield whether it does. In the end it gives it back."""
    library = _glibc() if run.keep_heap and device == "cpu" else None
    # glibc before 2.35 refuses larger blocks than its own adjustment comes to.
    if library is None or not (_set(library, GIB, GIB) or _set(library, USUAL_LARGEST, GIB)):
        yield False
        return
    try:
        yield True
    finally:
        _set(library, USUAL_LARGEST, USUAL_FREE)
        library.malloc_trim(0)


def _set(library: Any, largest: int, free: int) -> bool:
    """Let blocks up to `largest` bytes come from the heap, which keeps up to `free` bytes at its end."""
    return bool(library.mallopt(M_MMAP_THRESHOLD, largest)) and bool(library.mallopt(M_TRIM_THRESHOLD, free))


@functools.cache
def _glibc() -> Any:
    """Return the C library of this process if it is glibc, or nothing."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
