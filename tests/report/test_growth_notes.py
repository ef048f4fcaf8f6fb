"""What the card says of growth: the method with its paper, sizes, the measured difference, and what learned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from common.config.growth import READS
from common.models.growth.record import Growth
from common.report.growth_notes import PAPERS, growth_notes

GROWN = Growth("expand", "adept", (1, 4), 6, 1000, 1500, 0.0, True)


def chain(growth: Growth, **metrics: Any) -> Any:
    manifests = {"base": {"metrics": {}}, "expand": {"metrics": {"growth": growth.as_dict(), **metrics}}}
    learned = SimpleNamespace(
        name="cpt", metrics={"learned_parameters": 400}, settings={"train_only": "added", "train_also": ["lm_head"]}
    )
    return SimpleNamespace(manifests=manifests, checkpoints=[learned])


def test_sizes_method_difference_and_what_learned_are_told() -> None:
    title, grown, measured, learned = growth_notes(chain(GROWN, layer_importance=[0.1, 2.0, 0.25], copied=[0, 2]))
    assert title == "### Growth"
    assert grown.startswith(
        "`expand` grew the model from 1,000 to 1,500 parameters and 6 layers: copies of the layers "
    )
    assert "(ADEPT, arXiv 2510.10071). Its logits differ from those before by 0 of their range (as the method " in grown
    assert measured.endswith("0.100, 2.000, 0.250 nats a token. It copied the layers 0, 2, counted from 0.")
    assert learned == "`cpt` trained 400 parameters, those of the added layers and of `lm_head` alone."


def test_a_method_that_changes_the_function_says_so() -> None:
    deeper = Growth("expand", "depth", (), 6, 1000, 1500, 0.73, False)
    assert (
        "differ from those before by 0.7 of their range (the method promises no equal logits)"
        in growth_notes(chain(deeper))[1]
    )


FACTS = {
    "weights": "slerp", "mean_w": [0.25, 0.5], "layers": 4, "parameters_before": 1500, "parameters": 1000,
    "difference": 0.27,
}  # fmt: skip


@pytest.mark.parametrize("examined", [True, False])
def test_what_collapsing_cost_is_told_where_both_sides_of_it_were_examined(examined: bool) -> None:
    stage = SimpleNamespace(name="collapse", parent="sft", metrics={"collapse": FACTS}, settings={})
    given: Any = SimpleNamespace(manifests={}, checkpoints=[stage])
    pair: dict[str, Any] = {"before": "sft", "after": "collapse", "side": "domain"}
    exams: list[Any] = [SimpleNamespace(**pair, difference=-0.01, low=-0.02, high=0.0)] * examined
    texts: list[Any] = [SimpleNamespace(**pair, change=0.03, low=0.01, high=0.05)] * examined
    _, note = growth_notes(given, exams, texts)
    assert note.startswith("`collapse` made plain layers of the pairs in `sft`: 1,500 to 1,000 parameters, weights by ")
    assert "slerp with the mean w of each pair (0.25, 0.50). Its logits differ from those before by 0.3 of" in note
    cost = "-1.0 points [-2.0, 0.0] in the domain exam, +3.0% [+1.0%, +5.0%] bits per byte of domain text."
    assert note.endswith(cost if examined else "What that cost is not known: not both stages were examined.")


@pytest.mark.parametrize("method", READS)
def test_every_method_has_its_paper(method: str) -> None:
    assert "arXiv" in PAPERS[method]


def test_without_growth_nothing_is_said() -> None:
    plain: Any = SimpleNamespace(manifests={"base": {"metrics": {}}}, checkpoints=[])
    assert growth_notes(plain) == []
