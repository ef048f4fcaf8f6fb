"""kill -9 at any moment, then the same command: the same final weights, nothing half-made trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.artifacts import Store
from tests.conftest import QUICK, REPOSITORY

# One model stage with enough steps for several checkpoints; everything else as quick as can be.
WORDS = {
    **QUICK,
    "pipeline": "full",
    "cpt.tokens": "65536",
    "cpt.batch_tokens": "512",
    "run.checkpoint_seconds": "0.3",
    "run.verbosity": "normal",
}


def start(root: Path, **words: str) -> subprocess.Popen[str]:
    arguments = [f"{k}={v}" for k, v in {"domain": "medical", "out": str(root), **WORDS, **words}.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "common", "run", *arguments],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(root: Path) -> str:
    process = start(root)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def kill_when(root: Path, moment: Callable[[Path], bool], number: signal.Signals = signal.SIGKILL) -> str:
    process = start(root)
    deadline = time.monotonic() + 180
    while not moment(root) and process.poll() is None:
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.0005)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, number)
    return process.communicate(timeout=60)[0]


def work(root: Path) -> Path:
    return root / "artifacts" / ".work"


def in_the_middle_of_training(root: Path) -> bool:
    return len(list(work(root).glob("cpt-*/trainer/checkpoint-*/done.json"))) >= 2


def while_a_checkpoint_is_written(root: Path) -> bool:
    folders = list(work(root).glob("cpt-*/trainer/checkpoint-*"))
    return len(folders) >= 2 and any(f.exists() and not (f / "done.json").exists() for f in folders)


def while_the_result_is_saved(root: Path) -> bool:
    return any(work(root).glob("cpt-*/out/config.json"))


def digest(root: Path) -> str:
    artifact = Store(root).linked("medical", "tiny", "merge")
    assert artifact is not None
    return artifact.digest


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("whole")
    finish(root)
    return digest(root)


@pytest.mark.parametrize(
    "moment", [in_the_middle_of_training, while_a_checkpoint_is_written, while_the_result_is_saved]
)
def test_a_killed_run_ends_with_the_same_weights(
    tmp_path: Path, uninterrupted: str, moment: Callable[[Path], bool]
) -> None:
    kill_when(tmp_path, moment)
    assert not list((tmp_path / "artifacts").glob("cpt-*"))
    output = finish(tmp_path)
    assert "cpt: resuming at step" in output
    assert digest(tmp_path) == uninterrupted


def test_a_stop_says_how_to_continue_and_keeps_what_is_done(tmp_path: Path) -> None:
    output = kill_when(tmp_path, in_the_middle_of_training, signal.SIGINT)
    assert "Stopped. Finished stages are kept; the same command continues where this one stopped." in output
    assert "Traceback" not in output
    assert list((tmp_path / "artifacts").glob("base-*"))
