"""A disk that is full in each phase of the chain, or that cannot be written.

Usage: `outcome = full(bed)`. The store lies on a small file system in memory, which only root may mount; without it
these faults are skipped, and the table says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.chaos.faults import Bed, Outcome

SIZE = 200_000_000  # bytes of the file system; a whole chain takes about 10 MB
PHASES = ("plan", "base", "exam-base", "cpt", "sft", "dpo", "merge", "exam-merge", "card", "publish")
FULL_BEFORE = {"plan": 0, "publish": 100_000}  # bytes that are left from the start; a version does not fit
MOST_FREE = 300_000  # bytes that are left; a stage writes more than that with its trainer checkpoints
LOOK_SECONDS = 0.002
MOST_PARTS = 50
SIGNS = ("disk of ", "GiB of disk")  # of the two errors: while it writes, and before it begins


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[str]:
    """Mount a file system in memory at a folder. Yields why that cannot be done, or an empty string."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
        )
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    try:
        yield f"no file system of a limited size can be mounted: {problem}" if problem else ""
    finally:
        if not problem:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full(bed: Bed, passes: int = 1) -> Outcome:
    """Fill the disk as each phase begins, but for a few bytes; the command must say so, and go on with space again."""
    outcome = bed.outcome("disk full")
    disk = bed.folder / "disk"
    with mounted(disk) as problem:
        outcome.skipped = problem
        for number in range(0 if problem else passes):
            root = disk / f"full-{number}"
            for phase in PHASES:
                _fill_in(bed, root, phase, outcome)
            bed.finish(root, outcome)
            outcome.show()
    return outcome


def _fill_in(bed: Bed, root: Path, phase: str, outcome: Outcome) -> None:
    """Run the command with a disk that gets full as a phase begins."""
    filler = root.parent / "filler"
    if phase == "publish":  # it takes too short a time to be met
        bed.finish(root, Outcome("made"), keep=True)
        shutil.rmtree(root / "models")
    if phase in FULL_BEFORE:
        _fill(filler, FULL_BEFORE[phase])
    run = bed.start(root, warm=True)
    while phase not in FULL_BEFORE and run.poll() is None:
        if any((root / "artifacts").glob(f".work/{phase}-????????????????")):
            _fill(filler, bed.rng.choice((0, bed.rng.randrange(MOST_FREE))))
            break
        time.sleep(LOOK_SECONDS)
    run.wait()
    filler.unlink(missing_ok=True)
    outcome.faults += 1
    if run.code == 0:
        outcome.phases[f"{phase}: had room"] += 1
        return
    outcome.phases[phase] += 1
    if problem := run.problem((1,)):
        outcome.wrong.append(f"{phase}: {problem}")
    elif not any(sign in run.output() for sign in SIGNS):
        outcome.wrong.append(f"{phase}: the error is not that the disk is full: {run.output()[-300:]}")


def _fill(filler: Path, free: int) -> None:
    """Take all of a file system but so many bytes, in parts, since the run writes too."""
    with filler.open("wb") as stream:
        for _ in range(MOST_PARTS):
            facts = os.statvfs(filler)
            size = facts.f_bavail * facts.f_frsize - free
            if size <= 0:
                return
            with contextlib.suppress(OSError):  # the run took some of it meanwhile
                os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, size)


def unwritable(bed: Bed) -> Outcome:
    """Make the store read-only half-way: an error; and when the chain is done: nothing to do, and no error."""
    outcome = bed.outcome("read-only")
    disk = bed.folder / "read-only"
    with mounted(disk) as problem:
        outcome.skipped = problem
        if problem:
            return outcome
        root = disk / "store"
        run = bed.start(root, warm=True)
        while run.poll() is None and not any((root / "artifacts").glob("cpt-*")):
            time.sleep(LOOK_SECONDS)
        run.kill()
        for code, phase in ((1, "half made"), (0, "made")):
            if not code:
                bed.finish(root, outcome, keep=True)
            _remount(disk, "ro")
            again = bed.start(root, warm=True)
            again.wait()
            outcome.faults += 1
            outcome.phases[phase] += 1
            outcome.wrong += [f"{phase}: {wrong}"] if (wrong := again.problem((code,))) else []
            _remount(disk, "rw")
    return outcome


def _remount(disk: Path, mode: str) -> None:
    """Make a mounted file system read-only or writable; what still runs there may have to end first."""
    for _ in range(100):
        if not subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], capture_output=True).returncode:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{disk} could not be mounted as {mode}")
