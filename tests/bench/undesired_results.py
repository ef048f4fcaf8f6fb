"""What `just bench undesired` has measured, in one file of the repository: each arm under each seed, by text.

Usage: `found = Outcomes.read(MEASURED)`; `found.of("conditional", words, "embedded")`.

A newer outcome of the same arm and seed takes the place of the older one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parent / "undesired.json"


@dataclass(frozen=True)
class Outcome:
    """One arm under one seed."""

    arm: str
    words: Mapping[str, str]  # overrides, without seed and places
    seed: int
    text: str
    trait: float  # share of what it wrote that has the trait
    ended: float  # share that ended by itself
    domain: float  # bits per byte of held-out text
    general: float
    date: str
    cpu: str
    processor: float  # seconds, of all stages that were not kept
    clock: float

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "words": dict(sorted(self.words.items()))}


@dataclass(frozen=True)
class Outcomes:
    """All that was measured."""

    found: tuple[Outcome, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Outcomes:
        """Return what a file holds; nothing where there is none."""
        if not path.exists():
            return cls()
        return cls(tuple(Outcome(**one) for one in json.loads(path.read_text(encoding="utf-8"))["outcomes"]))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, in an order of its own."""
        ordered = sorted(self.found, key=lambda one: (one.text, one.arm, one.seed))
        return {"outcomes": [one.as_dict() for one in ordered]}

    def with_one(self, new: Outcome) -> Outcomes:
        others = (one for one in self.found if (one.text, one.arm, one.seed) != (new.text, new.arm, new.seed))
        return Outcomes((*others, new))

    def of(self, arm: str, words: Mapping[str, str], text: str) -> dict[int, Outcome]:
        """Return the outcomes of an arm on a text, as it is set now, by their seeds."""
        return {one.seed: one for one in self.found if (one.arm, one.words, one.text) == (arm, words, text)}
