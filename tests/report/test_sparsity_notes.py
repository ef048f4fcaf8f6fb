"""What the card says of zeros: how many, in which matrices, and what sparse checkpoints score beside dense ones."""

from __future__ import annotations

from typing import Any

from common.report.chain import Chain, Checkpoint, LossCurve
from common.report.sparsity_notes import dense, sparsity_notes

FACTS = {
    "stage": "sparse", "matrices": ["a.weight", "b.weight"], "modules": ["q_proj"], "zeros": 400, "weights": 800,
    "parameters": 1600, "cut": 0.0123,
}  # fmt: skip


def checkpoint(name: str, kind: str, parent: str | None, score: float | None = None, **metrics: Any) -> Checkpoint:
    exam = {} if score is None else {
        "exam": {"general": {"score": score}, "domain": {"score": score / 2}},
        "bits_per_byte": {"general": score / 4, "domain": score / 5},
    }  # fmt: skip
    return Checkpoint(name, kind, parent, {"metrics": metrics}, exam, [], LossCurve([], []))


def chain(*more: Checkpoint) -> Chain:
    line = (
        checkpoint("base", "base", None), checkpoint("cpt", "cpt", "base", 0.8),
        checkpoint("sparse", "prune", "cpt", 0.7, sparsity=FACTS), *more,
    )  # fmt: skip
    return Chain(line, line[-1].name, {})


def test_sparse_checkpoints_stand_beside_dense_ones() -> None:
    found = chain(
        checkpoint("sft", "sft", "cpt", 0.9), checkpoint("sft-sparse", "sft", "sparse", 0.6, kept_zeros=401)
    )  # fmt: skip
    assert [getattr(dense(found, found[name]), "name", None) for name in ("sparse", "sft-sparse")] == ["cpt", "sft"]
    title, made, rows, note = sparsity_notes(found)
    assert title == "### Sparsity"
    assert made == (
        "`sparse` made 400 of 1,600 weights zero (25.0%), half of those of 2 matrices (`q_proj`). Cut: 1.23%."
    )  # fmt: skip
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows.splitlines()[2:]]
    assert cells[0][:3] == ["`sparse`", "`cpt`", "400"]
    assert sorted(cells[0][3:]) == sorted(["0.800", "0.400", "0.700", "0.350", "0.200", "0.160", "0.175", "0.140"])
    assert cells[1][:3] == ["`sft-sparse`", "`sft`", "401"]
    assert "That has not been tried here" in note


def test_without_a_dense_twin_or_an_exam_nothing_is_made_up() -> None:
    found = chain(checkpoint("sft", "sft", "sparse", kept_zeros=401))
    assert dense(found, found["sft"]) is None
    cells = [cell.strip() for cell in sparsity_notes(found)[2].splitlines()[-1].split("|")[1:-1]]
    assert cells[0] == "`sft`"
    assert len(set(cells[3:])) == 1  # all missing
    assert sparsity_notes(Chain(found.checkpoints[:2], "cpt", {})) == []
