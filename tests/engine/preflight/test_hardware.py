"""What a machine lacks for a profile: found without torch, said by plan, refused by run, with the profiles that fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import machine
from common.cli.main import main
from common.config.resolve import resolve
from common.config.schema import Config, Needs, RunSettings
from common.console import Console
from common.cost import hardware
from common.engine import environment
from common.engine.preflight.hardware import Machine, check_out, explanation, find_missing, machine_at, missing
from common.engine.run import execute
from common.errors import ConfigError
from common.machine import driver_cards
from common.training.distributed import ranks
from tests.conftest import QUICK, REPOSITORY

ONE_24 = Needs(device="cuda", gpus=1, gpu_memory_gb=22, host_memory_gb=15, disk_gb=50)
EIGHT_80 = Needs(device="cuda", gpus=8, gpu_memory_gb=76, host_memory_gb=180, disk_gb=400)


@pytest.mark.parametrize(
    ("wanted", "machine", "expected"),
    [
        (ONE_24, Machine((23.99,), 31, 900), []),
        (ONE_24, Machine((None,), None, None), []),  # nothing says that it is too little
        (ONE_24, Machine((), 31, 900), ["1 CUDA GPU of 22 GiB (here none)"]),
        (ONE_24, Machine((15.9, 15.9), 31, 900), ["1 CUDA GPU of 22 GiB (here 15.9 GiB)"]),
        (ONE_24, Machine((8, 23.99), 31, 900), []),  # the larger one counts
        (EIGHT_80, Machine((79.6,) * 4, 500, 900), ["8 CUDA GPUs of 76 GiB (here 4)"]),
        (EIGHT_80, Machine((79.6,) * 7 + (44.0,), 500, 900), ["8 CUDA GPUs of 76 GiB (here 44.0 GiB)"]),
        (
            EIGHT_80, Machine((79.6,) * 8, 62.5, 90.25),
            ["180 GiB of main memory (here 62.5)", "400 GiB of free disk (here 90.2)"],
        ),
        (Needs(), Machine((), 1, 0), []),
    ],
)  # fmt: skip
def test_what_a_machine_lacks(wanted: Needs, machine: Machine, expected: list[str]) -> None:
    assert find_missing(wanted, machine) == expected


def test_gpus_that_a_run_leaves_alone_do_not_count() -> None:
    assert find_missing(ONE_24, Machine((23.99,), 31, 900), only_cpu=True) == ["1 CUDA GPU of 22 GiB (here none)"]


def test_results_that_are_there_need_no_room_again() -> None:
    assert find_missing(ONE_24, Machine((23.99,), 31, 30), made=25) == []
    assert find_missing(ONE_24, Machine((23.99,), 31, 20), made=25) == ["25 GiB of free disk (here 20.0)"]


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An `nvidia-smi` that tells of two cards, as the real one does."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\n[ "$1" = --query-gpu=uuid,memory.total,compute_cap,name ] || exit 1\n'
        "echo GPU-aa, 24564, 8.9, NVIDIA GeForce RTX 4090\necho GPU-bb, 81559, 9.0, NVIDIA H100 80GB HBM3\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back as it was
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(environment, "_limited", False)  # an earlier test's `prepare` may have set it
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: True)
    driver_cards.cache_clear()
    yield
    driver_cards.cache_clear()


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [23.99, 79.65]),
        ("1", [79.65]),
        ("1,0", [79.65, 23.99]),
        ("", []),
        ("-1", []),
        ("0,7,1", [23.99]),
        ("GPU-bb", [79.65]),
        ("MIG-cc", [23.99]),
    ],
)
def test_cards_are_those_that_the_process_may_use(
    visible: str | None, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine_at(tmp_path / "not" / "there")
    assert list(found.gpus) == pytest.approx(expected, abs=0.01)
    planned = hardware.gpu_here()  # the same card as the one that is planned for
    assert ([planned.memory / hardware.GIB] if planned else []) == pytest.approx(expected[:1], abs=0.01)
    assert found.host_memory is not None
    assert found.host_memory > 1
    assert found.disk is not None


@pytest.mark.usefixtures("two_cards")
def test_a_gpu_that_torch_cannot_use_counts_as_none_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: False)
    assert hardware.gpu_here() is None
    resolved = resolve({"domain": "medical", "profile": "qwen3-0.6b", "out": str(tmp_path)}, REPOSITORY)
    told = explanation(resolved, missing(resolved))
    assert "1 CUDA GPU of 22 GiB (here none)" in told
    assert "has NVIDIA GeForce RTX 4090, but torch here is built without CUDA. Install a CUDA build" in told


@pytest.mark.usefixtures("two_cards")
def test_more_processes_than_cards_are_told(tmp_path: Path) -> None:
    words = {"domain": "medical", "profile": "qwen3-0.6b", "out": str(tmp_path), "needs.host_memory_gb": "0"}
    none = {**words, "needs.disk_gb": "0"}
    assert missing(resolve(none, REPOSITORY)) == []
    assert missing(resolve({**none, "run.processes": "3"}, REPOSITORY)) == [
        "a GPU for each of 3 processes (run.processes; here 2)"
    ]
    assert missing(resolve({**none, "needs.machines": "2"}, REPOSITORY)) == ["2 machines (run.machines=1)"]


@pytest.mark.usefixtures("two_cards")
def test_the_one_gpu_of_a_process_is_not_handed_on_to_those_that_share_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_limited", False)
    environment.prepare(RunSettings(), asks_hub=False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in environment.environment()
    assert len(machine_at(tmp_path).gpus) == 2
    monkeypatch.setattr(environment, "_limited", False)  # as where a scheduler has set it
    environment.prepare(RunSettings(), asks_hub=False)
    assert environment.environment()["CUDA_VISIBLE_DEVICES"] == "0"
    words = {"domain": "medical", "profile": "qwen3-8b", "needs.host_memory_gb": "0", "needs.disk_gb": "0"}
    resolved = resolve({**words, "needs.gpu_memory_gb": "22", "out": str(tmp_path)}, REPOSITORY)
    assert missing(resolved) == [
        "8 CUDA GPUs of 22 GiB (here 1)", "a GPU for each of 8 processes (run.processes; here 1)",
    ]  # fmt: skip
    monkeypatch.setattr(ranks, "size", lambda: 8)  # each of them sees its own
    assert missing(resolved) == []


def test_a_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    words = {"domain": "medical", "out": str(tmp_path), **QUICK, "needs.host_memory_gb": "99999"}
    with pytest.raises(ConfigError) as caught:
        execute(resolve(words, REPOSITORY), Console("quiet"))
    said = str(caught.value)
    assert said.startswith("profile=tiny needs 99999 GiB of main memory (here ")
    assert "replace what the profile asks for" in said
    assert not (tmp_path / "artifacts").exists()


def test_a_plan_tells_what_is_missing_and_which_profiles_run_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["plan", "domain=medical", "profile=qwen3-8b", f"out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "It cannot run here: profile=qwen3-8b needs 8 CUDA GPUs of 38 GiB (here none)" in shown
    told = shown.split("Profiles that run here: ")[1].split(". ")[0].split(", ")
    assert "tiny" in told
    assert not {"qwen3-0.6b", "qwen3-8b", "qwen2.5-72b"} & set(told)
    assert main(["plan", "domain=medical", f"out={tmp_path}"]) == 0
    assert "cannot run here" not in capsys.readouterr().out
    assert main(["plan", "domain=medical", "run.device=cuda", f"out={tmp_path}"]) == 0
    assert "It cannot run here: profile=tiny needs a CUDA GPU (run.device=cuda; here none)" in capsys.readouterr().out


def config(**words: str) -> Config:
    return resolve({"domain": "medical", **words}, REPOSITORY).config


def test_a_folder_for_results_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve({"domain": "medical", "out": str(tmp_path / "new" / "store")}, REPOSITORY)
    check_out(resolved)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=rf"^out=.*: {tmp_path} cannot be written\. Give another folder, or make"):
        check_out(resolved)
