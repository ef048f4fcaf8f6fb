"""What the benchmarks of a run ask is loaded once, kept out of every training role, and counted with both texts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine import plan, staleness
from common.engine import run as runs
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.engine.preflight import benchmarks
from common.engine.preflight.benchmarks import NONE, load_benchmarks, note_benchmarks, noted_benchmarks
from common.engine.run import run_stage
from common.errors import ConfigError, DataError
from common.evaluation import extra
from common.models.tokenizer import train_tokenizer
from common.stage import holds_apart
from common.stages import base
from common.store.artifacts import write_json
from tests.conftest import REPOSITORY
from tests.stages import cleaning

ASKED = "Which lamp of the northern pier burns longest when the winter tide is at its lowest?"


def own_run(folder: Path, **words: str) -> Resolved:
    """Return a run of a given checkpoint on a file of a user's; the domain's settings ask for benchmarks."""
    source = {"id": "faq", "role": "sft", "path": "faq.jsonl", "columns": {"question": "q", "answer": "a"}}
    (folder / "faq.jsonl").write_text('{"q": "Who are you?", "a": "A miller."}\n', encoding="utf-8")
    write_json(folder / "data.yaml", {"title": "Own", "sources": [{**source, "licence": "mit"}]})
    given = {"domain": "medical", "data": str(folder / "data.yaml"), "model.path": "some/folder"}
    return resolve({**given, "pipeline": "sft-only", "out": str(folder), **words}, REPOSITORY)


def found_by(resolved: Resolved) -> benchmarks.Benchmarks:
    return load_benchmarks(resolved, open_corpus(resolved), resolved.nodes)


def task(questions: Sequence[str]) -> Any:
    """Return what the harness loads: one task that asks these questions."""
    return SimpleNamespace(
        eval_docs=[{"q": text} for text in questions], config=SimpleNamespace(doc_to_choice=None),
        doc_to_text=lambda doc: doc["q"], doc_to_target=lambda doc: "",
    )  # fmt: skip


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Stand in for the harness; each load is noted."""
    noted: list[Sequence[str]] = []

    def load(names: Sequence[str], folders: object) -> dict[str, Any]:
        noted.append(names)
        return {"tasks": {name: task([ASKED]) for name in names}}

    monkeypatch.setattr(extra, "load", load)
    monkeypatch.setattr(extra, "check_known", lambda names, folders: None)
    monkeypatch.setattr(benchmarks, "check_reachable", lambda tasks: None)
    return noted


def test_a_run_on_own_files_goes_without_benchmarks_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(extra, "load", lambda *_: pytest.fail("the harness was asked"))
    assert found_by(own_run(tmp_path)).left_out == ("medical_benchmarks", "general_benchmarks")
    with pytest.raises(DataError, match="9 benchmark tasks need data sets of the Hub"):
        found_by(own_run(tmp_path, **{"evaluate.tasks": "[medical_benchmarks]"}))


def test_a_name_that_no_task_has_is_not_blamed_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    with pytest.raises(ConfigError, match=r"no task 'arc_esy'\. Did you mean 'arc_easy'\?"):
        found_by(own_run(tmp_path, **{"evaluate.tasks": "[arc_esy]"}))
    with pytest.raises(DataError, match=r"^1 benchmark task needs data sets of the Hub \('arc_easy'\)"):
        found_by(own_run(tmp_path, **{"evaluate.tasks": "[arc_easy]"}))


def test_a_result_made_without_a_benchmark_is_made_again_where_the_run_names_it(tmp_path: Path) -> None:
    run = own_run(tmp_path)
    artifact = cast(Any, SimpleNamespace(manifest={"metrics": {}, "benchmarks": {"left_out": ["medical_benchmarks"]}}))
    assert staleness.went_without(artifact, run) is None
    asked = own_run(tmp_path, **{"evaluate.tasks": "[medical_benchmarks]"})
    assert staleness.went_without(artifact, asked) == "made without medical_benchmarks, which this run asks for"
    other = own_run(tmp_path, **{"evaluate.tasks": "[arc_easy]"})
    assert staleness.went_without(artifact, other) is None


def test_a_run_makes_a_result_again_that_went_without_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cleaning.resolved(cleaning.made(tmp_path))
    cleaning.cleaned(run)
    stream = io.StringIO()
    run_stage(run, "data-cpt", Console(stream=stream))
    assert "made in" not in stream.getvalue()
    for module in (staleness, runs):
        monkeypatch.setattr(module, "went_without", lambda artifact, resolved: "made without quiz")
    assert cleaning.state(plan.make_plan(run), "data-cpt") == "stale"
    run_stage(run, "data-cpt", Console(stream=stream))
    assert "made in" in stream.getvalue()


def test_only_what_cannot_be_loaded_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(names: Sequence[str], folders: object) -> dict[str, Any]:
        if "general_benchmarks" in names:
            raise DataError("no network")
        return {"tasks": {name: task([ASKED]) for name in names}}

    monkeypatch.setattr(extra, "load", load)
    monkeypatch.setattr(benchmarks, "check_reachable", lambda tasks: None)
    resolved = own_run(tmp_path)
    found = found_by(resolved)
    assert found.left_out == ("general_benchmarks",)
    assert [one.text for one in found.passages] == [ASKED]
    facts = found.facts(resolved)
    assert (facts["tasks"], facts["questions"]) == (["medical_benchmarks"], 1)
    assert facts["left_out"] == ["general_benchmarks"]


