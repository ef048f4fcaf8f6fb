"""Folders of runs: links that move in one step, names, and what is left of the time before runs had names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from common.store import runs
from common.store.artifacts import Artifact, Store
from common.store.collection import collect
from common.store.manifest import MANIFEST
from common.store.runs import RunFolder, list_runs, move_old, runs_in
from tests.store.results import commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def folder(store: Store, name: str = "full") -> RunFolder:
    return RunFolder(store.runs, "medical", "tiny", name)


def test_links_are_relative_and_replaced(store: Store) -> None:
    first, second = commit(store, "sft", "a"), commit(store, "sft", "b")
    run = folder(store)
    run.link("sft", first)
    run.link("sft", second)
    assert not os.path.isabs(os.readlink(run.path / "sft"))
    found = run.linked("sft")
    assert found is not None
    assert found.digest == second.digest
    assert [p.name for p in run.path.iterdir()] == ["sft"]
    assert run.linked("dpo") is None


def test_two_names_are_two_folders(store: Store) -> None:
    first, second = commit(store, "sft", "a"), commit(store, "sft", "b")
    folder(store, "full").link("sft", first)
    folder(store, "other").link("sft", second)
    shutil.copy(first.path / MANIFEST, folder(store, "other").summary)
    assert [run.name for run in runs_in(store, "medical")] == ["other"]  # a link alone is no run
    assert folder(store, "full").linked("sft") == first
    assert folder(store, "other").linked("sft") == second
    assert collect(store, dry=True).unused == ()


def old(store: Store, pipeline: str = "full", text: str = "a") -> dict[str, Artifact]:
    """Leave what a run left before runs had names."""
    place = store.runs / "medical" / "tiny"
    place.mkdir(parents=True, exist_ok=True)
    made = {stage: commit(store, stage, text) for stage in ("base", "sft-only", "card")}
    for stage, artifact in made.items():
        (place / stage).symlink_to(f"../../../artifacts/{artifact.path.name}")
    (place / "plan.json").write_text(json.dumps({"pipeline": {"name": pipeline}}), encoding="utf-8")
    (place / "summary.json").write_text(json.dumps({"pipeline": pipeline}), encoding="utf-8")
    os.utime(place / "plan.json", ns=(5, 5))
    return made


def test_a_run_of_the_old_place_is_understood_and_protected(store: Store) -> None:
    made = old(store)
    assert [run.label for run in runs_in(store, "medical")] == ["tiny"]
    assert folder(store).linked("base") == made["base"]
    assert collect(store, dry=True).unused == ()
    assert list_runs(store, "medical") == "There is tiny (profile/name)."
    assert list_runs(store, "legal") == f"There is no run of legal in {store.runs}."


def test_it_is_moved_in_one_step(store: Store) -> None:
    made = old(store)
    place = store.runs / "medical" / "tiny"
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    (place / "mine").symlink_to(store.root)
    summary = (place / "summary.json").read_bytes()
    assert move_old(store, "medical", "tiny") == folder(store)
    assert sorted(path.name for path in place.iterdir()) == ["full", "mine", "notes.txt"]
    run = folder(store)
    assert {stage: run.linked(stage) for stage in made} == made
    assert all((run.path / stage / MANIFEST).is_file() for stage in made)  # the links lead there from where they are
    assert run.summary.read_bytes() == summary
    assert run.plan.stat().st_mtime_ns == 5
    assert run.pipeline == "full"
    assert collect(store, dry=True).unused == ()
    assert move_old(store, "medical", "tiny") is None
    assert [each.label for each in runs_in(store, "medical")] == ["tiny/full"]


@pytest.mark.parametrize("moment", ["before the step", "after it"])
def test_a_kill_in_the_middle_loses_nothing(store: Store, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = old(store)

    def killed(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename" if moment == "before the step" else "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            move_old(store, "medical", "tiny")
    assert collect(store, dry=True).unused == ()
    assert move_old(store, "medical", "tiny") == folder(store)
    assert [path.name for path in (store.runs / "medical" / "tiny").iterdir()] == ["full"]
    assert {stage: folder(store).linked(stage) for stage in made} == made


@pytest.mark.parametrize(
    ("pipeline", "taken", "expected"),
    [
        ("full", "folder", "full-earlier"),
        ("sft-only", "", "sft-only-earlier"),  # a stage has that name, and its link stands there
        ("../../up", "", "earlier"),
        ("", "", "earlier"),
    ],
)
def test_what_is_there_is_not_overwritten(store: Store, pipeline: str, taken: str, expected: str) -> None:
    made = old(store, pipeline)
    if taken:
        folder(store).link("base", commit(store, "base", "new"))
    assert move_old(store, "medical", "tiny") == folder(store, expected)
    assert folder(store, expected).linked("base") == made["base"]
    if taken:
        assert folder(store).linked("base") != made["base"]
    assert store.runs.parent == store.root
    assert not (store.root / "up").exists()


def test_what_was_being_moved_and_is_named_as_ours_goes(store: Store) -> None:
    old(store)
    (store.runs / "medical" / "tiny" / f"{runs.MOVING}1").mkdir()
    move_old(store, "medical", "tiny")
    assert [path.name for path in (store.runs / "medical" / "tiny").iterdir()] == ["full"]
