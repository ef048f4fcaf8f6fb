"""Further harness tasks by name; a task of the test's own stands for those of the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.stages import EvaluateSettings
from common.errors import ConfigError, DataError
from common.evaluation import extra, harness
from common.evaluation.exam import ExamQuestions, run_exam

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    with harness.bounded_files([folder]):
        return TaskManager(include_path=str(folder), include_defaults=False)


def write_questions(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write questions as a harness task of a domain would have them, each choice closed as our exam closes it."""
    data = folder / f"{name}.jsonl"
    closed = [{**row, "choices": [f"{choice}<|end|>" for choice in row["choices"]]} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in closed))
    kwargs = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
    asked = {"doc_to_text": "question", "doc_to_target": "answer", "doc_to_choice": "choices"}
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]
    write_task(folder, name, dataset_kwargs=kwargs, **asked, metric_list=metrics, metadata={"version": 1})


def test_scores_have_plain_names_and_come_without_standard_errors(
    checkpoint: Path, make_questions: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    rows = make_questions(8)
    write_questions(tmp_path, "borrowed", rows)
    own = run_exam(checkpoint, ExamQuestions({"domain": rows}), EvaluateSettings(), device="cpu")
    assert own.exam["domain"] is not None
    with harness.quiet():
        model = harness.load(checkpoint, batch_size=8, device="cpu")
        tasks = extra.load(["borrowed"], manager=manager(tmp_path))
        result = extra.evaluate(model, tasks, chat=True, limit=None)
    assert set(result.scores["borrowed"]) == {"acc", "acc_norm"}
    assert result.scores["borrowed"]["acc"] == own.exam["domain"]["score"]
    assert result.tasks == {"borrowed": {"version": 1, "asked": "chat", "shots": 0}}


def test_no_tasks_are_no_work() -> None:
    assert extra.load(()) == {}
    assert extra.evaluate(None, {}, chat=True, limit=None) == extra.Extra()


def test_a_misspelt_task_is_refused_with_the_nearest_name(
    make_questions: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    write_questions(tmp_path, "borrowed", make_questions(2))
    with pytest.raises(ConfigError, match=r"no task 'borowed'\. Did you mean 'borrowed'\?"):
        extra.load(["borrowed", "borowed"], manager=manager(tmp_path))


def test_data_that_could_not_be_loaded_names_the_task_and_the_way_out(
    make_questions: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    write_questions(tmp_path, "borrowed", make_questions(2))
    (tmp_path / "borrowed.jsonl").unlink()
    with pytest.raises(
        DataError,
        match=r"(?s)1 of the .*\(evaluate\.tasks=\[\]\); data=.*'borrowed' \(FileNotFoundError",
    ):
        extra.load(["borrowed"], manager=manager(tmp_path))


@pytest.mark.parametrize("given", [{"metric": "someone/metric"}, {"metric": "acc", "hf_evaluate": True}])
def test_a_metric_that_is_code_of_the_hub_is_not_run(
    given: dict[str, Any], make_questions: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    write_questions(tmp_path, "borrowed", make_questions(2))
    task = yaml.safe_load((tmp_path / "borrowed.yaml").read_text("utf-8"))
    metrics = [{**given, "aggregation": "mean", "higher_is_better": True}]
    (tmp_path / "borrowed.yaml").write_text(yaml.safe_dump({**task, "metric_list": metrics}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"'borrowed' \(DataError: the metric {given['metric']} is code of the Hub"):
        extra.load(["borrowed"], manager=manager(tmp_path))


def write_task(folder: Path, name: str, **change: Any) -> None:
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "absent.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        **change,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def test_all_members_of_a_group_that_could_not_be_loaded_are_named(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_task(tmp_path, name)
    (tmp_path / "benchmarks.yaml").write_text("group: both\ntask: [first, second]\n")
    with pytest.raises(DataError, match=r"(?s)^2 of the harness tasks could not be loaded.*gated.*- 'first', 'second'"):
        extra.load(["both"], manager=manager(tmp_path))


def test_a_missing_package_is_not_taken_for_missing_data(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "strict.yaml").write_text("task: strict\ndataset_path: json\nprocess_docs: !function rules.kept\n")
    with pytest.raises(DataError, match=r"(?s)Install the packages named.*'strict' \(.*a_package_that"):
        extra.load(["strict"], manager=manager(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [broken", "broken.yaml, line 2, column 1: not valid YAML"),
        ("[" * 100_000, "broken.yaml, line 1, column 101: not valid YAML: more than 100 lists"),
        ("title: broken\n", "broken.yaml exists, but has no `task: broken`"),
        (None, "ours are in "),
    ],
    ids=range(4),
)
def test_an_unknown_name_says_where_to_look(text: str | None, message: str, tmp_path: Path) -> None:
    write_task(tmp_path, "first")
    if text is not None:
        (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        extra.load(["broken"], (tmp_path,), manager=manager(tmp_path))


@pytest.mark.long
def test_a_later_folder_overrides_an_earlier_one(tmp_path: Path) -> None:
    for place, rows in (("common/deep", "first"), ("domain", "second")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / rows).mkdir()
        write_task(tmp_path / place, "shared", dataset_kwargs={"data_files": {"test": str(tmp_path / rows)}})
    write_task(tmp_path / "common/deep", "common_only")
    for order, winner in ((("common", "domain"), "second"), (("domain", "common"), "first")):
        index = extra.task_manager(tuple(tmp_path / name for name in order)).task_index
        assert index["shared"].cfg["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / winner)
        assert index["common_only"].yaml_path == tmp_path / "common/deep/common_only.yaml"  # folders within are read
