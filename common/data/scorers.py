"""Scores of rows by functions that a domain brings: the public ones of the `blocks.py` in its folder.

Usage: `scorers = scorers_for(resolved)`; `score_row(settings, scorers["readability"], options, row)`.

    def readability(row: Row, *, longest: int = 30) -> float:
        ...

A function takes a row, as `common.data.corpus` describes it, or its texts joined by blank lines where the block says
`reads: text`. It returns a finite number. Its keyword-only parameters are its options. There are no scorers of the
package: what is good in a domain is for the domain to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.config.base import Frozen, StageSettings
from common.config.blocks import Row, block_of, chosen
from common.config.cleaning import DataSettings
from common.config.domain_code import SCORERS, read_code, runnable
from common.config.domain_functions import Shape, load_functions, options_of_function
from common.config.names import NonEmpty
from common.config.resolve import Resolved
from common.config.validation import validated
from common.data.texts import texts_of
from common.errors import ConfigError, DataError, did_you_mean, first_line
from common.system.files import read_bytes
from common.system.outside_code import may_run, sha256

SHAPE = Shape("scorer", "row: Row")
SHOWN = 60  # characters of a row in a message


class ScorerSettings(Frozen):
    """One function and how it is called."""

    function: NonEmpty = Field(description="public function of the domain's blocks.py")
    reads: Literal["row", "text"] = Field("row", description="what it is given: the row, or its texts in one")
    options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")


@dataclass(frozen=True)
class Scorer:
    """A function of a file by its name. It crosses to other processes of this machine, where the file is run again."""

    path: Path
    shown: Path
    name: str
    digest: str  # of the file, so that no other code is run for it

    def __call__(self, given: Any, **options: Any) -> float:
        return self.function(given, **options)

    @property
    def function(self) -> Callable[..., float]:
        """The function itself. Raises ConfigError where the file is not what it was."""
        source = read_bytes(self.path)
        if sha256(source) != self.digest:
            raise ConfigError(f"{self.shown} changed since the run began. Start the run again.")
        return load_functions(self.path, source, self.shown, SHAPE)[self.name]


def scorer_names(settings: StageSettings) -> set[str]:
    """Return the functions of a domain that the blocks of a stage call."""
    if not isinstance(settings, DataSettings):
        return set()
    return {name for block, given in chosen(settings.blocks) for name in block_of(block).scorers(given)}


def scorers_with(path: Path, shown: Path | None = None) -> Mapping[str, Scorer]:
    """Return the scorers of a domain's file, which is run; a missing file has none. `shown` is its path in messages.

    Raises ConfigError where the file does not load, or a public function is no scorer.
    """
    if not path.is_file():
        return {}
    source, told = read_bytes(path), shown or path
    return {name: Scorer(path, told, name, sha256(source)) for name in load_functions(path, source, told, SHAPE)}


def scorers_for(resolved: Resolved) -> Mapping[str, Scorer]:
    """Return the scorers that a run may name: those of its domain, where its code may run."""
    folder = resolved.domain_folder
    if resolved.shipped or not (folder / SCORERS).is_file():
        return scorers_with(folder / SCORERS)
    allowed = may_run(read_code(folder).code)
    return scorers_with(runnable(folder, SCORERS) / SCORERS, folder / SCORERS) if allowed else {}


def scorers_of(resolved: Resolved, settings: StageSettings) -> Mapping[str, Scorer]:
    """Return the scorers of a run's domain where a stage names some."""
    return scorers_for(resolved) if scorer_names(settings) else {}


def check_scorer(settings: ScorerSettings, scorers: Mapping[str, Callable[..., float]], key: str) -> dict[str, Any]:
    """Return a scorer's options with their defaults. Raises ConfigError for an unknown function or a wrong option."""
    if settings.function not in scorers:
        raise ConfigError(
            f"{key}: the domain has no function '{settings.function}' in {SCORERS}."
            f"{did_you_mean(settings.function, scorers) or ' Write it there, as `def name(row: Row) -> float`.'}"
        )
    scorer = scorers[settings.function]
    function = scorer.function if isinstance(scorer, Scorer) else scorer
    return dict(validated(options_of_function(function), settings.options, prefix=f"{key}.options"))


def score_row(settings: ScorerSettings, function: Callable[..., float], options: Mapping[str, Any], row: Row) -> float:
    """Return the score of a row. Raises DataError, with source and row, where the function fails or gives no number."""
    given = row if settings.reads == "row" else "\n\n".join(filter(None, texts_of(row)))
    try:
        score = function(given, **options)
    except Exception as error:  # whatever the domain's own code raises
        raise DataError(
            f"{_where(row)}: the scorer '{settings.function}' raised {type(error).__name__}: {first_line(error)}. "
            f"Correct {SCORERS}."
        ) from error
    if isinstance(score, bool | int | float) and math.isfinite(score):
        return float(score)
    raise DataError(
        f"{_where(row)}: the scorer '{settings.function}' is {score!r}; expected a finite number. Correct {SCORERS}."
    )


def _where(row: Row) -> str:
    text = next((text for text in texts_of(row) if text.strip()), "")
    return f"Source '{row['source']}', the row that begins {' '.join(text.split())[:SHOWN]!r}"
