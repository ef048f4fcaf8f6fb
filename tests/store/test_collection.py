"""Collection: what nothing uses goes, and of what the store did not make no byte is touched."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.cli.main import main
from common.store.artifacts import Store, fingerprint_of, write_json
from common.store.collection import Found, collect, linked_names
from common.store.leases import leased, names_in_use
from common.store.manifest import MANIFEST
from common.store.ownership import erase
from common.store.runs import RunFolder
from tests.store.results import commit

NAME = "sft-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def unused(found: Found) -> set[str]:
    return {folder.name for folder, _ in found.unused}


def test_what_no_run_refers_to_goes(store: Store) -> None:
    base = commit(store, "base", "a")
    sft = commit(store, "sft", "b", inputs={"base": base})
    lost = commit(store, "sft", "c")
    RunFolder(store.runs, "medical", "tiny", "full").link("sft", sft)
    unfinished, _ = store.begin("dpo", "0123456789abcdef", "code")
    done, _ = store.begin("base", base.fingerprint, "code")
    dry = collect(store, dry=True)
    assert {folder for folder, _ in dry.unused} == {done, lost.path}
    assert lost.path.exists()
    assert collect(store, dry=False) == dry
    assert not lost.path.exists()
    assert not done.exists()
    assert all(path.exists() for path in (base.path, sft.path, unfinished))
    assert collect(store, dry=False) == Found((), ())


def foreign(store: Store) -> dict[Path, str]:
    """Put what is not the store's into its folders; return each with the reason why it stays."""
    store.work.mkdir(parents=True, exist_ok=True)
    elsewhere = store.root.parent / "elsewhere"
    lost = commit(store, "cpt", "lost")
    shutil.copytree(lost.path, elsewhere)
    places = {
        store.artifacts / "notes": "its name is not that of a result",
        store.artifacts / NAME: "it has no valid manifest.json",
        store.artifacts / "dpo-0123456789abcdef": f"its manifest.json is of {lost.path.name}",
        store.artifacts / "thesis.pdf": "it is a file that no stage made",
        store.artifacts / "rlhf-0123456789abcdef": "it is a link, which is not followed",
        store.artifacts / "kto-0123456789abcdef": "it has no valid manifest.json",
        lost.path: "it holds mine/link, which no stage made",
        store.work / "mine": "its name is not that of a stage's scratch",
        store.work / NAME: "it has no file 'code', which a stage writes first",
        store.work / "replaced-mine": "its name is not that of a stage's scratch",
        store.work / f"replaced-{NAME}-12": "nothing in it says that this store made it",
        store.work / f"removed-{NAME}-13": "it is a link, which is not followed",
        store.work / "file": "it is a file that no stage made",
    }
    for path, reason in places.items():
        if "link," in reason and path != lost.path:
            path.symlink_to(elsewhere)
        elif "is a file" in reason:
            path.write_text("mine", encoding="utf-8")
        elif path != lost.path:
            path.mkdir()
            (path / "mine.txt").write_text("mine", encoding="utf-8")
    shutil.copy(elsewhere / MANIFEST, store.artifacts / "dpo-0123456789abcdef" / MANIFEST)
    (store.artifacts / "kto-0123456789abcdef" / MANIFEST).symlink_to(elsewhere / MANIFEST)
    (lost.path / "mine").mkdir()
    (lost.path / "mine" / "link").symlink_to(elsewhere)
    return places


