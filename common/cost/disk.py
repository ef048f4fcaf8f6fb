"""What a run leaves on disk, and what it needs there while it works.

Usage: `kept_bytes(setting)`, `scratch_bytes(setting)`.

Rows, logs and exams are small beside weights and are not counted.
"""

from __future__ import annotations

from common.config.kinds import kind_of
from common.cost.memory import FLOAT, Setting

KEPT_CHECKPOINTS = 2  # of a trainer
CHECKPOINTS = KEPT_CHECKPOINTS + 1  # on disk at once: one more is being written
# Files of best weights: the best of now, and those before each trainer checkpoint that a run may go on from.
KEPT_BEST = KEPT_CHECKPOINTS + 1
WORD = 4  # bytes of a token's id, or of a log-probability


def kept_bytes(setting: Setting) -> float:
    """Return the bytes of a stage's artifact: a whole model as it is stored, and its adapter."""
    if not kind_of(setting.kind).makes_model:
        return 0.0
    work = setting.work
    adapter = FLOAT * work.learned(setting.shape) if work is not None and work.peft != "full" else 0.0
    return setting.stored * setting.shape.parameters + adapter


def state_bytes(setting: Setting) -> float:
    """Return the bytes of an optimizer's state, and of the weights in float32 where results are stored in less."""
    assert setting.work is not None, f"a stage of kind {setting.kind} has no optimizer"
    weights = 0.0 if setting.stored == FLOAT else FLOAT * setting.shape.parameters
    return setting.work.state * setting.work.learned(setting.shape) + weights


def scratch_bytes(setting: Setting) -> float:
    """Return the bytes that a training holds until its stage is done: checkpoints with optimizer state, best weights.

    Shards share them out; the sum stays the same, and a sharded model is gathered there too. What a teacher leaves is
    there as long.
    """
    work, shape = setting.work, setting.shape
    if work is None:
        return 0.0
    learned, saved = work.learned(shape), work.saved(shape)
    gathered = FLOAT * shape.parameters if setting.shards > 1 else 0.0
    best = KEPT_BEST * FLOAT * saved if setting.best else 0.0
    trained = CHECKPOINTS * (FLOAT * saved + (work.state + setting.beside) * learned)
    return trained + best + gathered + kept_of_teacher(setting)


def kept_of_teacher(setting: Setting) -> float:
    """Return the bytes of the logits that a teacher leaves, at most: `common.training.rows.taught`."""
    return setting.kept_tokens * WORD * (2 * setting.keeps + 1) if setting.keeps else 0.0
