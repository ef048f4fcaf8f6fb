"""The tiny checkpoints and questions of the exam's tests, for the stage that runs the exam, and those of merges."""

from __future__ import annotations

from tests.evaluation.conftest import checkpoint, make_checkpoint, make_questions, one_thread
from tests.stages.merging import checkpoints

__all__ = ["checkpoint", "checkpoints", "make_checkpoint", "make_questions", "one_thread"]
