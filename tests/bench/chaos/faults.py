"""What the faults share: where they work, what the undisturbed run made, and what was found of each fault.

Usage: `outcome = bed.outcome("SIGKILL")`; `bed.finish(root, log, outcome)` runs the command to its end and compares.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.engine.provenance import git_state
from common.store.artifacts import write_json
from common.store.manifest import read_mapping
from tests.bench.chaos import chain
from tests.conftest import REPOSITORY

LOOK_SECONDS = 0.002
KEPT = ("expected", "stage_seconds", "start_seconds")  # of the bed, for a further bench in its folder
STARTS = 4  # of this many runs one begins in a fresh interpreter


@dataclass
class Outcome:
    """What one kind of fault did to the chain."""

    fault: str
    runs: int = 0  # chains that ended
    equal: int = 0  # of them, with the results of the undisturbed one
    faults: int = 0
    phases: Counter[str] = field(default_factory=Counter)  # that faults hit
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""  # why it could not be tried here
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # until now

    def show(self) -> None:
        """Print how far it is."""
        self.seconds = time.monotonic() - self.began
        found = f"{self.faults} faults, {self.equal} of {self.runs} chains equal, {len(self.wrong)} wrong"
        print(f"  {self.fault}: {found}", flush=True)


@dataclass
class Bed:
    """The folder that the chains run in, and what they have to make."""

    folder: Path
    rng: random.Random
    expected: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by pipeline
    start_seconds: Mapping[str, float] = field(default_factory=dict)  # of a fresh start and a fork, beside the stages
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    count: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    def outcome(self, fault: str) -> Outcome:
        """Return the outcome of a kind of fault that is about to be tried, which the table shows from now on."""
        self.outcomes.append(Outcome(fault))
        return self.outcomes[-1]

    def store(self, name: str) -> Path:
        """Return the place of a new store."""
        self.count += 1
        root = self.folder / f"{name}-{self.count}"
        shutil.rmtree(root, ignore_errors=True)
        return root

    def log(self) -> Path:
        self.count += 1
        return self.folder / f"{self.count}.log"

    def start(self, root: Path, command: str = "run", *, warm: bool | None = None, env: Mapping[str, str] | None = None,
              **more: str) -> chain.Process:  # fmt: skip
        """Start a command on a store; by default one of a few in a fresh interpreter."""
        warm = self.warm() if warm is None else warm
        return chain.start(chain.words(root, command, **more), self.log(), warm=warm, env=env)

    def warm(self) -> bool:
        """Return whether the next run is a fork."""
        return self.rng.randrange(STARTS) > 0

    def ask(self, root: Path, command: str, *, never: str = "", **more: str) -> str | None:
        """Run a short command on a store; return what is wrong with its end, or that it said `never`, or None."""
        given = [command, f"out={root}", *(f"{key}={value}" for key, value in more.items())]
        asked = chain.start(given, self.log(), warm=True)
        asked.wait()
        said = bool(never) and never in asked.output()
        return asked.problem() or (f"{command} says '{never}' ({asked.log})" if said else None)

    def finish(self, root: Path, outcome: Outcome, *, env: Mapping[str, str] | None = None, keep: bool = False) -> bool:
        """Run the command to its end, then `gc`; note what differs from the undisturbed run, or stays behind."""
        run = self.start(root, env=env)
        run.wait()
        outcome.runs += 1
        wrong = [problem] if (problem := run.problem()) else self.differences(root)
        if not wrong:
            problem = self.ask(root, "status", never="not finished") or self.ask(root, "gc")
            wrong = [problem] if problem else self.differences(root)
            wrong += [f"left behind: {', '.join(left)}"] if (left := chain.left_over(root)) else []
        outcome.wrong += [f"{line} [{root}]" for line in wrong]
        outcome.equal += not wrong
        if not wrong and not keep:
            shutil.rmtree(root, ignore_errors=True)
        return not wrong

    def differences(self, root: Path, pipeline: str = chain.PIPELINE) -> list[str]:
        return chain.compare(self.expected[pipeline], chain.results(root, pipeline))

    def judge(
        self, root: Path, run: chain.Process, outcome: Outcome, label: str, pipeline: str = chain.PIPELINE
    ) -> None:  # fmt: skip
        """Note how a run ended, and what differs from the undisturbed one, but for the version it publishes.

        A card that is made again has new times, and so a version of its own.
        """
        outcome.runs += 1
        outcome.faults += 1
        problem = run.problem()
        expected, found = dict(self.expected[pipeline]), {} if problem else chain.results(root, pipeline)
        for results in (expected, found):
            results.pop("published", None)
        wrong = [problem] if problem else chain.compare(expected, found)
        outcome.equal += not wrong
        outcome.wrong += [f"{label}: {line} [{root}]" for line in wrong]

    def moment(self, root: Path, *, warm: bool) -> float:
        """Return a moment of a run, in seconds from its start, uniform over what is left of it.

        One in six is in the first second.
        """
        left = self.start_seconds["fork" if warm else "fresh"]
        left += sum(self.stage_seconds[stage] for stage in self.stages_left(root))
        return self.rng.uniform(0, 1.0 if self.rng.random() < 1 / 6 else left)

    def stages_left(self, root: Path) -> list[str]:
        made = {path.name.rpartition("-")[0] for path in (root / "artifacts").glob("*-????????????????")}
        return [stage for stage in self.stage_seconds if stage not in made]

    def wait_for_moment(self, root: Path, run: chain.Process, *, warm: bool) -> int | None:
        """Wait for a random moment of a run; return its exit code where it has ended before.

        Half of them are uniform over the time that is left. The others are uniform over a stage, so that short ones are
        met too, and over the moments in which its scratch is removed and the next begins.
        """
        left = self.stages_left(root)
        if not left or self.rng.random() < 0.5:
            return run.wait(self.moment(root, warm=warm))
        stage = self.rng.choice(left)
        while run.poll() is None and not any((root / "artifacts").glob(f".work/{stage}-????????????????")):
            time.sleep(LOOK_SECONDS)
        return run.wait(self.rng.uniform(0, 1.1 * self.stage_seconds[stage] + 0.1))


def prepare(folder: Path, seed: int) -> Bed:
    """Make what the faults are compared with: one undisturbed run of each pipeline, and one more that has to agree.

    Exits where the two differ. What an earlier bench of the same commit has left in the folder is read again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bed, kept = Bed(folder, random.Random(seed)), folder / "undisturbed.json"
    found = read_mapping(kept)
    if found and found["git"] == git_state(REPOSITORY):
        print(f"  undisturbed: as found in {kept}", flush=True)
        bed.expected, bed.stage_seconds, bed.start_seconds = (found[key] for key in KEPT)
        chain.load()
        return bed
    took, roots = {}, {}
    for name, pipeline in (("fresh", chain.PIPELINE), ("fork", chain.PIPELINE), ("other", chain.OTHER_PIPELINE)):
        if name == "fork":
            chain.load()
        roots[name], started = bed.store(name), time.monotonic()
        run = bed.start(roots[name], warm=name != "fresh", pipeline=pipeline)
        run.wait()
        took[name] = time.monotonic() - started
        if problem := run.problem():
            raise SystemExit(f"error: the undisturbed run failed: {problem}")
        print(f"  undisturbed, {pipeline}, {name}: {took[name]:.1f} s", flush=True)
    bed.expected = {
        chain.PIPELINE: chain.results(roots["fresh"]),
        chain.OTHER_PIPELINE: chain.results(roots["other"], chain.OTHER_PIPELINE),
    }
    if different := bed.differences(roots["fork"]):
        raise SystemExit(f"error: two undisturbed runs differ: {different}")
    bed.stage_seconds = chain.stage_seconds(roots["fork"])
    stages = {name: sum(chain.stage_seconds(roots[name]).values()) for name in took}
    bed.start_seconds = {name: max(0.5, took[name] - stages[name]) for name in took}
    write_json(kept, {"git": git_state(REPOSITORY), **{key: getattr(bed, key) for key in KEPT}})
    return bed
