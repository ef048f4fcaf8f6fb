"""The stage before as a teacher: its model, frozen, beside the one that learns.

Usage: `applied.teacher = teacher_of(context, trainer)`; then `with beside(teacher, run, stage): trainer.train()`.

It is a model of its own in every process, sharded where the learner is. It gets the attention that the learner has, so
that documents of a row are kept apart in both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings
from common.errors import ConfigError
from common.models.device import device_of
from common.training import patches
from common.training.distributed import parallel
from common.training.distributed.loading import load_shared
from common.training.speed.attention import with_attention

if TYPE_CHECKING:
    from common.stage import StageContext


def teacher_of(context: StageContext, trainer: Any) -> Any:
    """Load the stage before for a trainer. Raises ConfigError where its vocabulary is not the learner's."""
    run = context.config.run
    teacher = load_shared(context.parent_artifact.path, context.config.model, run)
    check_vocabulary(teacher, trainer.model, context.stage)
    if parallel.is_sharded(run):
        return patches.shard_reference(teacher, trainer.accelerator)
    return teacher.requires_grad_(False).eval().to(trainer.accelerator.device)


def check_vocabulary(teacher: Any, learner: Any, stage: str) -> None:
    """Check that two models score the same tokens. Raises ConfigError."""
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (teacher, learner)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"{stage}: the teacher scores {sizes[0]:,} tokens and the model {sizes[1]:,}, so their predictions cannot "
            "be compared. Use a loss without a teacher where the vocabulary has just changed."
        )


@contextlib.contextmanager
def beside(teacher: Any, run: RunSettings, *, in_one_piece: bool = False) -> Iterator[None]:
    """Give a teacher the attention of a training for as long as it lasts."""
    if teacher is None:
        yield
        return
    with with_attention(teacher, run, device_of(run), in_one_piece=in_one_piece):
        yield
