"""The card's tables that look into the exam: there where an exam has such details, absent where it has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from common.report.chain import Chain, load_chain
from common.report.exam_tables import exam_details
from common.report.stage_notes import exam_warnings
from common.store.artifacts import Artifact

BuildChain = Callable[..., dict[str, Artifact]]
SCORE = {"score": 0.5, "n": 40, "low": 0.35, "high": 0.65}
DETAILS: dict[str, Any] = {
    "written": {"domain": {"exact": SCORE, "stopped": {**SCORE, "score": 0.61}, "f1": 0.72, "in_language": None}},
    "languages": {"sw": {"exam": SCORE, "in_language": None, "bits_per_byte": 0.4321, "tokens_per_character": 0.5876}},
    "probes": {"asked only in English": {"score": 0.28, "n": 99, "low": 0.2, "high": 0.37}},
    "sources": {"tables": {"side": "domain", **SCORE}, "texts": {"side": "domain", **SCORE}},
}


def chain_with(inputs: dict[str, Artifact], details: dict[str, Any]) -> Chain:
    """Return a chain whose published checkpoint alone has details."""
    chain = load_chain(inputs)
    points = [
        dataclasses.replace(c, exam={**c.exam, **details}) if c.name == chain.published else c
        for c in chain.checkpoints
    ]
    return dataclasses.replace(chain, checkpoints=tuple(points))


def test_every_detail_has_its_table(build_chain: BuildChain) -> None:
    text = "\n".join(exam_details(chain_with(build_chain(), DETAILS)))
    for heading in ("### Written answers", "### By language", "### Probes", "### By source"):
        assert heading in text
    assert "asked only in English (n = 99)" in text
    assert "tables (n = 40)" in text
    for value in ("0.432", "0.588", "72.0%", "61.0%"):
        assert value in text
    rows = [line for line in text.splitlines() if line.startswith("| **`merge`**")]
    assert len(rows) == 4, "the published checkpoint is in bold, in each table"


def test_an_exam_without_details_has_no_section(build_chain: BuildChain) -> None:
    assert exam_details(load_chain(build_chain())) == []


def test_written_questions_have_no_commonest_answer(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain())
    unscored = tuple(
        dataclasses.replace(c, records=[{k: v for k, v in r.items() if k != "scores"} for r in c.records])
        for c in chain.checkpoints
    )
    assert exam_warnings(dataclasses.replace(chain, checkpoints=unscored)) == []


def test_benchmarks_that_could_not_be_had_are_named(build_chain: BuildChain) -> None:
    text = "\n".join(exam_details(chain_with(build_chain(), {"left_out": ["medical_benchmarks"]})))
    assert text == (
        "Benchmarks left out, as their data sets could not be loaded when the exam was held: `medical_benchmarks`."
    )
