"""Import large libraries without looking for garbage among what they make, and never look there again.

Usage: `with importing(): import torch`.

Python's collector goes over all objects each time that their number has grown by a quarter. TRL and what it needs make
some 900,000 that stay until the process ends: a fifth of the time that importing them takes went there.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

MANY = 100  # modules


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Pause the garbage collector; where libraries were imported, keep what they made out of its sight."""
    was_on, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) >= before + MANY:  # else it would keep only what a user's models have left behind
            gc.freeze()
        if was_on:
            gc.enable()