def listing(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*") if ".locks" not in path.parts and ".leases" not in path.parts)


@pytest.mark.parametrize("dry", [True, False])
def test_what_the_store_did_not_make_is_left_and_told(store: Store, dry: bool) -> None:
    expected = foreign(store)
    before = listing(store.root.parent)
    found = collect(store, dry=dry)
    assert dict(found.foreign) == expected
    assert found.unused == ()
    assert listing(store.root.parent) == before


def test_the_command_lists_the_same_with_dry(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    foreign(store)
    commit(store, "sft", "unused")
    assert main(["gc", "dry=true", f"out={store.root}"]) == 0
    dry = capsys.readouterr().out
    assert main(["gc", f"out={store.root}"]) == 0
    real = capsys.readouterr().out
    assert dry.replace("would remove", "removed") == real
    assert "left alone: " in real
    assert real.splitlines()[-1].startswith("removed 1 folders")


def test_of_a_folder_that_is_no_store_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert collect(Store(tmp_path), dry=False) == Found((), ())
    assert listing(tmp_path) == [str(tmp_path / "file")]


def test_what_a_run_under_way_reads_stays_with_all_that_it_was_made_from(store: Store) -> None:
    base = commit(store, "base", "a")
    cpt = commit(store, "cpt", "b", inputs={"base": base})
    other = commit(store, "cpt", "c")
    with leased(store.artifacts) as lease:
        lease.add(cpt.path.name, NAME)
        scratch, _ = store.begin("sft", NAME.removeprefix("sft-"), "code")
        assert unused(collect(store, dry=False)) == {other.path.name}
        assert scratch.exists()
    assert unused(collect(store, dry=True)) == {base.path.name, cpt.path.name}


def test_rows_that_a_model_of_a_run_may_be_replayed_from_stay(store: Store) -> None:
    rows, lost = commit(store, "tokens", "read"), commit(store, "tokens", "other")
    cpt = commit(store, "cpt", "weights")
    write_json(cpt.path / "manifest.json", {**cpt.manifest, "lineage": [{"read": {rows.path.name: 7}}, "odd"]})
    RunFolder(store.runs, "law", "tiny", "sequence").link("cpt", cpt)
    assert [path for path, _ in collect(store, dry=True).unused] == [lost.path]


def test_scratch_of_a_stage_that_is_made_again_right_now_stays(store: Store) -> None:
    made = commit(store, "sft", "a")
    scratch, _ = store.begin("sft", made.fingerprint, "code")
    with leased(store.artifacts) as lease:
        lease.add(made.path.name)
        assert collect(store, dry=False).unused == ()
    with store.lock("sft", made.fingerprint, wait=True):
        assert collect(store, dry=False).unused == ()
    assert unused(collect(store, dry=False)) == {scratch.name} == {made.path.name}


def test_links_of_every_depth_and_from_anywhere_count(store: Store) -> None:
    made = [commit(store, "sft", text) for text in ("old place", "named", "moved runs")]
    old, named = store.runs / "medical" / "tiny" / "sft", store.runs / "medical" / "tiny" / "full" / "sft"
    named.parent.mkdir(parents=True)
    old.symlink_to(os.path.relpath(made[0].path, old.parent))
    named.symlink_to(os.path.relpath(made[1].path, named.parent))
    (apart := store.root.parent / "apart" / "tiny" / "full").mkdir(parents=True)
    (apart / "sft").symlink_to(f"../../../../artifacts/{made[2].path.name}")  # leads nowhere from there
    (store.runs / "legal").symlink_to(store.root.parent / "apart")
    assert linked_names(store) == {artifact.path.name for artifact in made}
    assert collect(store, dry=False).unused == ()


def test_what_a_killed_collection_leaves_is_known_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(store, "sft", "a")

    def killed(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("common.store.collection.erase", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(store, dry=False)
    (left,) = store.work.iterdir()
    assert left.name.startswith(f"removed-{made.path.name}-")
    assert unused(collect(store, dry=False)) == {left.name}
    assert list(store.work.iterdir()) == []


def test_links_inside_what_is_erased_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine", encoding="utf-8")
    folder = tmp_path / "scratch"
    (folder / "deep").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "mine")
    (folder / "deep" / "link").symlink_to(tmp_path / "mine")
    erase(folder)
    assert not folder.exists()
    assert (tmp_path / "mine" / "file").exists()


def use(root: str, seconds: float, broken: Any) -> None:
    """Do what runs do, over and over: claim a result, make it where it is missing, and read it for a while."""
    store, until, number = Store(Path(root)), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        text = f"{os.getpid()} {number % 5}"
        name = f"probe-{fingerprint_of({'stage': 'probe', 'recipe': text})}"
        with leased(store.artifacts) as lease:
            lease.add(name)
            if not (store.artifacts / name / MANIFEST).is_file():
                commit(store, "probe", text)
            for _ in range(20):
                if not (store.artifacts / name / "model.safetensors").is_file():
                    broken.value += 1
                time.sleep(0.0005)


def sweep(root: str, seconds: float, removed: Any) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        removed.value += len(collect(Store(Path(root)), dry=False).unused)


def test_a_folder_that_another_process_removes_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "removed").mkdir()
    glob = Path.glob

    def gone(folder: Path, pattern: str) -> Iterator[Path]:
        if folder.name == "removed":
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", gone)
    erase(tmp_path / "removed")
    assert not (tmp_path / "removed").exists()


def test_two_runs_and_two_collections_at_once(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    broken, removed = context.Value("i", 0), context.Value("i", 0)
    parts = [(use, broken), (use, broken), (sweep, removed), (sweep, removed)]
    processes = [context.Process(target=what, args=(str(store.root), 2.0, value)) for what, value in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert broken.value == 0
    assert removed.value > 0
    assert names_in_use(store.artifacts) == set()
    collect(store, dry=False)
    assert json.dumps(sorted(path.name for path in store.work.iterdir())) == "[]"


def test_what_killed_runs_were_writing_goes_once_no_run_needs_it(store: Store) -> None:
    kept = commit(store, "sft", "a")
    run = RunFolder(store.runs, "medical", "tiny", "full")
    run.link("sft", kept)
    lost = commit(store, "dpo", "b")
    (run.path / ".dpo.4194304").symlink_to(os.path.relpath(lost.path, run.path))
    (run.path / ".plan.json.4194304").write_text("{", encoding="utf-8")
    version = store.models / "medical" / ".new-publish-0123456789abcdef"
    version.mkdir(parents=True)
    (version / "model.safetensors").write_bytes(b"half")
    (version.parent / ".latest.4194304").symlink_to("v1")
    ours = {*run.path.glob(".*"), *version.parent.glob(".*")}
    others = [run.path / ".notes", version.parent / ".new-idea", run.path / ".notes.7"]
    for path in others:
        path.write_text("of the user", encoding="utf-8")
    assert linked_names(store) == {kept.path.name}
    with leased(store.artifacts) as lease:
        lease.add(version.name.removeprefix(".new-"))
        assert unused(collect(store, dry=False)) == {lost.path.name}
    dry = collect(store, dry=True)
    assert {path for path, _ in dry.unused} == ours
    assert collect(store, dry=False) == dry
    assert not any(os.path.lexists(path) for path in ours)
    assert all(path.exists() for path in others)
    assert kept.path.exists()
