"""How many tokens a stage trains on: its budget, or its epochs over rows that are counted or sampled.

Usage: `budget = budget_of(node, settings, sizes)`; `budget.tokens`, `budget.counted`.

The packing is that of `common.training.rows`: documents are split into full rows, conversations stay whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config.answering import ExpertSettings
from common.config.base import StageSettings
from common.config.batches import own_share, pair_steps
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.stages import PreferenceSettings, TrainingSettings
from common.data.sizes import RowSizes, Sizes

FILLED = 0.98  # share of a packed row that best fit fills


@dataclass(frozen=True)
class Budget:
    """Tokens of a stage; None where its rows are made by an earlier stage, or are on the Hub."""

    tokens: int | None = None
    counted: bool = False  # from the lengths of rows, so it is about right and not exact


def budget_of(node: Node, settings: StageSettings, sizes: RowSizes) -> Budget:
    """Return the tokens of a stage that trains; of another kind none."""
    if isinstance(settings, TrainingSettings) and settings.tokens is not None:
        return Budget(settings.tokens * getattr(settings, "rounds", 1))
    if node.sampled or isinstance(settings, ExpertSettings):
        return Budget()
    if isinstance(settings, TrainingSettings):
        role = "replay" if settings.replay == 1 else kind_of(node.kind).roles[0]
        found = sizes.of(role)
        return Budget() if found is None else Budget(_packed(settings, found), counted=True)
    if isinstance(settings, PreferenceSettings):
        found = sizes.of(kind_of(node.kind).roles[0])
        return Budget() if found is None else Budget(_paired(settings, found), counted=True)
    return Budget()


def _packed(settings: TrainingSettings, found: Sizes) -> int:
    """Return the token positions of some passes over packed rows, padding included."""
    rows = found.total(settings.sequence_length) / (settings.sequence_length * FILLED) / own_share(settings)
    trained = (settings.epochs or 0) * rows * (1 - settings.validation.share)
    steps = math.ceil(trained * settings.sequence_length / settings.batch_tokens)
    return max(1, steps) * settings.batch_tokens


def _paired(settings: PreferenceSettings, found: Sizes) -> int:
    """Return the tokens of some passes over pairs, both sides with their prompt; too long ones are left out.

    Two single answers with a label are as much as a pair.
    """
    turns = found.turn_tokens
    rows = [[found.tokens(row.text + size) + turns * (row.turns + 1) for size in row.answers] for row in found.sample]
    kept = [sides for sides in rows if sides and max(sides) <= settings.sequence_length]
    if not kept:
        return 0
    pairs = sum(map(len, kept)) / 2
    num_pairs = found.rows * pairs / len(found.sample)
    return round(pair_steps(settings, num_pairs) * settings.batch_pairs * sum(map(sum, kept)) / pairs)
