"""What is known of each kind of stage: one object for each, declared beside the stage's own `run`.

Usage: `kind_of("cpt").roles`; `for kind in kinds().values(): ...`.

A new kind is one module in `common/stages/`, named after it, with `KIND = Kind(...)`. The registry lists that package
and imports its modules when it is first asked, so this room names no stage. Nothing heavy is imported with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.config.base import StageSettings
from common.config.registry import declared

STAGES = "common.stages"
Makes = Literal["language model", "reward model", "sample", "labelled text", "rows", "report"]
Part = Literal["text", "conversations", "alignment", "merge"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of stage: what every other part of the program asks about it."""

    name: str  # as pipeline files say it; its module is called the same
    settings: type[StageSettings]
    run: Callable[[Any], Any]  # from a `StageContext` to a `StageReport`: see `common.stage`
    check: Callable[[Any, Any, Any], object] | None = None  # (node, settings, resolved); raises ConfigError in a plan

    # (settings, config.json of the stage before, stage) -> that of its result, where it makes a model of another shape.
    # Raises ConfigError in a plan for a model that it cannot change so.
    reshapes: Callable[[Any, Mapping[str, Any], str], Mapping[str, Any]] | None = None

    makes: Makes = "language model"
    starts: bool = False  # begins the chain; all others continue from a stage
    changes_tokenizer: bool = False  # its result reads other tokens than the stage before
    roles: tuple[str, ...] = ()  # corpus roles that decide its result, the indispensable one first
    measures: tuple[str, ...] = ()  # corpus roles that it reads to measure a model, where its settings are `measuring`
    reads: tuple[Makes, ...] = ()  # results that a pipeline file may name in its `with`

    shareable: bool = False  # several processes may train it together
    on_gpu: bool = True  # holds its GPUs while it runs
    online: bool = False  # its model writes answers within each training step
    reference: bool = False  # loads the stage before it a second time, to compare with
    defaults: Mapping[str, Any] = field(default_factory=dict)  # trainer options that hold where the settings have none
    seconds: float = 20.0  # guess for the tiny profile, where it trains on no known number of tokens

    phrase: str = ""  # what the card calls it
    part: Part | None = None  # that its checkpoint plays in the card's comparisons

    @property
    def makes_model(self) -> bool:
        return self.makes in ("language model", "reward model")

    @property
    def brings_rows(self) -> bool:
        """Whether its result holds rows that a stage trains on in place of the corpus's."""
        return self.makes in ("sample", "labelled text")

    @property
    def seeded(self) -> bool:
        """Whether the run's seed is part of its recipe."""
        return self.makes not in ("rows", "report")

    @property
    def holds_model(self) -> bool:
        """Whether it loads a model, so that the machine must be large enough for one."""
        return self.seeded or self.on_gpu


def kind_of(name: str) -> Kind:
    """Return a kind by its name. Raises KeyError for one that does not exist."""
    return kinds()[name]


def kinds() -> Mapping[str, Kind]:
    """Return all kinds by name."""
    return declared(STAGES, "KIND")
