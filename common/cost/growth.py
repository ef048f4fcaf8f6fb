"""What a plan says of stages that change a model's shape, and of those that train what was added alone.

Usage: `growth_notes(resolved, ["expand", "cpt"])`, a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.config.resolve import Resolved
from common.config.stages import ContinuedSettings
from common.cost.shapes import shape_after
from common.cost.workload import work_of
from common.models.planned import added_before, line_of, reshaping


def growth_notes(resolved: Resolved, stages: Sequence[str]) -> Iterator[str]:
    """Yield what of the models' shapes changes in some stages, as far as it is known."""
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
            work = work_of(line[-1].kind, settings, resolved.config, added_before(resolved, stage))
            yield f"{stage}: {work.learned(shape):,} of {shape.parameters:,} parameters learn."
