"""What the gate says of exams written down by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import GateSettings
from common.engine.gate import Finding, check, check_artifacts
from common.errors import ContractError


def records(general: str = "", domain: str = "") -> list[dict[str, Any]]:
    """Turn `"++-"` into records of questions 0, 1, 2: right, right, wrong; a space was not asked."""
    return [
        {"id": f"q{index}", "side": side, "correct": mark == "+"}
        for side, marks in (("general", general), ("domain", domain))
        for index, mark in enumerate(marks)
        if mark != " "
    ]


def findings(settings: GateSettings, base: list[dict[str, Any]], sft: list[dict[str, Any]]) -> dict[str, Finding]:
    """Check `sft` against `base`, by side."""
    return {found.comparison.side: found for found in check(settings, "base", "sft", base, sft)}


def test_a_fall_beyond_the_limit_is_broken_and_a_fall_of_the_limit_is_not() -> None:
    base = records(general="+" * 20)
    settings = GateSettings(max_general_drop=0.05)
    allowed = findings(settings, base=base, sft=records(general="+" * 19 + "-"))
    assert not allowed["general"].broken
    broken = findings(settings, base=base, sft=records(general="+" * 18 + "--"))["general"]
    assert broken.broken
    assert broken.comparison.difference == pytest.approx(-0.10)
    assert broken.comparison.low < -0.10 < broken.comparison.high
    assert (broken.comparison.score_after["score"], broken.comparison.score_before["score"]) == (0.9, 1.0)
    assert broken.comparison.n == 20
    assert not broken.comparison.proven
    assert "general -10.0% against base (100.0% to 90.0%" in broken.message
    assert "within chance" in broken.message
    assert "outside the limit of -5.0% (gate.max_general_drop)" in broken.message


def test_too_small_a_gain_on_the_domain_is_broken() -> None:
    base, sft = records(domain="-" * 10 + "+" * 10), records(domain="+" * 9 + "-" + "+" * 10)
    wide = findings(GateSettings(min_domain_gain=0.45), base=base, sft=sft)["domain"]
    assert wide.comparison.difference == pytest.approx(0.45)
    assert not wide.broken
    assert wide.comparison.proven
    assert "outside" not in wide.message
    narrow = findings(GateSettings(min_domain_gain=0.5), base=base, sft=sft)["domain"]
    assert narrow.broken
    assert "outside the limit of +50.0% (gate.min_domain_gain)" in narrow.message


def test_p_values_are_exact_and_adjusted_over_the_sides() -> None:
    base, sft = records(general="+" * 8, domain="-" * 8), records(general="++++----", domain="+++-++++")
    found = findings(GateSettings(), base=base, sft=sft)
    general, domain = found["general"], found["domain"]
    assert general.comparison.p == pytest.approx(2 / 2**4)
    assert domain.comparison.p == pytest.approx(2 / 2**7)
    assert domain.comparison.p_holm == pytest.approx(2 * domain.comparison.p)
    assert general.comparison.p_holm == general.comparison.p


def test_only_shared_questions_count_whatever_their_order() -> None:
    sft = records(general=" +-+")[::-1]
    found = findings(GateSettings(), base=records(general="++--"), sft=sft)["general"]
    assert found.comparison.n == 3
    assert found.comparison.score_before["score"] == pytest.approx(1 / 3)
    assert found.comparison.score_after["score"] == pytest.approx(2 / 3)


def test_a_missing_side_is_skipped_and_the_base_is_not_compared_with_itself() -> None:
    some = records(general="+-", domain="+-")
    assert list(findings(GateSettings(), base=some, sft=records(domain="+-"))) == ["domain"]
    assert check(GateSettings(), "base", "base", some, some) == []


def test_exams_of_different_questions_cannot_be_compared() -> None:
    with pytest.raises(ContractError, match="exams of base and sft share no general question"):
        findings(GateSettings(), base=records(general="+ "), sft=records(general=" +"))


def test_folders_of_exams_give_a_line_for_each_broken_limit(tmp_path: Path) -> None:
    answers = {"base": records("+++-", "----"), "sft": records("+---", "+---")}
    for name, given in answers.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "exam.json").write_text(json.dumps({"checkpoint": name}))
        (tmp_path / name / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in given))
    folders = tmp_path / "sft", tmp_path / "base"
    (line,) = check_artifacts(GateSettings(), *folders)
    assert line.startswith("sft: general -50.0% against base (75.0% to 25.0%, 95% ")
    assert line.endswith("outside the limit of -5.0% (gate.max_general_drop).")
    (line,) = check_artifacts(GateSettings(), *folders, "sft-legal")
    assert line.startswith("sft-legal: general"), "as a sequence of domains calls it"
    assert check_artifacts(GateSettings(max_general_drop=0.5), *folders) == []
    assert len(check_artifacts(GateSettings(min_domain_gain=0.3), *folders)) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"correct": NaN}', "NaN is no number"),
        ('{"correct": 1}', "`correct` is neither true nor false"),
        ('{"correct": "no"}', "`correct` is neither true nor false"),
        ('{"correct": true, "scores": [-Infinity]}', "-Infinity is no number"),
        ("[1]", "`correct` is neither true nor false"),
        ("{", "Expecting"),
    ],
)
def test_a_record_that_no_exam_wrote_stops_the_gate(tmp_path: Path, line: str, expected: str) -> None:
    """Of these, Python takes NaN and texts as true."""
    (tmp_path / "exam.json").write_text('{"checkpoint": "sft"}')
    (tmp_path / "records.jsonl").write_text(f'{{"id": "1", "side": "domain", "correct": true}}\n{line}\n')
    with pytest.raises(ContractError, match=rf"records\.jsonl, line 2: {expected}.* Run the exam again"):
        check_artifacts(GateSettings(), tmp_path, tmp_path)


def test_a_difference_that_is_no_number_is_outside_every_limit() -> None:
    (finding,) = findings(GateSettings(), records("++"), records("++")).values()
    assert not finding.broken
    assert replace(finding, comparison=replace(finding.comparison, difference=math.nan)).broken
