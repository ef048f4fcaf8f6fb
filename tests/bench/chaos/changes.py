"""What changes under a run: the clock, the times of its files, and the files of its results.

Usage: `outcome = clock(bed)`.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from tests.bench.chaos import chain
from tests.bench.chaos.faults import Bed, Outcome

DAY, HOUR = 86_400.0, 3_600.0


def clock(bed: Bed, runs: int = 2) -> Outcome:
    """Let the clock jump a day forward and then back while the chain runs, is killed and runs again.

    The program reads another time, and all files of the store are as old or as new as that.
    """
    outcome = bed.outcome("clock jumps")
    for _ in range(runs):
        root = bed.store("clock")
        for offset in (DAY, -HOUR):
            warm = bed.warm()
            env = {"CHAOS_JUMPS": f"{bed.rng.uniform(0, 5)}:{offset},{bed.rng.uniform(5, 15)}:{-offset - HOUR}"}
            run = bed.start(root, warm=warm, env=env)
            end = time.monotonic() + bed.moment(root, warm=warm)
            while time.monotonic() < end and run.wait(bed.rng.uniform(0, 2)) is None:
                _shift(root, bed.rng.choice((DAY, -HOUR, 0.0)))
                outcome.faults += 1
            run.kill()
            outcome.phases[chain.phase(root, run.pid)] += 1
            outcome.wrong += [problem] if run.code == 1 and (problem := run.problem()) else []
        for command in ("status", "verify", "gc"):
            outcome.wrong += [problem] if (problem := bed.ask(root, command)) else []
        bed.finish(root, outcome, env={"CHAOS_JUMPS": "0:-3600,3:90000"})
        outcome.show()
    return outcome


def _shift(root: Path, offset: float) -> None:
    """Set the times of all files of a store."""
    for path in root.rglob("*"):
        try:
            os.utime(path, (time.time() + offset,) * 2, follow_symlinks=False)
        except FileNotFoundError:  # the run has just removed it
            continue


def damaged(bed: Bed, rounds: int = 4) -> Outcome:
    """Remove, empty or cut off files of results; the same command must make them again, and publish the same model."""
    outcome = bed.outcome("results half deleted")
    root = bed.store("damaged")
    bed.finish(root, Outcome("whole"), keep=True)
    for _ in range(rounds):
        folders = sorted((root / "artifacts").glob("*-????????????????"))
        folder = bed.rng.choice(folders)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        how = bed.rng.choice(("half removed", "emptied", "cut off"))
        for path in bed.rng.sample(files, (len(files) + 1) // 2):
            if how == "half removed":
                path.unlink()
            else:
                os.truncate(path, 0 if how == "emptied" else path.stat().st_size // 2)
        run = bed.start(root, warm=True)
        run.wait()
        outcome.phases[f"{folder.name.rpartition('-')[0]} {how}"] += 1
        bed.judge(root, run, outcome, f"{folder.name} {how}")
    if not outcome.wrong:
        shutil.rmtree(root)
    outcome.show()
    return outcome
