"""kill -9 at any moment, then the same command: the same final weights, nothing half-made trusted."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli.main import main
from common.config.resolve import resolve
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.run import run_stage
from tests.conftest import QUICK, REPOSITORY, linked

pytestmark = pytest.mark.slow

# Enough steps for several checkpoints.
WORDS = {**QUICK, "domain": "medical", "cpt.tokens": "32768", "cpt.batch_tokens": "512"}
OFTEN = 0.003  # minutes between checkpoints


@pytest.fixture(scope="module")
def with_base(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a frozen plan and a finished base."""
    root, made = tmp_path_factory.mktemp("base"), linked(finished, "base")
    assert made is not None
    shutil.copytree(made.path, root / "artifacts" / made.path.name)
    resolved = resolve({**WORDS, "out": str(root)}, REPOSITORY)
    freeze(resolved)
    run_stage(resolved, "base", Console("quiet"))  # which is found
    return root


def start(root: Path) -> subprocess.Popen[str]:
    plan = root / "runs" / "medical" / "tiny" / "demonstration" / "plan.json"
    words = [str(plan), "cpt", f"run.checkpoint_minutes={OFTEN}", "run.verbosity=normal"]
    return subprocess.Popen(
        [sys.executable, "-m", "common", "stage", *words],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(root: Path) -> str:
    """Make the stage in this process, which has the libraries already; return what was said."""
    resolved = resolve({**WORDS, "out": str(root), "run.checkpoint_minutes": str(OFTEN)}, REPOSITORY)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run_stage(resolved, "cpt", Console("normal"))
    return said.getvalue()


def kill_when(root: Path, moment: Callable[[Path], bool], number: signal.Signals = signal.SIGKILL) -> str:
    process = start(root)
    deadline = time.monotonic() + 900
    while not moment(root) and process.poll() is None:
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.0005)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, number)
    return process.communicate(timeout=60)[0]


def scratch(root: Path) -> Path:
    return root / "artifacts" / ".work"


def in_the_middle_of_training(root: Path) -> bool:
    return len(list(scratch(root).glob("cpt-*/trainer/checkpoint-*/done.json"))) >= 2


def while_a_checkpoint_is_written(root: Path) -> bool:
    folders = list(scratch(root).glob("cpt-*/trainer/checkpoint-*"))
    return len(folders) >= 2 and any(f.exists() and not (f / "done.json").exists() for f in folders)


def while_the_result_is_saved(root: Path) -> bool:
    return any(scratch(root).glob("cpt-*/out/config.json"))


def digest(root: Path) -> str:
    artifact = linked(root, "cpt")
    assert artifact is not None
    return artifact.digest


@pytest.fixture(scope="module")
def uninterrupted(with_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("whole") / "store"
    shutil.copytree(with_base, root, symlinks=True)
    finish(root)
    return digest(root)


@pytest.mark.parametrize(
    "moment",
    [
        in_the_middle_of_training,
        pytest.param(while_a_checkpoint_is_written, marks=pytest.mark.long),
        pytest.param(while_the_result_is_saved, marks=pytest.mark.long),
    ],
)
def test_a_killed_stage_ends_with_the_same_weights(
    with_base: Path, tmp_path: Path, uninterrupted: str, moment: Callable[[Path], bool]
) -> None:
    root = tmp_path / "store"
    shutil.copytree(with_base, root, symlinks=True)
    kill_when(root, moment)
    assert not list((root / "artifacts").glob("cpt-*"))
    assert "cpt: resuming at step" in finish(root)
    assert digest(root) == uninterrupted
    assert finish(root) == ""  # a third time does nothing


def test_a_stop_says_how_to_continue_and_keeps_what_is_done(
    with_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    shutil.copytree(with_base, root, symlinks=True)
    output = kill_when(root, in_the_middle_of_training, signal.SIGINT)
    assert "Stopped. Finished stages are kept. The same command continues where this one stopped." in output
    assert "Traceback" not in output
    assert re.search(r"cpt: saved at step \d+ of 64", output)
    assert list((root / "artifacts").glob("base-*"))
    resolved = resolve({**WORDS, "out": str(root)}, REPOSITORY)
    step = next(step for step in make_plan(resolved).steps if step.node.name == "cpt")
    assert re.fullmatch(r"was stopped, will continue at step \d+ of 64", step.reasons[0])
    assert main(["status", f"out={root}"]) == 0
    assert re.search(r"medical +tiny +demonstration +not finished: 1 of \d+ stages made", capsys.readouterr().out)
    (next(scratch(root).glob("cpt-*")) / "code").write_text("other", encoding="utf-8")
    anew = next(step for step in make_plan(resolved).steps if step.node.name == "cpt")
    assert anew.reasons == ("was stopped, and its code has changed since: starts over",)
    assert step.seconds is not None
    assert anew.seconds is not None
    assert step.seconds < anew.seconds
    shutil.rmtree(scratch(root))
    assert next(step.reasons for step in make_plan(resolved).steps if step.node.name == "cpt") == ("not made yet",)
