"""The store: content identity, atomic commits, damage found, links, locks, collection."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError, StoreError
from common.store.artifacts import Store, fingerprint_of, write_json, writing
from common.store.collection import collect
from common.store.locks import Holder, holder_of
from common.store.manifest import MANIFEST
from tests.store.results import commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


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


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
def test_a_result_has_the_modes_that_its_umask_means(store: Store, umask: int) -> None:
    before = os.umask(umask)
    try:
        out = store.work / "out"
        (out / "private").mkdir(parents=True)
        out.chmod(out.stat().st_mode | stat.S_ISGID)
        for path in (out / "model.safetensors", out / "private" / "rows"):
            path.write_text("weights")
            path.chmod(0o600)
        (out / "private").chmod(0o700)
        made = store.commit("sft", "0" * 16, out, {})
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made.path.rglob("*")}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in modes}
    assert modes == expected
    assert made.path.stat().st_mode & stat.S_ISGID


def test_an_equal_result_keeps_the_old_artifact(store: Store) -> None:
    first = commit(store, "sft", "weights")
    log = (first.path / "log.jsonl").read_bytes()
    commit(store, "sft", "weights")
    assert (first.path / "log.jsonl").read_bytes() == log


def test_an_equal_result_with_a_file_of_a_new_kind_brings_it_and_says_what_was_kept_out(
    store: Store, tmp_path: Path
) -> None:
    first = commit(store, "sft", "weights")
    out = tmp_path / "again"
    shutil.copytree(first.path, out)
    (out / MANIFEST).unlink()
    again = {**first.manifest, "benchmarks": {"tasks": ["quiz"]}}
    kept = store.commit("sft", first.fingerprint, out, dict(again))
    assert (kept.digest, kept.manifest["benchmarks"]) == (first.digest, {"tasks": ["quiz"]})
    shutil.copytree(first.path, out)
    (out / MANIFEST).unlink()
    (out / "samples.jsonl.zst").write_bytes(b"texts")
    assert (store.commit("sft", first.fingerprint, out, dict(again)).path / "samples.jsonl.zst").is_file()


def test_a_different_result_replaces_the_old_one(store: Store) -> None:
    first = commit(store, "sft", "weights", recipe=1)
    second = commit(store, "sft", "others", recipe=1)
    assert first.path == second.path
    assert (second.path / "model.safetensors").read_text(encoding="utf-8") == "others"


@pytest.mark.parametrize("harm", ["no manifest", "cut file", "missing file", "broken manifest", "another's manifest"])
def test_a_damaged_folder_is_never_taken_as_done(store: Store, harm: str) -> None:
    made = commit(store, "sft", "weights")
    weights = made.path / "model.safetensors"
    if harm == "no manifest":
        (made.path / MANIFEST).unlink()
    elif harm == "cut file":
        weights.write_text("wei", encoding="utf-8")
    elif harm == "missing file":
        weights.unlink()
    elif harm == "another's manifest":
        shutil.copy(commit(store, "cpt", "weights").path / MANIFEST, made.path / MANIFEST)
    else:
        (made.path / MANIFEST).write_text("{", encoding="utf-8")
    assert store.get("sft", made.fingerprint) is None
    assert store.problem("sft", made.fingerprint) is not None


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


def test_scratch_of_other_code_is_set_aside_until_its_stage_is_done(store: Store) -> None:
    fingerprint = fingerprint_of({"stage": "sft", "recipe": "weights"})
    work, aside = store.begin("sft", fingerprint, "old code")
    (work / "trainer").mkdir()
    assert aside is None
    assert store.begin("sft", fingerprint, "old code") == (work, None)
    assert (work / "trainer").exists()
    for number in (1, 2):
        same, aside = store.begin("sft", fingerprint, f"newer code {number}")
        assert same == work
        assert aside is not None
        assert (work / "code").read_text() == f"newer code {number}"
    assert (work.with_name(f"{work.name}.aside-1") / "trainer").exists()
    assert not (work / "trainer").exists()
    assert collect(store, dry=False).unused == ()  # the stage is not done
    shutil.rmtree(work)
    commit(store, "sft", "weights")
    names = {folder.name for folder, _ in collect(store, dry=False).unused}
    assert names >= {f"sft-{fingerprint}.aside-1", f"sft-{fingerprint}.aside-2"}
    assert not list(store.work.glob("sft-*.aside-*"))


def test_what_is_replaced_goes_and_what_is_not_ours_there_is_kept(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first = commit(store, "sft", "weights", recipe=1)
    commit(store, "sft", "others", recipe=1)
    assert [path.name for path in store.artifacts.glob("*") if not path.name.startswith(".")] == [first.path.name]
    (first.path / "notes.txt").write_text("mine", encoding="utf-8")
    commit(store, "sft", "third", recipe=1)
    kept = store.artifacts / f"{first.path.name}.kept-1"
    assert (kept / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert "it holds notes.txt, which no stage made" in caplog.text
    (elsewhere := store.root / "elsewhere").mkdir()
    (elsewhere / "file").write_text("mine", encoding="utf-8")
    shutil.rmtree(first.path)
    first.path.symlink_to(elsewhere)
    commit(store, "sft", "fourth", recipe=1)
    assert (elsewhere / "file").exists()
    assert (store.artifacts / f"{first.path.name}.kept-2").is_symlink()
    assert (first.path / "model.safetensors").read_text(encoding="utf-8") == "fourth"


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
        hours_ago = time.time() - 7200
        os.utime(beside, (hours_ago, hours_ago))
        # On this machine the lock itself says that its holder lives; it is the clock that was set forward.
        assert holder_of(path) == Holder(f"another run (process {os.getpid()})", "")
        beside.write_text(json.dumps({"host": "node-7", "pid": 41}), encoding="utf-8")
        assert holder_of(path) == Holder("another run (process 41 on node-7)", "")
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
        from common.store.artifacts import Store
        with Store(Path({str(store.root)!r})).lock("sft", "f", wait=True):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
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

    work, _ = store.begin("sft", "f", "code")
    (out := work / "out").mkdir()
    (out / "model.safetensors").write_text("weights", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="Nothing half-made is kept"):
        store.commit("sft", "f", out, {"stage": "sft", "fingerprint": "f"})
    monkeypatch.undo()
    assert not list(store.artifacts.glob("sft-*"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)  # fmt: skip
def test_a_full_disk_in_a_library_s_own_words_is_a_sentence(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"is full \(\d+ MB free\)\. About 7 MB are needed here\. Nothing half-made"),
        writing(tmp_path / "new", needed=7e6),
        writing(tmp_path / "inner"),
    ):
        raise DataError("The exam cannot be written.") from error


def test_half_of_a_surrogate_pair_is_written_as_an_escape(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"reason": "role \ud800", "ü": 1})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert "\\ud800" in text
    assert json.loads(text) == {"reason": "role \ud800", "ü": 1}
