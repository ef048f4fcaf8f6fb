"""How much of a stage's tokens comes from each of its sources, and when.

Usage: in a manifest, `settings: {cpt: {mixture: {shares: {web: 0.7, books: 0.3}, most_epochs: 4}}}`.

It is settings only. The order that follows from them is `common.training.rows.mixture`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field, model_validator

from common.config.base import Frozen, Share
from common.config.mixture_presets import PRESETS
from common.config.names import NonEmpty
from common.errors import did_you_mean

Shares = dict[NonEmpty, Share]


class Phase(Frozen):
    """A part of the training steps with shares of its own."""

    until: float = Field(gt=0, le=1, description="share of all steps at which it ends; the last phase ends at 1")
    shares: Shares = Field(
        default_factory=dict,
        description="source -> share of the phase's own tokens; they add up to 1. none: by what they hold",
    )
    replay: Share | None = Field(
        None, description="share of all tokens of the phase that is replay; given in one phase, it is in all"
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Phase:
        if self.shares:
            _check_sum(self.shares, whole=True)
        elif self.replay is None:
            raise ValueError("a phase needs shares, or replay, or it would change nothing")
        return self


LENGTH = "length"


class CurriculumSettings(Frozen):
    """The order of each source's rows. Shares of sources hold at every point of it."""

    by: NonEmpty = Field(
        LENGTH,
        description="length in tokens, or a score that a block gives: perplexity, history, relevance, a function",
    )
    direction: Literal["ascending", "descending"] = Field(
        "ascending", description="from the lowest to the highest, or back"
    )

    @property
    def phrase(self) -> str:
        """The order in words."""
        ends = ("shortest", "longest") if self.by == LENGTH else (f"lowest in {self.by}", f"highest in {self.by}")
        first, last = ends if self.direction == "ascending" else ends[::-1]
        return f"every pass over a source goes roughly from the rows that are {first} to those that are {last}"


class MixtureSettings(Frozen):
    """Shares of a stage's own tokens, without replay, by source. Without any, sources count by what they hold."""

    shares: Shares = Field(
        default_factory=dict, description="source -> share of the tokens; other sources divide what is left"
    )
    preset: NonEmpty | None = Field(
        None, description="shares of a paper, by name, in place of shares: syne-bilingual, problems, mono-code, …"
    )
    parts: dict[NonEmpty, tuple[NonEmpty, ...]] = Field(
        default_factory=dict, description="part of the preset -> its sources; in a part they count by what they hold"
    )
    temperature: float = Field(
        1.0,
        ge=1,
        le=100,
        description="shares go with tokens to the power of 1/temperature; above 1 they are evener",
    )
    most_epochs: float | None = Field(
        None, gt=0, le=10_000, description="most passes over a source; others take what it would have had beyond them"
    )
    phases: tuple[Phase, ...] = Field((), description="shares that change while the stage trains, in place of shares")
    curriculum: CurriculumSettings | None = Field(
        None, description="order of each source's rows; none: a fresh shuffle in every pass"
    )

    @model_validator(mode="after")
    def _fits(self) -> MixtureSettings:
        _check_sum(self.shares, whole=False)
        if problems := list(self._preset_problems()):
            raise ValueError("; ".join(problems))
        if self.phases and (self.shares or self.temperature != 1):
            raise ValueError("phases have shares of their own; leave shares and temperature out")
        ends = [phase.until for phase in self.phases]
        if ends and (ends[-1] != 1 or any(a >= b for a, b in itertools.pairwise(ends))):
            raise ValueError(f"phases end at {ends}; expected growing shares of the steps, the last of them 1")
        if len({phase.replay is None for phase in self.phases}) > 1:
            raise ValueError("some phases say replay and some do not; give it in all of them, or in none")
        if self.replay == 1:
            raise ValueError("all phases are replay alone; set replay=1 of the stage instead")
        return self

    def _preset_problems(self) -> Iterator[str]:
        if self.preset is None:
            if self.parts:
                yield "parts are those of a preset; name one, or give shares"
            return
        if self.preset not in PRESETS:
            yield f"preset is '{self.preset}', and there is none of that name.{did_you_mean(self.preset, PRESETS)}"
            return
        if self.shares or self.phases or self.temperature != 1:
            yield f"the preset {self.preset} has shares of its own; leave shares, phases and temperature out"
        wanted = PRESETS[self.preset].shares
        filled = {part for part, sources in self.parts.items() if sources}
        if filled != wanted.keys():
            named = ", ".join(f"{part}: [<source>, …]" for part in wanted)
            yield f"the preset {self.preset} needs sources for each of its parts, and no other: parts: {{{named}}}"
        times = Counter(name for sources in self.parts.values() for name in sources)
        yield from (f"parts names '{name}' twice" for name, number in times.items() if number > 1)

    @property
    def preset_phrase(self) -> str:
        """The shares of the preset and their sources in words; nothing without one."""
        if self.preset is None:
            return ""
        found = PRESETS[self.preset]
        shares = "; ".join(
            f"{part} {share:.0%} from {', '.join(self.parts[part])}" for part, share in found.shares.items()
        )
        ours = f"; ours: {found.ours}" if found.ours else ""
        return f"shares of the preset {self.preset} ({found.paper}{ours}): {shares}"

    @property
    def replay(self) -> float | None:
        """The share of replay over all phases, where they say it."""
        begin, found = 0.0, 0.0
        for phase in self.phases:
            if phase.replay is None:
                return None
            found += (phase.until - begin) * phase.replay
            begin = phase.until
        return round(found, 6) if self.phases else None

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return self != MixtureSettings()

    def by_size(self, names: Iterable[str]) -> set[str]:
        """Return those of a stage's sources whose part depends on all that they hold, so that they are read whole."""
        names = set(names)
        if self.most_epochs is not None and self.most_epochs < 1:
            return names
        if self.preset is not None:
            return {name for sources in self.parts.values() if len(sources) > 1 for name in sources} & names
        unnamed = set() if self.phases or not self.asks else names - self.shares.keys()
        unnamed = names if any(not phase.shares for phase in self.phases) else unnamed
        return unnamed if len(unnamed) > 1 else set()

    @property
    def sources(self) -> set[str]:
        """The sources that are named."""
        parts = (name for sources in self.parts.values() for name in sources)
        return {*self.shares, *parts, *(name for phase in self.phases for name in phase.shares)}


def _check_sum(shares: Shares, *, whole: bool) -> None:
    total = math.fsum(shares.values())
    if total > 1 + 1e-9 or (whole and total < 1 - 1e-9):
        raise ValueError(f"shares add up to {total:g}; expected {'1' if whole else 'at most 1'}")
