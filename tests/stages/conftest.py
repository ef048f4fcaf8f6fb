"""The tiny checkpoints and questions of the exam's tests, for the stage that runs the exam."""

from __future__ import annotations

from tests.evaluation.conftest import checkpoint, make_checkpoint, make_questions, one_thread

__all__ = ["checkpoint", "make_checkpoint", "make_questions", "one_thread"]
