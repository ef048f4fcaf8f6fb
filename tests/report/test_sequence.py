"""The card of a sequence: a matrix of every checkpoint on every domain, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.evaluation.joint import Sat, join
from common.report import sequence
from common.report.chain import Chain, Checkpoint, LossCurve
from common.report.comparisons import compare_chain
from common.report.plots import draw_domains
from common.report.sequence import headline, matrix_rows, measured, sequence_notes, sequence_record

DOMAINS = ("law", "money")
BITS = {"base": (4.0, 5.0), "cpt-law": (1.0, 4.5), "cpt-money": (2.0, 1.5), "linear": (1.5, 2.0)}  # per byte
RIGHT = {"base": (10, 8), "cpt-law": (18, 9), "cpt-money": (15, 19), "linear": (14, 14)}  # of 20 questions
PARENTS = {"cpt-law": "base", "cpt-money": "cpt-law", "linear": "base"}
OWNERS = {"cpt-law": "law", "cpt-money": "money"}


def exam(name: str, place: int) -> Sat:
    bits, right = BITS[name][place], RIGHT[name][place]
    texts = [
        {"id": f"t{n}", "side": "domain", "bits": bits * 10 * n, "bytes": 10 * n} for n in range(1, 9)
    ]  # fmt: skip
    records = [{"id": f"q{n}", "side": "domain", "task": "q", "correct": n < right, "scores": [0.0] * 4}
               for n in range(20)]  # fmt: skip
    joined = join(name, {"one": Sat({}, records, texts)})
    return Sat({"exam": joined.scores["exam"], "bits_per_byte": {"domain": bits}, "texts": {}}, records, texts)


def lineage(name: str) -> list[dict[str, Any]]:
    line: list[dict[str, Any]] = [{"domain": "", "sources": [{"role": "pretrain", "tokens": 900}]}]
    for stage, domain in OWNERS.items():
        line.append({"domain": domain, "sources": [{"role": "cpt", "tokens": 80}, {"role": "replay", "tokens": 20}]})
        if stage == name:
            return line
    return line[:1]


def chain(published: str = "cpt-money") -> Chain:
    checkpoints = []
    for name in BITS:
        exams = {domain: exam(name, place) for place, domain in enumerate(DOMAINS)}
        joined, kind = join(name, exams), "merge" if name == "linear" else name.partition("-")[0]
        checkpoints.append(Checkpoint(
            name=name, kind=kind, parent=PARENTS.get(name), exam=joined.scores, records=joined.records,
            manifest={"lineage": lineage(name), "tokens": 0 if kind == "merge" else 100},
            curve=LossCurve([], []), texts=joined.texts, domain=OWNERS.get(name, ""), exams=exams,
        ))  # fmt: skip
    return Chain(tuple(checkpoints), published, {name: {} for name in BITS}, DOMAINS)


def test_the_matrix_and_its_figures_are_on_the_card() -> None:
    found = measured(chain())
    assert found is not None
    assert [c.name for c in found.line] == ["base", "cpt-law", "cpt-money"]
    assert found.texts is not None
    assert found.answers is not None
    assert found.texts.matrix == [pytest.approx(BITS[c.name]) for c in found.line]
    assert found.texts.forgetting[0].value == pytest.approx(1.0)
    assert found.answers.forgetting[0].value == pytest.approx((18 - 15) / 20)  # of wrong answers
    assert found.answers.forward[0].value == pytest.approx((9 - 8) / 20)
    text = "\n\n".join(sequence_notes(chain()))
    assert "| `cpt-law`       | law       |" in text
    assert "| Forgetting of `law`                  | +1.000 [+1.000, +1.000] |" in text
    assert "general 900, law 80, replay 20" in text
    assert "| `linear` " in text
    assert "Bits per byte that a domain lost from its own checkpoint to the last: `law` +1.000" in headline(chain())[0]
    record = sequence_record(chain())["sequence"]
    assert record["checkpoints"] == ["base", "cpt-law", "cpt-money"]
    assert record["wrong"]["matrix"][0] == [pytest.approx(0.5), pytest.approx(0.6)]
    assert matrix_rows(chain())[0] == ["base", "4.000  50.0%", "5.000  40.0%"]


def test_the_figures_are_computed_once_for_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = chain(), []
    monkeypatch.setattr(sequence, "measure", lambda *given: asked.append(given))
    for _ in range(2):
        measured(whole)
    assert len(asked) == 2, "of texts and of answers"
    assert measured(replace(whole, published="cpt-law")) is None


def test_a_model_that_read_no_domain_is_no_step_of_the_matrix_of_transfer() -> None:
    base, law, money, _ = chain().checkpoints
    grown = replace(base, name="grown", kind="expand", parent="base", exams={})
    blend = replace(base, name="blend", kind="merge", parent="cpt-money", exams={})
    line = (base, grown, replace(law, parent="grown"), money, blend)
    found = measured(Chain(line, "blend", {}, DOMAINS))
    assert found is not None
    assert [c.name for c in found.line] == ["base", "cpt-law", "cpt-money"]


def test_merged_specialists_are_compared_with_the_chain() -> None:
    assert ("linear", "cpt-money") in {(c.before, c.after) for c in compare_chain(chain())}


def test_a_model_that_has_not_read_all_domains_has_a_matrix_alone() -> None:
    assert measured(chain("cpt-law")) is None
    assert "Forgetting" not in "".join(sequence_notes(chain("cpt-law")))
    assert headline(chain("cpt-law")) == []
    one = Chain(chain().checkpoints, "cpt-money", {})
    assert sequence_notes(one) == []
    assert sequence_record(one) == {}


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw_domains(chain(), tmp_path / "domains.png", work=tmp_path)
    assert (tmp_path / "domains.png").read_bytes().startswith(b"\x89PNG")
