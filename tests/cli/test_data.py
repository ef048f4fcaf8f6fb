"""What `just data` says beside its tables."""

from __future__ import annotations

import io
from pathlib import Path

from common.cli.data import show_held_out
from common.console import Console
from common.engine.plan import make_plan
from tests.stages.cleaning import BOOK, CHAT, EXAM, LENGTH, made, resolved


def test_rows_that_are_held_out_are_named(tmp_path: Path) -> None:
    stream = io.StringIO()
    plan = make_plan(resolved(made(tmp_path), LENGTH, {**BOOK, "heldout": 0.3}, CHAT, EXAM))
    show_held_out(plan, ["cpt", "sft"], Console(stream=stream))
    kept = sum(row["source"] == "book" for row in plan.corpus.rows("text_domain"))
    assert 1 < kept < 12
    assert stream.getvalue().split("\n")[1] == f"  book: {kept} rows held out for the exam, beside those above"