def test_questions_that_cannot_be_read_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: object
) -> None:
    broken = task([ASKED])
    broken.doc_to_text = lambda doc: doc["absent"]
    monkeypatch.setattr(extra, "load", lambda names, folders: {"tasks": dict.fromkeys(names, broken)})
    with pytest.raises(DataError, match=r"questions of the benchmark 'quiz' cannot be read.*KeyError.*Fix the task"):
        found_by(own_run(tmp_path, **{"evaluate.tasks": "[quiz]"}))


def test_another_process_of_the_run_reads_what_one_has_noted(tmp_path: Path, loads: list[Sequence[str]]) -> None:
    resolved = own_run(tmp_path, **{"evaluate.tasks": "[quiz]"})
    assert noted_benchmarks(resolved) is None
    found = found_by(resolved)
    note_benchmarks(found, resolved, [])
    assert noted_benchmarks(resolved) is None, "no stage holds rows against them"
    note_benchmarks(found, resolved, resolved.nodes)
    assert noted_benchmarks(resolved) == found
    assert noted_benchmarks(own_run(tmp_path, **{"evaluate.tasks": "[quiz, other]"})) is None
    assert load_benchmarks(own_run(tmp_path, **{"evaluate.tasks": "[]"}), open_corpus(resolved), resolved.nodes) == NONE


def test_what_one_run_goes_without_is_needed_where_a_user_names_it(tmp_path: Path) -> None:
    resolved = own_run(tmp_path)
    note_benchmarks(benchmarks.Benchmarks((), ("general_benchmarks",)), resolved, resolved.nodes)
    assert noted_benchmarks(resolved) is not None
    named = own_run(tmp_path, **{"evaluate.tasks": "[medical_benchmarks, general_benchmarks]"})
    assert named.config.stages["exam-sft"] == resolved.config.stages["exam-sft"]
    assert noted_benchmarks(named) is None


@pytest.mark.parametrize("tasks", ["[]", "[quiz]"])
def test_benchmarks_are_part_of_the_recipe_of_a_stage_that_reads_rows_and_of_no_other(
    tasks: str, tmp_path: Path
) -> None:
    resolved = resolve({"domain": "medical", "out": str(tmp_path), "evaluate.tasks": tasks}, REPOSITORY)
    corpus = open_corpus(resolved)
    found = {node.name for node in resolved.nodes if "benchmarks" in recipe_of(node, resolved, corpus, {})}
    assert found == ({"base", "sft-only", "cpt", "sft", "dpo"} if tasks != "[]" else set())


def test_a_taken_checkpoint_and_stages_without_rows_need_none(tmp_path: Path) -> None:
    resolved = own_run(tmp_path, **{"evaluate.tasks": "[quiz]"})
    held = {node.name for node in resolved.nodes if holds_apart(node, resolved.config)}
    assert held == {"sft"}


def write_lamps(folder: Path) -> Path:
    """Write a manifest without blocks, of which some rows ask what the benchmark asks."""
    planted = [f"{ASKED.upper()} Nobody knows, says keeper {number}." for number in range(3)]
    texts = [f"The keeper of tower number {number} fills its lamp with oil at six." for number in range(60)]
    rows = {
        "notes": [{"text": text} for text in planted + texts],
        "faq": [{"q": text, "a": "That is so."} for text in planted[:1] + texts],
        "exam": [{"q": "How many lamps has the harbour?", "a": "two"}],
    }
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    asked = {"question": "q", "answer": "a"}
    write_json(folder / "data.yaml", {"title": "Lamps", "sources": [
        {"id": "notes", "role": "pretrain", "path": "notes.jsonl", "columns": {"text": "text"}, "licence": "mit"},
        {"id": "faq", "role": "sft", "path": "faq.jsonl", "columns": asked, "licence": "mit"},
        {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "columns": asked, "match": "text",
         "licence": "mit"},
    ]})  # fmt: skip
    return folder / "data.yaml"


@pytest.mark.long
def test_stages_without_cleaning_keep_benchmarks_out_and_list_both_texts(
    tmp_path: Path, loads: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {
        "domain": "medical", "data": str(write_lamps(tmp_path)), "out": str(tmp_path / "store"),
        "pipeline": "sft-only", "evaluate.tasks": "[quiz]", "base.tokens": "2048", "base.limits.dropped": "0.5",
        "sft.tokens": "2048", "sft.limits.dropped": "0.5", "sft.replay": "0",
        "run.verbosity": "quiet",
    }  # fmt: skip
    resolved = resolve(words, REPOSITORY)
    learned: list[str] = []

    def train(texts: Iterable[str], *options: Any) -> Any:
        learned.extend(texts)
        return train_tokenizer(learned, *options)

    monkeypatch.setattr(base, "train_tokenizer", train)
    for stage, source, number in (("base", "notes", 3), ("sft", "faq", 1)):
        made = run_stage(resolved, stage, Console("quiet"))
        (count,) = made.manifest["rows"]
        assert count["dropped"] == {"exam overlap": number}
        (overlap,) = made.manifest["exam_overlap"]
        assert (overlap["source"], len(overlap["texts"])) == (source, number)
        assert all("burns longest" in text and "BURNS LONGEST" in text for text in overlap["texts"])
        assert made.manifest["benchmarks"]["questions"] == 1
    assert "longest" not in " ".join(learned).lower()
    assert "The keeper of tower number 1" in " ".join(learned)
    assert len(loads) == 1, "the second stage reads what the first has noted"
