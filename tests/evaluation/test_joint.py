"""The exams of several domains as one: what they share counts once, what is a domain's own keeps its name."""

from __future__ import annotations

from typing import Any

import pytest

from common.evaluation.joint import Sat, join


def sat(right: list[bool], general: list[bool], bits: float) -> Sat:
    records: list[dict[str, Any]] = [
        {"id": f"q{n}", "side": "domain", "task": "exam_domain_questions", "correct": c} for n, c in enumerate(right)
    ]
    records += [{"id": f"g{n}", "side": "general", "task": "g", "correct": c} for n, c in enumerate(general)]
    texts = [
        {"id": "a", "side": "domain", "bits": bits, "bytes": 10},
        {"id": "w", "side": "general", "bits": 7.0, "bytes": 10},
    ]
    return Sat({"checkpoint": "cpt", "precision": "float32", "tasks": {}, "extra": {}}, records, texts)


def test_questions_of_all_domains_count_and_shared_ones_once() -> None:
    exams = {"one": sat([True, False], [True], 20.0), "two": sat([True, True, True, False], [True], 40.0)}
    found = join("cpt-two", exams)
    assert found.scores["checkpoint"] == "cpt-two"
    assert found.scores["exam"]["domain"]["n"] == 6
    assert found.scores["exam"]["domain"]["score"] == pytest.approx(4 / 6)
    assert found.scores["exam"]["general"]["n"] == 1
    assert found.scores["bits_per_byte"] == {"general": 0.7, "domain": 3.0}  # (20 + 40) / (10 + 10)
    assert [row["id"] for row in found.records if row["side"] == "domain"][:3] == ["one/q0", "one/q1", "two/q0"]


def test_what_an_exam_went_without_is_said() -> None:
    one, two = sat([True], [], 1.0), sat([True], [], 1.0)
    found = join("x", {"one": one, "two": Sat({**two.scores, "left_out": ["mmlu"]}, two.records, two.texts)})
    assert found.scores["left_out"] == ["mmlu"]
