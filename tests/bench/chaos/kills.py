"""Runs that end early: killed, stopped by signals, or cut off with the power.

Usage: `outcome = killed(bed, 12)`. In each, the same command goes on until the chain is done.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.bench.chaos import chain
from tests.bench.chaos.faults import Bed, Outcome

MOST_KILLS = 7  # of one chain; then it may finish
STOPPED = (0, 75, 130, -signal.SIGTERM, -signal.SIGINT)  # the last two: before the program could catch it


def killed(bed: Bed, kills: int) -> Outcome:
    """SIGKILL the command and its children at random instants, again and again, until it may end."""
    outcome = bed.outcome("SIGKILL")
    while outcome.faults < kills:
        root = bed.store("killed")
        for _ in range(min(MOST_KILLS, kills - outcome.faults)):
            if not _kill_once(bed, root, outcome):
                break
        bed.finish(root, outcome)
        outcome.show()
    return outcome


def _kill_once(bed: Bed, root: Path, outcome: Outcome, env: dict[str, str] | None = None) -> bool:
    """Start the command and kill it at a random instant. Returns whether it still ran then."""
    warm = bed.warm()
    run = bed.start(root, warm=warm, env=env)
    if bed.wait_for_moment(root, run, warm=warm) is not None:
        outcome.wrong += [problem] if (problem := run.problem()) else []
        return False
    run.kill()
    outcome.faults += 1
    outcome.phases[chain.phase(root, run.pid)] += 1
    return True


def signalled(bed: Bed, storms: int) -> Outcome:
    """Send SIGTERM and SIGINT at random instants, several times; each run must end without a traceback."""
    outcome = bed.outcome("signals")
    while outcome.faults < storms:
        root = bed.store("signalled")
        for _ in range(min(MOST_KILLS, storms - outcome.faults)):
            warm = bed.warm()
            run = bed.start(root, warm=warm)
            bed.wait_for_moment(root, run, warm=warm)
            sent = bed.rng.choice((signal.SIGTERM, signal.SIGINT))
            for _ in range(bed.rng.randint(1, 4)):
                run.send(sent)
                run.wait(bed.rng.uniform(0, 0.3))
                sent = bed.rng.choice((sent, signal.SIGTERM, signal.SIGINT))
            run.wait()
            outcome.faults += 1
            outcome.phases[chain.phase(root, run.pid)] += 1
            outcome.wrong += [problem] if (problem := run.problem(STOPPED)) else []
        bed.finish(root, outcome)
        outcome.show()
    return outcome


def unpowered(bed: Bed, cuts: int) -> Outcome:
    """Kill it, and cut off each file that was written and not forced to the disk since: the power was lost."""
    outcome = bed.outcome("power lost")
    synced = bed.folder / "synced"
    env = {"CHAOS_SYNCED": str(synced)}
    while outcome.faults < cuts:
        root = bed.store("unpowered")
        for _ in range(min(MOST_KILLS, cuts - outcome.faults)):
            synced.write_text("", encoding="utf-8")
            before = {path: path.stat().st_mtime_ns for path in _files(root)}
            if not _kill_once(bed, root, outcome, env):
                break
            _cut_off(bed, root, before, set(synced.read_text(encoding="utf-8").splitlines()))
        bed.finish(root, outcome)
        outcome.show()
    return outcome


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def _cut_off(bed: Bed, root: Path, before: dict[Path, int], synced: set[str]) -> None:
    """Cut off each file that was written to after `before` and not synced since."""
    for path in _files(root):
        facts = path.stat()
        safe = before.get(path) == facts.st_mtime_ns or f"{facts.st_ino} {facts.st_mtime_ns}" in synced
        if facts.st_size and not safe:
            with path.open("r+b") as stream:
                stream.truncate(bed.rng.choice((0, facts.st_size // 2)))
