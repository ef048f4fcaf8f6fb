"""Which checkpoints are compared: parents, control arms, and the same pairs by the bits of held-out texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.evaluation.comparison import compare_texts
from common.report.chain import Chain, load_chain
from common.report.comparisons import compare_chain, compare_chain_texts, find, find_roles
from common.report.exam_tables import results_table, text_comparison_table
from common.store.artifacts import Artifact

BuildChain = Callable[..., dict[str, Artifact]]


def with_control(chain: Chain, after: str = "cpt") -> Chain:
    """Add a control arm: continued pre-training that left the base's bits as they were but for one document."""
    texts = [
        {**record, "bits": record["bits"] * (1.1 if record["id"] == "d3" else 1.0)} for record in chain["base"].texts
    ]
    control = replace(chain["cpt"], name="cpt-general", control=True, texts=texts)
    place = [c.name for c in chain.checkpoints].index(after) + 1
    return replace(chain, checkpoints=(*chain.checkpoints[:place], control, *chain.checkpoints[place:]))


@pytest.mark.parametrize("after", ["base", "cpt", "merge"])
def test_a_control_arm_is_compared_with_its_sibling_and_plays_no_other_part(
    build_chain: BuildChain, after: str
) -> None:
    chain = load_chain(build_chain())
    both = with_control(chain, after)
    pairs = {(c.before, c.after) for c in compare_chain_texts(both)}
    assert pairs - {(c.before, c.after) for c in compare_chain_texts(chain)} == {
        ("cpt-general", "cpt"), ("base", "cpt-general"),
    }  # fmt: skip
    assert pairs == {(c.before, c.after) for c in compare_chain(both)}
    assert find_roles(both) == find_roles(chain)


def test_an_arm_that_is_a_control_by_the_pipeline_is_one_on_the_card(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain(), "merge", ("sft-only",))
    assert [c.name for c in chain.checkpoints if c.control] == ["sft-only"]
    assert find_roles(chain).plain == "sft-only"


def test_held_out_texts_are_compared_document_by_document(build_chain: BuildChain) -> None:
    chain = with_control(load_chain(build_chain()))
    comparisons = compare_chain_texts(chain)
    taught = find(comparisons, "base", "cpt", "domain")
    assert taught is not None
    before, after = (sum(r["bits"] for r in chain[name].texts if r["side"] == "domain") for name in ("base", "cpt"))
    assert (taught.n, taught.bytes) == (40, 8200)
    assert taught.change == pytest.approx(after / before - 1)
    assert (taught.bits_before, taught.bits_after) == pytest.approx((before / 8200, after / 8200))
    assert taught.low is not None
    assert taught.high is not None
    assert taught.low < taught.change < taught.high < 0, "paired: far narrower than the documents differ"
    assert taught.proven
    unchanged = find(comparisons, "base", "cpt-general", "domain")
    assert unchanged is not None
    assert not unchanged.proven
    assert "| -19.9% [-20.0%, -19.9%] |" in text_comparison_table([taught])


def test_documents_are_paired_by_name_and_side() -> None:
    row = {"id": "a", "side": "domain", "bits": 10.0, "bytes": 5}
    assert compare_texts("x", "y", [row], [{**row, "side": "general"}, {**row, "id": "b"}, {**row, "bytes": 6}]) == []
    [found] = compare_texts("x", "y", [row, {**row, "id": "b"}], [{**row, "bits": 5.0}])
    assert (found.n, found.change, found.low, found.high, found.proven) == (1, -0.5, None, None, False)


def test_the_card_shows_the_texts(written: tuple[Path, dict[str, Artifact]]) -> None:
    body = (written[0] / "README.md").read_text()
    lines = body.split("### Comparisons by held-out text")[1].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    [row] = [row for row in rows if row[:3] == ["`base`", "`cpt`", "domain"]]
    assert row[3:] == ["40", "1.505", "1.205", "-19.9% [-20.0%, -19.9%]"]
    record = json.loads((written[0] / "card.json").read_text())
    assert {(c["before"], c["after"], c["side"]) for c in record["text_comparisons"]} == {
        (c["before"], c["after"], c["side"]) for c in record["comparisons"]
    }


def test_intervals_stand_beside_bits_per_byte(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain({"base": (50, 16)}))
    facts = {"bits_per_byte": 1.5, "n": 40, "bytes": 8200, "low": 1.4, "high": 1.6}
    exam = {**chain["base"].exam, "texts": {"domain": facts}}
    table = results_table(replace(chain, checkpoints=(replace(chain["base"], exam=exam),)))
    assert "1.500 [1.400, 1.600]" in table
