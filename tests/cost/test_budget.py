"""Tokens of a stage: its budget, or its epochs over rows that are here."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.resolve import Resolved, resolve
from common.cost.budget import Budget, budget_of
from common.data.sizes import OWN, RowSizes
from common.engine.corpora import open_corpus
from tests.conftest import QUICK, REPOSITORY


def budget(stage: str, tokenizer: Path | None = None, **words: str) -> Budget:
    resolved = run_of(**words)
    node = next(node for node in resolved.nodes if node.name == stage)
    sizes = RowSizes(open_corpus(resolved), tokenizer=tokenizer, vocabulary=2048, turn_tokens=OWN)
    return budget_of(node, resolved.config.stages[stage], sizes)


def run_of(**words: str) -> Resolved:
    return resolve({"domain": "medical", **words}, REPOSITORY)


def test_a_token_budget_is_exact() -> None:
    assert budget("cpt") == Budget(800_000)
    assert budget("exam-base") == budget("merge") == Budget()


def test_passes_over_rows_are_counted_in_whole_steps() -> None:
    once, twice = (budget("cpt", None, **{"cpt.epochs": number}).tokens or 0 for number in ("1", "2"))
    assert once % 512 == 0
    assert twice == pytest.approx(2 * once, abs=1024)
    assert budget("cpt", None, **{"cpt.epochs": "1"}).counted


def test_a_stage_that_learns_from_sampled_answers_is_unknown() -> None:
    assert budget("dpo", pipeline="on-policy") == Budget()
    assert budget("expert", pipeline="rlvr", domain="math") == Budget()


@pytest.mark.slow
def test_what_is_counted_is_what_a_run_trains_on(copy: Path) -> None:
    """Epochs over the embedded rows, with the tokenizer of the finished run."""
    import json

    from common.console import Console
    from common.engine.run import run_stage

    words = {"out": str(copy), **QUICK, "sft.epochs": "0.4", "sft.tokens": "null"}
    tokenizer = copy / "runs" / "medical" / "tiny" / "demonstration" / "base" / "tokenizer.json"
    for stage in ("dpo", "sft"):
        counted = budget(stage, tokenizer, **words).tokens
        made = copy / "runs" / "medical" / "tiny" / "demonstration" / stage / "manifest.json"
        real = (
            run_stage(run_of(**words), stage, Console("quiet")).manifest["tokens"]
            if stage == "sft"
            else json.loads(made.read_text(encoding="utf-8"))["tokens"]
        )
        assert counted == pytest.approx(real, rel=0.15, abs=1024)  # a step of sft
