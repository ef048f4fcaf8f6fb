"""The order of a stage's packed rows, as its methods change it.

Usage: `order, facts = reordered(context, parts, order, training)`, once the usual order is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from common.config.methods import PackedRows, RowsMethod, chosen
from common.config.stages import TrainingSettings
from common.training.rows.prepared import open_prepared

if TYPE_CHECKING:
    import numpy as np

    from common.stage import StageContext


def orders(settings: TrainingSettings) -> dict[str, Any]:
    """Return the methods of a stage that order rows, with their settings: they decide which rows are read when."""
    return {
        method.name: own.model_dump(mode="json") for method, own in chosen(settings) if isinstance(method, RowsMethod)
    }


def reordered(
    context: StageContext, parts: Sequence[str], order: np.ndarray, training: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an order as each method changes it in turn, and what they say of it. `parts` are prepared rows, by name.

    `training` are the places of the stage's own rows that may train.
    """
    from datasets import concatenate_datasets

    settings = cast(TrainingSettings, context.settings)
    facts: dict[str, Any] = {}
    on = [(method, own) for method, own in chosen(settings) if isinstance(method, RowsMethod)]
    if not on:
        return order, facts
    found = [open_prepared(context, name) for name in parts]
    rows = concatenate_datasets([part.rows for part in found if part is not None])
    for method, own in on:
        rows_per_step = settings.batch_tokens // settings.sequence_length
        packed = PackedRows(order, training, rows, rows_per_step, context.config.seed)
        order, facts[method.name] = method.order(packed, own)
        assert len(order) == len(packed.order), f"{method.name} changes the number of rows"
    return order, facts
