"""What the methods of a stage do with its rows: which scores they read, what they change, and in which order.

Usage: `change_rows(reader, settings)` before rows are tokenised; `order, facts = reordered(context, rows, order,
training, counts)` once the usual order is there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from common.config.methods import FOLDERS, LossMethod, MethodSettings, PackedRows, RowsMethod, chosen
from common.config.mixture import CurriculumSettings
from common.config.stages import TrainingSettings
from common.data.accounting import RowCount
from common.errors import DataError
from common.training.rows.packing import Marked
from common.training.rows.reader import Reader

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from common.stage import StageContext

BY = "by"  # the setting of methods that names a score


def orders(settings: TrainingSettings) -> dict[str, Any]:
    """Return the methods of a stage that change or order rows, with their settings: they decide what is read when."""
    return {method.name: own.model_dump(mode="json") for method, own in _of_rows(settings)}


def scores_of(settings: TrainingSettings) -> dict[str, str]:
    """Return the scores of documents that methods read from packed rows, each with the setting that asks for it."""
    return {score: f"methods.{method.name}.{BY}" for method, own in chosen(settings) for score in method.scores(own)}


def scores_of_losses(settings: TrainingSettings) -> list[str]:
    """Return the scores that terms of the loss read."""
    found = {
        score for method, own in chosen(settings) if isinstance(method, LossMethod) for score in method.scores(own)
    }
    return sorted(found)


def sorted_by(settings: TrainingSettings) -> CurriculumSettings | None:
    """Return the order in which the stage's own rows are packed, where a method or a curriculum asks for one."""
    found = [order for method, own in _of_rows(settings) if (order := method.sorted_by(own)) is not None]
    return next(iter(found), settings.mixture.curriculum)


def selects(settings: TrainingSettings) -> bool:
    """Whether a method chooses among all rows by a score, so that no budget may end their reading."""
    return any(method.sorted_by(own) is not None for method, own in _of_rows(settings))


def change_rows(reader: Reader) -> None:
    """Let a reader change each row as the methods of its stage do, in their order."""
    context = reader.context
    settings = cast(TrainingSettings, context.settings)
    on = _of_rows(settings)
    reader.rewrites = [partial(_rewritten, context, method, own) for method, own in on if method.rewrite is not None]
    reader.marks = [partial(_marked, method.mark, own) for method, own in on if method.mark is not None]
    for method, own in on:
        if method.rewrite is None and method.mark is None:
            continue
        module = f"{FOLDERS[method.place]}.{method.name}"
        code = context.shared.code(module) if context.shared is not None else ""
        reader.rewritten[method.name] = {"settings": own.model_dump(mode="json"), "code": code}


def _marked(mark: Any, own: MethodSettings, row: Mapping[str, Any], learned: Sequence[bool]) -> Marked:
    found: Marked = mark(row, learned, own)
    return found


def parts_by_step(settings: TrainingSettings, steps: int) -> list[int]:
    """Return into how many rows each packed row is cut, in each step; nothing where none ever is."""
    cutting = [(method.parts, own) for method, own in _of_rows(settings) if method.parts is not None]
    found = [math.prod(parts(step, steps, own) for parts, own in cutting) for step in range(steps)]
    return found if any(number > 1 for number in found) else []


def _rewritten(
    context: StageContext, method: RowsMethod, own: MethodSettings, row: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    assert method.rewrite is not None
    try:
        return method.rewrite(row, own, context.config.seed)
    except ValueError as error:
        raise DataError(f"{context.stage}.methods.{method.name}: {error}.") from None


def _of_rows(settings: TrainingSettings) -> list[tuple[RowsMethod, MethodSettings]]:
    return [(method, own) for method, own in chosen(settings) if isinstance(method, RowsMethod)]


def reordered(
    context: StageContext, rows: Dataset, order: np.ndarray, training: np.ndarray, counts: Iterable[RowCount]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an order as each method changes it in turn, and what they say of it. `rows` are all that are prepared.

    `training` are the places of the stage's own rows that may train, and `counts` the accounts of their sources. Raises
    DataError where a method finds that these rows must not train.
    """
    settings = cast(TrainingSettings, context.settings)
    facts: dict[str, Any] = {}
    on = _of_rows(settings)
    if not on:
        return order, facts
    changed: Counter[str] = sum((Counter(count.changed) for count in counts), Counter())
    for method, own in on:
        rows_per_step = settings.batch_tokens // settings.sequence_length
        packed = PackedRows(order, training, rows, rows_per_step, context.config.seed)
        facts[method.name] = {}
        try:
            if method.judge is not None:
                facts[method.name] |= method.judge(changed, packed, own)
        except ValueError as error:
            raise DataError(f"{context.stage}.methods.{method.name}: {error}.") from None
        if method.order is not None:
            order, measured = method.order(packed, own)
            facts[method.name] |= measured
        assert len(order) == len(packed.order), f"{method.name} changes the number of rows"
    return order, facts
