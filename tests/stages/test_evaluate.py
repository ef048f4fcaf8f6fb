"""The evaluate stage on a tiny checkpoint: the two files it leaves, and what it reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from common.config.kinds import kind_of
from common.config.schema import Config, ModelSettings, RunSettings
from common.config.stages import EvaluateSettings
from common.console import Console
from common.data.accounting import RowCount
from common.stage import StageContext, StageReport
from common.store.artifacts import Artifact

pytestmark = pytest.mark.usefixtures("one_thread")


class SmallCorpus:
    """Questions of both sides and texts of one."""

    domain_title = "Made"

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self._rows = rows

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return [{"role": role} for role in roles]

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        yield from self._rows.get(role, [])

    def portions(self, role: str, *, hub: bool = False) -> None:
        return

    def counts(self, role: str) -> dict[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()

    def conversations(self, role: str) -> dict[str, bool]:
        return {}

    def unpaired(self, role: str) -> dict[str, bool]:
        return {}

    def shapes(self) -> dict[str, str]:
        return {}

    def findings(self) -> dict[str, list[str]]:
        return {}

    def check_rows(self, roles: Sequence[str]) -> None:
        return

    def sources(self) -> list[dict[str, Any]]:
        return [{"id": "made", "role": "cpt, eval"}, {"id": "exam", "role": "eval"}, {"id": "other", "role": "cpt"}]


@pytest.fixture
def run_stage(
    checkpoint: Path, make_questions: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> Callable[[str], tuple[StageReport, Path]]:
    corpus = SmallCorpus(
        {
            "questions_general": make_questions(7, "g"),
            "questions_domain": make_questions(9),
            "text_domain": [{"text": "what is copper money", "source": "made"}],
        }
    )

    def run(name: str, left_out: tuple[str, ...] = ()) -> tuple[StageReport, Path]:
        settings = EvaluateSettings(limit=8, tasks=left_out)
        for part in ("out", "work"):
            (tmp_path / name / part).mkdir(parents=True)
        context = StageContext(
            stage="exam-cpt",
            kind="evaluate",
            settings=settings,
            config=Config(
                domain="made", profile="tiny", pipeline="chain", model=ModelSettings(path="x"),
                run=RunSettings(device="cpu"), stages={"exam-cpt": settings},
            ),
            inputs={"cpt": Artifact(checkpoint, {"stage": "cpt"})},
            parent="cpt",
            corpus=corpus,
            out=tmp_path / name / "out",
            work=tmp_path / name / "work",
            models=tmp_path / "models",
            console=Console("quiet"),
            left_out=left_out,
        )  # fmt: skip
        report = kind_of("evaluate").run(context)
        assert isinstance(report, StageReport)
        return report, context.out

    return run


def test_it_leaves_the_exam_and_every_answer(run_stage: Callable[[str], tuple[StageReport, Path]]) -> None:
    report, out = run_stage("one")
    exam = json.loads((out / "exam.json").read_text())
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    documents = [json.loads(line) for line in (out / "texts.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in out.iterdir()) == ["exam.json", "records.jsonl", "texts.jsonl"]
    parts = [
        "checkpoint",
        "precision",
        "exam",
        "bits_per_byte",
        "texts",
        "tasks",
        "extra",
        "written",
        "probes",
        "languages",
        "sources",
    ]
    assert list(exam) == parts
    assert exam["checkpoint"] == "cpt"
    assert [record["id"] for record in records] == [f"g{i}" for i in range(7)] + [f"q{i}" for i in range(8)]
    assert list(records[0]) == ["id", "side", "task", "source", "answer", "predicted", "correct", "scores"]
    for side, n in (("general", 7), ("domain", 8)):
        correct = sum(record["correct"] for record in records if record["side"] == side)
        assert exam["exam"][side]["score"] == correct / n
        assert exam["exam"][side]["n"] == n
        assert exam["exam"][side]["low"] < correct / n < exam["exam"][side]["high"]
    assert exam["bits_per_byte"]["general"] is None
    [document] = documents
    assert list(document) == ["id", "side", "source", "bits", "bytes"]
    assert document["bits"] / document["bytes"] == pytest.approx(exam["bits_per_byte"]["domain"], rel=1e-5)
    assert exam["texts"]["domain"] | {"bits_per_byte": 0} == {
        "bits_per_byte": 0, "n": 1, "bytes": 20, "low": None, "high": None,
    }  # fmt: skip
    assert report.metrics == {
        "general_score": exam["exam"]["general"]["score"],
        "domain_score": exam["exam"]["domain"]["score"],
        "domain_bits_per_byte": exam["bits_per_byte"]["domain"],
    }
    assert (report.tokens, report.train_seconds) == (0, 0.0)
    assert [source["id"] for source in report.sources] == ["made", "exam"]


def test_two_runs_leave_the_same_bytes(run_stage: Callable[[str], tuple[StageReport, Path]]) -> None:
    (_, first), (_, second) = run_stage("one"), run_stage("two")
    for name in ("exam.json", "records.jsonl", "texts.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_benchmark_that_could_not_be_had_is_noted(run_stage: Callable[..., tuple[StageReport, Path]]) -> None:
    report, out = run_stage("two", ("medical_benchmarks",))
    exam = json.loads((out / "exam.json").read_text())
    assert exam["left_out"] == report.metrics["left_out"] == ["medical_benchmarks"]
    assert exam["extra"] == {}
