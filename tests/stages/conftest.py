"""Fixtures of the tests of evaluation, for the stage that runs it."""

from __future__ import annotations

from tests.evaluation.conftest import checkpoint, make_checkpoint, make_questions, one_thread

__all__ = ["checkpoint", "make_checkpoint", "make_questions", "one_thread"]
