"""Short rows first, then long ones: of a long training the first part costs what a short one costs.

Usage: `cpt: {sequence_length: 32768, rope_theta: 500000, methods: {length_curriculum: {until: 0.4, parts: 8}}}`.

Xiong et al. 2023 (Llama 2 Long, arXiv 2309.16039), section 4.4: training that goes from rows of 4,096 tokens to rows of
32,768 after 20, 40 or 80% of it loses little against long rows from the start, and saves FLOPs of attention: 3.405,
3.026 and 2.270e22 against 3.783e22. The tokens of a step stay. So before the change each packed row of T tokens is read
as `parts` rows of T / parts. Which tokens are read, and when, stays as well.

A document is cut where a short row ends, as in the paper's packing; positions begin at 0 again there. The base of RoPE
is that of the stage from its first step on: the paper changes it before, for short rows too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.base import Share
from common.config.methods import MethodSettings, PackedRows, RowsMethod

if TYPE_CHECKING:
    from common.config.stages import TrainingSettings

SHORTEST = 16  # tokens of a row, as for sequence_length


class LengthCurriculumSettings(MethodSettings):
    """How long rows are short, and how short."""

    until: Share = Field(0.4, gt=0, lt=1, description="share of the steps that read short rows, at the beginning")
    parts: int = Field(8, ge=2, description="short rows that each row of sequence_length is read as until then")


def short_steps(steps: int, settings: LengthCurriculumSettings) -> int:
    """Return how many of the steps read short rows: the share, to the nearest step."""
    return round(settings.until * steps)


def parts(step: int, steps: int, settings: LengthCurriculumSettings) -> int:
    """Return into how many rows each packed row is cut in a step, counted from 0."""
    return settings.parts if step < short_steps(steps, settings) else 1


def order(packed: PackedRows, settings: LengthCurriculumSettings) -> tuple[Any, dict[str, float]]:
    """Return the order as it is, and how many steps read short rows."""
    steps = len(packed.order) // packed.rows_per_step
    return packed.order, {"short_steps": short_steps(steps, settings), "steps": steps}


def problem(own: LengthCurriculumSettings, stage: TrainingSettings) -> str:
    """Say why rows cannot be read in so many parts, or nothing."""
    length = stage.sequence_length
    if length % own.parts or length // own.parts < SHORTEST:
        return f"parts={own.parts} does not part sequence_length={length} into rows of {SHORTEST} tokens or more"
    return ""


METHOD = RowsMethod(
    name="length_curriculum", settings=LengthCurriculumSettings, parts=parts, order=order, problem=problem,
    phrase="short rows first, then long ones", paper="arXiv 2309.16039, section 4.4",
    ours="one change, at 40% of the steps, from an eighth of the length; the paper tries 20, 40 and 80%",
)  # fmt: skip
