"""The stage before as a teacher: its model, frozen, beside the one that learns.

Usage: `applied.teacher = teacher_of(context, trainer)`; then `with beside(teacher, run): trainer.train()`.

It is a model of its own in every process, sharded where the learner is. It computes in the learner's precision, with
the attention that the learner has, so that documents of a row are kept apart in both. It has the learner's vocabulary,
as no stage that trains changes that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings
from common.models.device import device_of
from common.training import patches
from common.training.distributed import parallel
from common.training.distributed.loading import load_shared
from common.training.speed.attention import with_attention

if TYPE_CHECKING:
    from common.stage import StageContext


def teacher_of(context: StageContext, trainer: Any) -> Any:
    """Load the stage before for a trainer, with the autocast of the learner."""
    run = context.config.run
    teacher = load_shared(context.parent_artifact.path, context.config.model, run).requires_grad_(False).eval()
    if parallel.is_sharded(run):
        return patches.shard_reference(teacher, trainer.accelerator)
    return trainer.accelerator.prepare_model(teacher, evaluation_mode=True)


@contextlib.contextmanager
def beside(teacher: Any, run: RunSettings) -> Iterator[None]:
    """Give a teacher the attention of a training for as long as it lasts."""
    if teacher is None:
        yield
        return
    with with_attention(teacher, run, device_of(run)):
        yield
