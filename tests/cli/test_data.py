"""What `just data` says beside its tables."""

from __future__ import annotations

import io
from pathlib import Path

from common.cli.data import show_forms, show_held_out
from common.console import Console
from common.engine.plan import make_plan
from tests.data.manifest.manifests import write_rows
from tests.stages.cleaning import BOOK, CHAT, EXAM, LENGTH, QUESTION, cleaned, made, resolved


def test_rows_that_are_held_out_are_named(tmp_path: Path) -> None:
    stream = io.StringIO()
    plan = make_plan(resolved(made(tmp_path), LENGTH, {**BOOK, "heldout": 0.3}, CHAT, EXAM))
    show_held_out(plan, ["cpt", "sft"], Console(stream=stream))
    kept = sum(row["source"] == "book" for row in plan.corpus.rows("text_domain"))
    assert 1 < kept < 12
    assert stream.getvalue().split("\n")[1] == f"  book: {kept} rows held out for the exam, beside those above"


def test_of_a_form_its_rows_its_losses_and_the_first_text_are_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    rows = [{"q": "What is an oak?", "a": "A tree."}, {"q": "And moss?", "a": ""}, {"q": QUESTION, "a": "The first."}]
    write_rows(made(tmp_path) / "faq.jsonl", rows)
    faq = {"id": "faq", "role": "cpt", "path": "faq.jsonl", "form": {"qa": {"answer": "A: "}}, "licence": "mit"}
    run = resolved(tmp_path, LENGTH, BOOK, faq, CHAT, EXAM)
    artifact = cleaned(run)
    show_forms(make_plan(run), artifact, Console(stream=stream))
    shown = [line.rstrip() for line in stream.getvalue().splitlines() if line]
    assert shown == [
        "faq, written as qa (arXiv 2407.10804, 2501.14002, 2407.18743): 2 rows; left out: empty answer 1",
        "  | What is an oak?", "  |", "  | A: A tree.",
    ]  # fmt: skip
    assert artifact.manifest["rows"][1]["dropped"] == {"empty answer": 1, "exam overlap": 1}
    (told,) = [source["form"] for source in artifact.manifest["sources"] if "form" in source]
    assert told["settings"] == {"question": "", "answer": "A: ", "between": "\n\n"}
