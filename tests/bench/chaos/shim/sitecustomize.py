"""Faults inside a command, by Python's own hook: a clock that jumps, and a note of each file that is forced to disk.

It works where `tests/bench/chaos/shim` is on PYTHONPATH: CHAOS_JUMPS holds `<seconds>:<offset>,…`, the offset of the
clock from so many seconds after the start; CHAOS_SYNCED names the file that inodes and times are noted in.
"""

import os
import time

_started = time.monotonic()
_jumps = [tuple(map(float, each.split(":"))) for each in os.environ.get("CHAOS_JUMPS", "").split(",") if each]
_synced = os.environ.get("CHAOS_SYNCED", "")


def _offset() -> float:
    since = time.monotonic() - _started
    return sum((offset for after, offset in _jumps if after <= since), 0.0)


if _jumps:
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + int(_offset() * 1e9)

if _synced:
    _fsync = os.fsync

    def _noting(file):  # type: ignore[no-untyped-def] # the signature of os.fsync
        _fsync(file)
        number = file if isinstance(file, int) else file.fileno()
        facts = os.fstat(number)
        with open(_synced, "a", encoding="utf-8") as stream:
            stream.write(f"{facts.st_ino} {facts.st_mtime_ns}\n")

    os.fsync = _noting
