"""`just bench chaos`: the chain under faults, and a table of what they did.

Usage: `just bench chaos [kills=12] [faults=kills,disk] [seed=0] [folder=<folder>]`.

It ends with 1 where a result differs, a command hangs, ends in an unexpected way or with a traceback, or leaves
something behind that `gc` does not remove.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.chaos import beside, changes, disk, kills
from tests.bench.chaos.faults import Bed, Outcome, prepare

KILLS = 12
FAULTS: dict[str, Callable[[Bed, int], object]] = {
    "kills": lambda bed, number: kills.killed(bed, number),
    "power": lambda bed, number: kills.unpowered(bed, max(6, number // 10)),
    "signals": lambda bed, number: kills.signalled(bed, max(6, number // 10)),
    "disk": lambda bed, number: (disk.full(bed), disk.unwritable(bed)),
    "beside": lambda bed, number: (beside.twice(bed), beside.other_pipeline(bed), beside.tidied(bed)),
    "clock": lambda bed, number: changes.clock(bed),
    "damage": lambda bed, number: changes.damaged(bed),
}


def main(kills: str = str(KILLS), faults: str = "", seed: str = "0", folder: str = "") -> int:
    """Run the faults that are named, or all. Returns 1 where something is wrong."""
    names = faults.split(",") if faults else list(FAULTS)
    if unknown := sorted(set(names) - set(FAULTS)):
        print(f"error: faults={','.join(unknown)}: expected some of {', '.join(FAULTS)}.", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        bed, stopped = prepare(Path(folder or temporary).absolute(), int(seed)), False
        try:
            for name in names:
                FAULTS[name](bed, int(kills))
        except KeyboardInterrupt:
            stopped = True
            print("  stopped; this was found so far")
        show(bed.outcomes)
    return int(stopped or any(outcome.wrong for outcome in bed.outcomes))


def show(outcomes: list[Outcome]) -> None:
    """Print a line for each kind of fault, the phases that were hit, and what was wrong."""
    print(f"\n  {'fault':<26} {'faults':>6} {'chains':>6} {'equal':>6} {'wrong':>6} {'seconds':>8}")
    for each in outcomes:
        counts = f"{each.faults:>6} {each.runs:>6} {each.equal:>6} {len(each.wrong):>6} {each.seconds:>8.0f}"
        print(f"  {each.fault:<26} {counts}{'  SKIPPED' if each.skipped else ''}")
    for each in outcomes:
        if each.phases:
            print(f"  {each.fault}: {', '.join(f'{name} {count}' for name, count in sorted(each.phases.items()))}")
        for line in [f"skipped: {each.skipped}"] * bool(each.skipped) + each.wrong:
            print(f"    {line}")
