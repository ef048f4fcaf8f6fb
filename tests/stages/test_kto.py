"""KTO from single answers with a label, with pairs among them, and the weights that follow from their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.data.knowledge.corpus import EmbeddedCorpus
from common.engine.run import run_stage
from common.errors import ContractError
from common.stages.kto import weights_for
from common.stages.preference import Tuning
from tests.conftest import QUICK, REPOSITORY, long


@pytest.mark.parametrize(
    ("wanted", "unwanted", "weights"),
    [
        (10, 10, {}),
        (13, 10, {}),  # within [1, 4/3]
        (20, 10, {"undesirable_weight": 2.0}),
        (10, 20, {"desirable_weight": 2.0}),
        (9, 10, {"desirable_weight": 1.1111}),
        (10, 0, {}),
        (0, 10, {}),
    ],
)
def test_the_weights_bring_both_sides_into_the_bounds_of_the_paper(
    wanted: int, unwanted: int, weights: dict[str, float]
) -> None:
    assert weights_for(wanted, unwanted) == weights
    if wanted and unwanted:
        ratio = wanted * weights.get("desirable_weight", 1.0) / (unwanted * weights.get("undesirable_weight", 1.0))
        assert 0.999 <= ratio <= 4 / 3 + 1e-9


def without_pairs(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the answers of pairs by themselves, of two pairs in three the wanted one; every tenth pair stays one."""
    for number, row in enumerate(rows):
        if number % 10 == 0:
            yield row
            continue
        label = number % 3 > 0
        rest = {key: value for key, value in row.items() if key not in ("chosen", "rejected")}
        yield {**rest, "completion": row["chosen" if label else "rejected"], "label": label}


@pytest.mark.slow
@pytest.mark.parametrize("given", [long(None), "1.5"])
def test_kto_learns_from_single_answers(
    given: str | None, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = EmbeddedCorpus.rows
    monkeypatch.setattr(
        EmbeddedCorpus, "rows",
        lambda self, role: without_pairs(rows(self, role)) if role.startswith("preference") else rows(self, role),
    )  # fmt: skip
    quick = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
    words = {"domain": "medical", "out": str(copy), **quick, "pipeline": "kto", "kto.epochs": "0.2"}
    more = {} if given is None else {"kto.train.undesirable_weight": given}
    made = run_stage(resolve(words | more, REPOSITORY), "kto", Console("normal"))
    metrics, printed = made.manifest["metrics"], capsys.readouterr().out
    answers = metrics["answers"]
    assert metrics["steps"] >= 1
    assert answers["wanted"] > answers["unwanted"] > 0
    assert answers["desirable_weight"] == 1.0
    expected = answers["wanted"] / answers["unwanted"] if given is None else float(given)
    assert answers["undesirable_weight"] == pytest.approx(expected, abs=1e-3)
    assert ("kto: undesirable_weight=" in printed) == (given is None)
    assert 0.0 <= metrics["label_accuracy"]["score"] <= 1.0
    assert metrics["preference_accuracy"]["n"] < metrics["label_accuracy"]["n"]
    assert metrics["pairs"] > 0


def test_log_probabilities_of_a_reference_that_are_no_numbers_are_named() -> None:
    tuning: Any = SimpleNamespace(context=SimpleNamespace(stage="dpo"))
    trainer = SimpleNamespace(train_dataset={"ref_chosen_logps": [-1.0], "ref_rejected_logps": [-2.0, math.nan]})
    Tuning.require_finite_reference(tuning, trainer, ["ref_chosen_logps"])
    with pytest.raises(ContractError, match=r"^Stage dpo: ref_rejected_logps of row 1 is nan"):
        Tuning.require_finite_reference(tuning, trainer, ["ref_chosen_logps", "ref_rejected_logps"])
