"""What `just bench methods` has measured, in one file of the repository: runs with their seeds, and costs of a step.

Usage: `results = Results.read(MEASURED)`; `results.pairs(words, other, "embedded", "domain")`.

A newer run of the same arm and seed takes the place of the older one. Runs of settings that no arm has any more are
left there and not shown.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.engine.provenance import hardware
from common.machine import cpu_kind
from tests.bench.arm import Side

MEASURED = Path(__file__).parent / "methods.json"
AGAIN = "plain"  # the name of the cost of a second plain loop: what two equal processes differ by
WITHIN, OVER, UNDECIDED = "pass", "fail", "undecided"


@dataclass(frozen=True)
class Run:
    """One arm under one seed."""

    text: str
    words: Mapping[str, str]  # overrides, without seed and places
    stage: str
    seed: int
    domain: float  # bits per byte
    general: float
    date: str
    cpu: str
    processor: float  # seconds, of all stages that were not kept
    clock: float

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "words": dict(sorted(self.words.items()))}

    def same_arm(self, other: Run) -> bool:
        return (self.text, self.words, self.stage, self.seed) == (other.text, other.words, other.stage, other.seed)


@dataclass(frozen=True)
class Cost:
    """A step with a method against a plain one, in turns: CPU time as a ratio with its interval, and memory."""

    name: str
    ratio: float
    low: float
    high: float
    steps: int
    megabytes: float  # the most that its process held, beyond the plain one's
    date: str
    cpu: str

    def verdict(self, limit: float | None) -> str:
        """Whether it is within a limit; nothing without one."""
        if limit is None:
            return ""
        if self.high <= limit:
            return WITHIN
        return OVER if self.low > limit else UNDECIDED

    @property
    def time(self) -> str:
        return f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def line(self, limit: float | None) -> str:
        aim = "" if limit is None else f" (<= {limit:g}: {self.verdict(limit)})"
        return f"{self.name}: {self.time} x a step{aim}, {self.megabytes:+.0f} MB"


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    runs: tuple[Run, ...] = ()
    costs: tuple[Cost, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what a file holds; nothing where there is none."""
        if not path.exists():
            return cls()
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(Run(**run) for run in found["runs"]), tuple(Cost(**cost) for cost in found["costs"]))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, in an order of its own."""
        runs = sorted(self.runs, key=lambda run: (run.text, run.stage, sorted(run.words.items()), run.seed))
        costs = sorted(self.costs, key=lambda cost: cost.name)
        return {"runs": [run.as_dict() for run in runs], "costs": [asdict(cost) for cost in costs]}

    def with_run(self, run: Run) -> Results:
        return replace(self, runs=(*(other for other in self.runs if not other.same_arm(run)), run))

    def with_cost(self, cost: Cost) -> Results:
        return replace(self, costs=(*(other for other in self.costs if other.name != cost.name), cost))

    def cost(self, name: str) -> Cost | None:
        return next((cost for cost in self.costs if cost.name == name), None)

    def by_seed(self, words: Mapping[str, str], stage: str, text: str) -> dict[int, Run]:
        """Return the runs of an arm by their seeds."""
        return {
            run.seed: run for run in self.runs if run.words == words and run.stage == stage and run.text == text
        }  # fmt: skip


def bits(run: Run, side: Side) -> float:
    return run.domain if side == "domain" else run.general


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def cpu() -> str:
    """Return the name of the processor and its kind."""
    return f"{hardware()['cpu']} ({cpu_kind()})"
