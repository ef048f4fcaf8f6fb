"""Keep rows by the score that a function of the domain gives them: a threshold, or all but a share.

Usage: in a manifest, `blocks: [{score: {function: readability, drop_lowest: 0.25}}]`, with `def readability` in the
domain's blocks.py.

`drop_lowest: 0.25` drops the lowest quarter, as SciLitLLM does by quality (Li et al. 2024, arXiv 2408.15545);
`drop_lowest: 0.08` of a toxicity is the inverse filter of Longpre et al. 2023 (arXiv 2305.13169).
"""

from __future__ import annotations

from pydantic import Field

from common.config.blocks import ALL, Block, BlockContext, Row
from common.data.scorers import ScorerSettings, check_scorer, score_row
from common.data.selecting import ByScore, SelectionSettings
from common.data.texts import lines_of


class ScoreSettings(SelectionSettings, ScorerSettings):
    """The function, and which rows stay by what it returns."""

    lines: bool = Field(False, description="score each line of texts too, for methods that mark lines")


def look(settings: ScoreSettings, context: BlockContext) -> ByScore:
    """Return what scores all rows and then judges them. Raises ConfigError for an unknown function or option."""
    options = check_scorer(settings, context.scorers, "score")
    function = context.scorers[settings.function]

    def score(row: Row) -> float:
        return score_row(settings, function, options, row)

    def lines(row: Row) -> Row:
        if not settings.lines or "text" not in row:
            return row
        found = [score(row | {"text": line.rstrip("\r\n")}) for line in lines_of(row["text"]) if line.strip()]
        return row | {"line_scores": {**row.get("line_scores", {}), settings.function: found}}

    return ByScore(settings, context, score, settings.function, stays=lines)


BLOCK = Block(
    name="score", settings=ScoreSettings, look=look, rows=ALL, scorers=lambda settings: (settings.function,),
    scores=lambda settings: (settings.function,),
    line_scores=lambda settings: (settings.function,) if settings.lines else (),
    phrase="rows that a function of the domain scores too low or too high",
)  # fmt: skip
