"""What a plan says of stages that change a model's shape, and of those that train what was added alone.

Usage: `growth_notes(outlook, ["expand", "cpt"])`, a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.config.stages import ContinuedSettings
from common.cost.outlook import Outlook
from common.cost.shapes import shape_after
from common.models.planned import line_of, reshaping


def growth_notes(outlook: Outlook, stages: Sequence[str]) -> Iterator[str]:
    """Yield what of the models' shapes changes in some stages, as far as it is known."""
    resolved = outlook.resolved
    for stage in stages:
        settings, shape = resolved.config.stages[stage], shape_after(resolved, stage)
        if shape is None:
            continue
        line = line_of(resolved, stage)
        if reshaping(resolved, stage)[-1:] == line[-1:]:
            before = shape_after(resolved, line[-2].name)
            assert before is not None
            if shape.vocabulary != before.vocabulary:
                yield f"{stage}: {before.vocabulary:,} -> at most {shape.vocabulary:,} rows for tokens."
                continue
            yield (
                f"{stage}: {before.layers} -> {shape.layers} layers, {before.parameters:,} -> {shape.parameters:,} "
                "parameters."
            )
        elif isinstance(settings, ContinuedSettings) and settings.train_only is not None:
            work = outlook.settings[stage].work
            assert work is not None, "it trains"
            frozen = ""
            if work.checkpointing and work.passed(shape) > work.learning(shape):
                done = "keep their activations" if work.keeps_frozen else "are computed again"
                frozen = f" Frozen layers above the lowest that learns {done} (run.keep_frozen)."
            yield f"{stage}: {work.learned(shape):,} of {shape.parameters:,} parameters learn.{frozen}"
