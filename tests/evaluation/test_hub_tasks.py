"""Benchmark tasks of the Hub are counted from the task files, and refused where the Hub cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.plan_costs import totals
from common.config.resolve import resolve
from common.engine.plan import make_plan
from common.errors import DataError
from common.evaluation.hub_tasks import check_reachable, hub_tasks
from tests.conftest import REPOSITORY


def test_groups_are_followed_and_local_files_left_out(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "all.yaml").write_text("group: all\ntask: [mmlu, inner, {task: own}, all]\n")
    (tmp_path / "deep" / "inner.yaml").write_text("group: inner\ntask: [here, mmlu]\n")
    (tmp_path / "here.yaml").write_text("task: here\ndataset_path: json\n")
    (tmp_path / "own.yaml").write_text("task: own\ndataset_path: owner/name\nprocess_docs: !function own.kept\n")
    (tmp_path / "broken.yaml").write_text("task: [broken")
    assert hub_tasks(("all", "arc_easy", "absent"), [tmp_path]) == ["mmlu", "own", "arc_easy", "absent"]
    assert hub_tasks((), [tmp_path]) == []


def test_tasks_are_refused_only_offline_with_empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    tasks = ["a", "b", "c", "d"]
    check_reachable(tasks)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_reachable([])
    (tmp_path / "datasets" / "json").mkdir(parents=True)  # rows of files say nothing of the Hub's
    with pytest.raises(DataError, match=r"^4 benchmark tasks .*\('a', 'b', 'c' and 1 more\)") as caught:
        check_reachable(tasks)
    assert "(evaluate.tasks=[])" in str(caught.value)
    for folder in ("datasets/owner___name", "hub/datasets--owner--name"):
        (tmp_path / folder).mkdir(parents=True)
        check_reachable(tasks)
        (tmp_path / folder).rmdir()


@pytest.mark.parametrize(("tasks", "shown"), [("[medical_benchmarks, general_benchmarks]", True), ("[]", False)])
def test_a_plan_says_that_exams_ask_the_hub(tasks: str, shown: bool, tmp_path: Path) -> None:
    plan = make_plan(resolve({"domain": "medical", "out": str(tmp_path), "evaluate.tasks": tasks}, REPOSITORY))
    line = "Exams also ask 16 benchmark tasks of the Hub, which are not counted; evaluate.tasks=[] leaves them out."
    assert (line in totals(plan)) == shown
