"""GPUs are held by one stage at a time, by whatever user, and given back after it."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import platform
import socket
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.schema import RunSettings
from common.console import Console
from common.engine import run as running
from common.errors import StoreError
from common.models import device
from common.store import cache
from common.store.locks import holder_of, is_held
from common.training.distributed import gpu_lock, ranks

GIB = 2**30


def holding(folder: str, ready: Any, release: Any) -> None:
    gpu_lock.SHARED = Path(folder)
    with gpu_lock.held(["b", "a"], RunSettings(), "cpt", Console("quiet")):
        ready.set()
        release.wait(60)


def test_two_stages_never_train_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    spawn = multiprocessing.get_context("spawn")
    ready, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=holding, args=(str(tmp_path), ready, release))
    other.start()
    assert ready.wait(60)
    refused = rf"Stage sft: another run \(process {other.pid}\) trains on this GPU. .*CUDA_VISIBLE_DEVICES"
    with (
        pytest.raises(StoreError, match=refused),
        gpu_lock.held(["a"], RunSettings(wait=False), "sft", Console("quiet")),
    ):
        pass
    with gpu_lock.held(["c"], RunSettings(wait=False), "sft", Console("quiet")):  # another GPU is free
        pass
    release.set()
    with gpu_lock.held(["a", "b"], RunSettings(), "sft", Console("quiet")):
        pass
    other.join(30)


def test_a_cpu_is_shared(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        gpu_lock.lock_gpus(RunSettings(device="cpu"), "cpt", Console()),
        gpu_lock.lock_gpus(RunSettings(device="cpu"), "x", Console()),
    ):
        assert capsys.readouterr().out == ""


def test_locks_are_open_to_all_users_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask of whoever was first."""
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    before = os.umask(0o077)
    try:
        with gpu_lock.held(["a"], RunSettings(), "cpt", Console("quiet")):
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in gpu_lock.lock_folder().iterdir()}
            assert stat.S_IMODE(gpu_lock.lock_folder().stat().st_mode) == 0o1777
    finally:
        os.umask(before)
    assert modes == {"gpu-a.lock": 0o666, "gpu-a.holder": 0o666}


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_what_another_user_put_for_the_holder_is_neither_written_nor_waited_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    mine = tmp_path / "mine"
    mine.write_text("precious")
    gpu_lock.lock_folder().mkdir()
    holder = gpu_lock.lock_folder() / "gpu-a.holder"
    if kind == "link":
        holder.symlink_to(mine)
    elif kind == "second name":
        holder.hardlink_to(mine)
    elif kind == "pipe":
        os.mkfifo(holder)
    else:
        holder.mkdir()
    with gpu_lock.held(["a"], RunSettings(), "cpt", Console("quiet")):
        assert is_held(gpu_lock.lock_folder() / "gpu-a.lock")
        assert holder_of(gpu_lock.lock_folder() / "gpu-a.lock").who == "another run"
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "link", "lock is a link"])
def test_nobody_is_kept_out_by_what_another_user_put_there(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder = tmp_path / "domain-recipes"
    if kind == "file":
        folder.write_text("no folder")
    elif kind == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        (folder / "gpu-a.lock").symlink_to(tmp_path / "elsewhere" / "made")
    with gpu_lock.held(["a"], RunSettings(), "cpt", Console("quiet")):
        assert is_held(cache.folder() / "locks" / "gpu-a.lock")
        with (
            pytest.raises(StoreError, match=r"another run .+ trains on this GPU"),
            gpu_lock.held(["a"], RunSettings(wait=False), "sft", Console("quiet")),
        ):
            pass
    assert "cpt: " in (said := capsys.readouterr().out)
    assert "cannot be used for locks" in said
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "text",
    [
        "{", "[1]", '{"host": "a", "pid": "12; rm"}', '{"host": "a", "pid": 99999999999}', "[" * 100_000,
        json.dumps({"host": platform.node(), "pid": 2**22 - 1}), '{"host": "' + "x" * 10_000 + '", "pid": 1}',
    ],
)  # fmt: skip
def test_what_a_holder_writes_is_checked(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.holder").write_text(text)
    assert holder_of(tmp_path / "a.lock").who == "another run"


def test_a_holder_s_text_is_shown_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.holder").write_text(json.dumps({"host": "\x1b[31mevil\nhost" + "y" * 500, "pid": 7}))
    who = holder_of(tmp_path / "a.lock").who
    assert who.startswith("another run (process 7 on ")
    assert len(who) < 120
    assert who.isprintable()


def test_the_locks_do_not_lie_in_a_job_s_own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "job"))
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    assert gpu_lock.lock_folder().parent == tmp_path
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path / "missing")
    assert gpu_lock.lock_folder().parent == tmp_path / "job"


