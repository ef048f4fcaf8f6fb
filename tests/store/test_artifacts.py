"""The store: content identity, atomic commits, damage found, links, locks, collection."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from common.errors import StoreError
from common.store.artifacts import MANIFEST, Artifact, Store, fingerprint_of, read_manifest, writing
from common.store.locks import Holder, holder_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def commit(
    store: Store, stage: str, text: str, *, inputs: dict[str, Artifact] | None = None, recipe: Any = None
) -> Artifact:
    fingerprint = fingerprint_of({"stage": stage, "recipe": recipe or text})
    out = store.work_folder(stage, fingerprint) / "out"
    out.mkdir(parents=True)
    (out / "model.safetensors").write_text(text, encoding="utf-8")
    (out / "log.jsonl").write_text(os.urandom(4).hex(), encoding="utf-8")
    links = {n: {"stage": a.stage, "fingerprint": a.fingerprint} for n, a in (inputs or {}).items()}
    return store.commit(stage, fingerprint, out, {"stage": stage, "fingerprint": fingerprint, "inputs": links})


def test_a_commit_is_whole_and_found_again(store: Store) -> None:
    made = commit(store, "sft", "weights")
    found = store.get("sft", made.fingerprint)
    assert found is not None
    assert found.digest == made.digest
    assert set(found.manifest["files"]) == {"model.safetensors", "log.jsonl"}


def test_the_digest_is_of_the_result_and_not_of_how_it_was_made(store: Store) -> None:
    first, second = commit(store, "sft", "weights", recipe=1), commit(store, "sft", "weights", recipe=2)
    assert first.fingerprint != second.fingerprint
    assert first.digest == second.digest


def test_an_equal_result_keeps_the_old_artifact(store: Store) -> None:
    first = commit(store, "sft", "weights")
    log = (first.path / "log.jsonl").read_bytes()
    commit(store, "sft", "weights")
    assert (first.path / "log.jsonl").read_bytes() == log


def test_a_different_result_replaces_the_old_one(store: Store) -> None:
    first = commit(store, "sft", "weights", recipe=1)
    second = commit(store, "sft", "others", recipe=1)
    assert first.path == second.path
    assert (second.path / "model.safetensors").read_text(encoding="utf-8") == "others"


@pytest.mark.parametrize("harm", ["no manifest", "cut file", "missing file", "broken manifest"])
def test_a_damaged_folder_is_never_taken_as_done(store: Store, harm: str) -> None:
    made = commit(store, "sft", "weights")
    weights = made.path / "model.safetensors"
    if harm == "no manifest":
        (made.path / MANIFEST).unlink()
    elif harm == "cut file":
        weights.write_text("wei", encoding="utf-8")
    elif harm == "missing file":
        weights.unlink()
    else:
        (made.path / MANIFEST).write_text("{", encoding="utf-8")
    assert store.get("sft", made.fingerprint) is None
    assert store.problem("sft", made.fingerprint) is not None


def test_links_are_relative_and_replaced(store: Store) -> None:
    first, second = commit(store, "sft", "a"), commit(store, "sft", "b")
    store.link("medical", "tiny", "sft", first)
    store.link("medical", "tiny", "sft", second)
    link = store.view("medical", "tiny") / "sft"
    assert not os.path.isabs(os.readlink(link))
    found = store.linked("medical", "tiny", "sft")
    assert found is not None
    assert found.digest == second.digest
    assert [p.name for p in link.parent.iterdir()] == ["sft"]


def test_collection_removes_what_no_run_refers_to(store: Store) -> None:
    base = commit(store, "base", "a")
    sft = commit(store, "sft", "b", inputs={"base": base})
    lost = commit(store, "sft", "c")
    store.link("medical", "tiny", "sft", sft)
    unfinished = store.work_folder("dpo", "unfinished")
    unfinished.mkdir(parents=True)
    done = {store.artifacts / ".work" / a.path.name for a in (base, sft, lost)}
    assert {folder for folder, _ in store.collect(dry=True)} == {lost.path, *done}
    assert lost.path.exists()
    store.collect(dry=False)
    assert not lost.path.exists()
    assert all(path.exists() for path in (base.path, sft.path, unfinished))


def test_scratch_that_was_stopped_before_its_mark_is_used_and_free_numbers_are_taken(store: Store) -> None:
    store.work_folder("sft", "f").mkdir(parents=True)
    work, aside = store.begin("sft", "f", "code")  # killed between the folder and the mark
    assert aside is None
    for number in (1, 2, 3):
        _, aside = store.begin("sft", "f", f"code {number}")
        assert aside == work.with_name(f"{work.name}.aside-{number}")
    shutil.rmtree(work.with_name(f"{work.name}.aside-1"))
    _, aside = store.begin("sft", "f", "code 4")
    assert aside == work.with_name(f"{work.name}.aside-1")


def test_a_result_that_is_linked_while_others_are_removed_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [commit(store, name, name) for name in ("cpt", "sft")]
    remove = Store._remove

    def link_first(self: Store, folder: Path) -> bool:
        for artifact in made:
            self.link("medical", "tiny", artifact.stage, artifact)
        return remove(self, folder)

    monkeypatch.setattr(Store, "_remove", link_first)
    assert [folder for folder, _ in store.collect(dry=False) if folder in {artifact.path for artifact in made}] == []


def test_scratch_of_other_code_is_set_aside_until_its_stage_is_done(store: Store) -> None:
    work, aside = store.begin("sft", "f", "old code")
    (work / "trainer").mkdir()
    assert aside is None
    assert store.begin("sft", "f", "old code") == (work, None)
    assert (work / "trainer").exists()
    for number in (1, 2):
        same, aside = store.begin("sft", "f", f"newer code {number}")
        assert same == work
        assert aside is not None
        assert (work / "code").read_text() == f"newer code {number}"
    assert (work.with_name(f"{work.name}.aside-1") / "trainer").exists()
    assert not (work / "trainer").exists()
    assert store.collect(dry=False) == []  # the stage is not done
    shutil.rmtree(store.work_folder("sft", "f"))
    store.folder("sft", "f").mkdir()
    assert {folder.name for folder, _ in store.collect(dry=False)} >= {"sft-f.aside-1", "sft-f.aside-2"}
    assert not list((store.artifacts / ".work").glob("sft-f.aside-*"))


def hold(root: str, ready: Any, release: Any) -> None:
    with Store(Path(root)).lock("sft", "f", wait=True):
        ready.set()
        release.wait(30)


def test_two_runs_never_make_one_artifact_at_once(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(store.root), ready, release))
    other.start()
    assert ready.wait(30)
    with pytest.raises(StoreError, match="being made by another run"), store.lock("sft", "f", wait=False):
        pass
    waited: list[str] = []
    release.set()
    with store.lock("sft", "f", wait=True, on_wait=lambda holder: waited.append(holder.who)):
        # Between its last two acts a holder has taken its name away and has not let go yet.
        assert all(re.fullmatch(r"another run( \(process \d+\))?", who) for who in waited)
    other.join(30)


def test_of_a_holder_that_has_fallen_silent_its_machine_is_named(store: Store) -> None:
    """The lock of a machine that is gone can stay on a network disk."""
    path = store.artifacts / ".locks" / "sft-f.lock"
    with store.lock("sft", "f", wait=True):
        beside = path.with_suffix(".holder")
        beside.write_text(json.dumps({"host": "node-7", "pid": 41}), encoding="utf-8")
        assert holder_of(path) == Holder("another run (process 41 on node-7)", "")
        hours_ago = time.time() - 7200
        os.utime(beside, (hours_ago, hours_ago))
        silence = rf"Nothing was heard of it for 120 minutes: if its machine is gone, remove {path}\."
        with pytest.raises(StoreError, match=rf"process 41 on node-7.*{silence}"), store.lock("sft", "f", wait=False):
            pass
        path.unlink()
        with store.lock("sft", "f", wait=False):  # as it says
            pass


def test_a_killed_holder_leaves_no_lock(store: Store) -> None:
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from common.artifacts import Store
        with Store(Path({str(store.root)!r})).lock("sft", "f", wait=True):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    with store.lock("sft", "f", wait=False):
        pass


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EROFS, "Give another folder with out="),
        (errno.ENOSPC, "is full"),
        (errno.EACCES, "make this one writable"),
    ],
)
def test_system_errors_say_what_to_do(tmp_path: Path, number: int, expected: str) -> None:
    with pytest.raises(StoreError, match=expected), writing(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))


def test_an_error_about_another_folder_is_not_the_stores(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path):
        raise OSError(errno.EACCES, "Permission denied", "/elsewhere")


def test_a_full_disk_while_saving_commits_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="Nothing half-made is kept"):
        commit(store, "sft", "weights")
    monkeypatch.undo()
    assert not list(store.artifacts.glob("sft-*"))


def test_a_manifest_of_another_schema_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": 99, "files": {}}), encoding="utf-8")
    assert read_manifest(tmp_path) is None
