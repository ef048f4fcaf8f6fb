"""Keep rows by four scores of a domain's own functions: grammar, density of information, consistency and relevance.

Usage: in a manifest, `blocks: [{relevance: {relevance: {function: on_topic, weight: 2}, drop_lowest: 0.2}}]`.

The axes are DataRater's in CareBot (Zhao et al. 2024, arXiv 2412.15236), where a model gives them. How they are put
together is not published; here it is their weighted mean, each from 0 to 1, over the axes that are named.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from common.config.blocks import ALL, Block, BlockContext, Row
from common.data.scorers import ScorerSettings, check_scorer, score_row
from common.data.selecting import ByScore, SelectionSettings
from common.errors import DataError

AXES = ("grammar", "density", "consistency", "relevance")


class AxisSettings(ScorerSettings):
    """One axis: the function that scores it, and what it counts."""

    weight: float = Field(1.0, gt=0, le=1000, description="what the axis counts beside the others")


class RelevanceSettings(SelectionSettings):
    """The four axes, and which rows stay by their mean."""

    grammar: AxisSettings | None = Field(None, description="how well a row is written")
    density: AxisSettings | None = Field(None, description="how much it tells for its length")
    consistency: AxisSettings | None = Field(None, description="whether its parts agree")
    relevance: AxisSettings | None = Field(None, description="how much it is about the domain")

    @model_validator(mode="after")
    def _has_axes(self) -> RelevanceSettings:
        if not axes_of(self):
            raise ValueError(f"no axis is named; set one of {', '.join(AXES)}, each with a function")
        return self


def axes_of(settings: RelevanceSettings) -> dict[str, AxisSettings]:
    """Return the axes that are named."""
    return {name: axis for name in AXES if (axis := getattr(settings, name)) is not None}


def look(settings: RelevanceSettings, context: BlockContext) -> ByScore:
    """Return what scores all rows and then judges them. Raises ConfigError for an unknown function or option."""
    axes = axes_of(settings)
    options = {name: check_scorer(axis, context.scorers, f"relevance.{name}") for name, axis in axes.items()}
    total = sum(axis.weight for axis in axes.values())

    def score(row: Row) -> float:
        mean = 0.0
        for name, axis in axes.items():
            value = score_row(axis, context.scorers[axis.function], options[name], row)
            if not 0 <= value <= 1:
                raise DataError(
                    f"Source '{row['source']}': the function '{axis.function}' for {name} is {value:g}; expected a "
                    "number from 0 to 1, so that the axes have one scale."
                )
            mean += axis.weight * value / total
        return mean

    return ByScore(settings, context, score, "relevance")


BLOCK = Block(
    name="relevance", settings=RelevanceSettings, look=look, rows=ALL,
    scorers=lambda settings: tuple(axis.function for axis in axes_of(settings).values()),
    scores=lambda settings: ("relevance",),
    phrase="rows of little worth to the domain, by up to four scores",
)  # fmt: skip