@pytest.mark.parametrize(
    ("visible", "rank", "expected"),
    [(4, 0, [0, 1, 2, 3]), (4, 1, []), (8, 0, [0, 1, 2, 3]), (1, 0, [0]), (1, 3, [0])],
)
def test_the_first_process_holds_all_gpus_and_each_its_own_where_it_sees_no_other(
    visible: int, rank: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert list(gpu_lock.to_hold(visible)) == expected


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch tells of one GPU, in bytes."""
    told = SimpleNamespace(free=10 * GIB, reserved=0, allocated=0, peak=0)
    answers = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
        "mem_get_info": lambda number=None: (told.free, 16 * GIB),
        "memory_reserved": lambda number=None: told.reserved,
        "memory_allocated": lambda number=None: told.allocated,
        "get_device_properties": lambda number: SimpleNamespace(uuid=f"uuid-{number}"),
        "reset_peak_memory_stats": lambda: setattr(told, "peak", told.allocated),
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return told


def test_only_memory_of_others_is_called_theirs(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    card.reserved = 6 * GIB
    with gpu_lock.lock_gpus(RunSettings(), "sft", Console("quiet")):
        assert capsys.readouterr().out == ""
    card.reserved = 2 * GIB
    with gpu_lock.lock_gpus(RunSettings(), "sft", Console("quiet")):
        assert "sft: another program is on this GPU, 10.0 of 16.0 GiB are free" in capsys.readouterr().out


def test_jobs_that_give_up_the_lock_share_a_card(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_lock, "SHARED", tmp_path)
    card.reserved = 2 * GIB
    sharing = RunSettings(gpu_lock=False, wait=False)
    with gpu_lock.lock_gpus(RunSettings(), "sft", Console()), gpu_lock.lock_gpus(sharing, "dpo", Console()):
        assert "dpo: another program is on this GPU, 10.0 of 16.0 GiB are free" in capsys.readouterr().out
    with (
        gpu_lock.lock_gpus(RunSettings(), "sft", Console()),
        pytest.raises(StoreError, match=r"or share it with run\.gpu_lock=false"),
        gpu_lock.lock_gpus(RunSettings(wait=False), "dpo", Console()),
    ):
        pass


class Model:
    """Weights of some size that remember where they were moved."""

    def __init__(self, gib: int) -> None:
        self.weight = torch.empty(gib * GIB // 4, device="meta")

    def parameters(self) -> Iterator[torch.Tensor]:
        yield self.weight

    def to(self, place: str) -> str:
        return place


def test_blocks_that_are_kept_and_not_used_are_room(card: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.to_device(Model(7), RunSettings()) == "cuda"
    assert capsys.readouterr().out == ""
    card.free, card.reserved, card.allocated = 4 * GIB, 7 * GIB, GIB
    assert device.to_device(Model(7), RunSettings()) == "cuda"
    card.allocated = 2 * GIB
    assert device.to_device(Model(8), RunSettings()) == "cpu"
    said = "The model stays on the CPU, which is slow: its weights take 8.0 GiB, and 9.0 GiB of the GPU are free."
    assert said in capsys.readouterr().out


class Held:
    """What refers to another of its kind."""

    other: Held


def test_a_stage_gives_its_memory_back_however_it_ends(card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer and its model hold each other; the memory is free once both are gone, and the peak starts anew."""
    left: list[Any] = []

    def empty_cache() -> None:
        card.allocated = sum(GIB for model in left if model() is not None)
        card.reserved = card.allocated

    def stage(context: Any) -> None:
        trainer, model = Held(), Held()
        trainer.other, model.other = model, trainer
        left.append(weakref.ref(model))
        card.allocated, card.reserved, card.peak = GIB, 2 * GIB, 2 * GIB
        if context.stage == "fails":
            raise ValueError("stopped")

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    monkeypatch.setattr(running, "kind_of", lambda name: SimpleNamespace(run=stage, on_gpu=False))
    gc.disable()
    shared = {"kind": "card", "config": SimpleNamespace(run=RunSettings()), "console": Console("quiet")}
    ends, fails = (SimpleNamespace(stage=name, **shared) for name in ("ends", "fails"))  # all that is read
    try:
        with running.ready(ends):  # type: ignore[arg-type] # as above
            stage(ends)
        assert (card.reserved, card.peak) == (0, 0)
        with pytest.raises(ValueError, match="stopped"), running.ready(fails):  # type: ignore[arg-type] # as above
            stage(fails)
    finally:
        gc.enable()
    assert card.peak == card.allocated  # what a traceback still shows is held until it is told


def helping(rank: int, port: int, folder: Path) -> None:
    """Run a stage in one of two processes, of which the first takes its time to hold the GPUs."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks.start(RunSettings(device="cpu"))

    @contextlib.contextmanager
    def slowly(*_: Any) -> Iterator[None]:
        if rank == 0:
            time.sleep(2)
            (folder / "held").touch()
        yield

    def stage(context: Any) -> None:
        (folder / f"{rank}-{(folder / 'held').exists()}").touch()

    vars(running).update(lock_gpus=slowly, kind_of=lambda name: SimpleNamespace(run=stage, on_gpu=True))
    context = SimpleNamespace(kind="cpt", stage="cpt", config=SimpleNamespace(run=None), console=None)
    with running.ready(context):  # type: ignore[arg-type] # all that is read
        stage(context)
    ranks.barrier()


def test_no_process_begins_before_all_gpus_are_held(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=helping, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {path.name for path in tmp_path.iterdir()} == {"held", "0-True", "1-True"}
