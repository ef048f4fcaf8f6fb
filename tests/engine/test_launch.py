"""Processes that torchrun started are set up as those of `accelerate launch`, and none outlives its launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.config.schema import RunSettings
from common.console import Console
from common.engine import launch
from common.engine.launch import SET_BY_ACCELERATE, configure
from common.errors import ConfigError
from common.training.loop.stopping import Preempted
from tests.conftest import REPOSITORY


@pytest.fixture
def by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "FSDP_"))}
    monkeypatch.setattr(os, "environ", {**before, "RANK": "1", "WORLD_SIZE": "4"})


@pytest.mark.usefixtures("by_torchrun")
def test_shards_are_those_of_the_file() -> None:
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert os.environ["FSDP_VERSION"] == "2"
    assert os.environ["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    assert os.environ["RANK"] == "1"


@pytest.mark.usefixtures("by_torchrun")
def test_whole_models_need_no_more() -> None:
    configure(REPOSITORY, RunSettings(processes=4))
    assert SET_BY_ACCELERATE in os.environ
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.usefixtures("by_torchrun")
def test_what_a_launcher_has_set_stays_and_deepspeed_needs_it() -> None:
    with pytest.raises(ConfigError, match=r"zero3: start the processes with `accelerate launch --config_file .+zero3"):
        configure(REPOSITORY, RunSettings(processes=4, parallelism="zero3"))
    os.environ[SET_BY_ACCELERATE] = "no"
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert "ACCELERATE_USE_FSDP" not in os.environ


def test_a_second_interrupt_kills_the_processes_and_not_their_launcher_alone(tmp_path: Path) -> None:
    """As torchrun does it: every process has a session of its own, which outlives a launcher that is killed."""
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    sleeping = [sys.executable, "-c", deaf]
    launcher, process = (subprocess.Popen(sleeping, start_new_session=True) for _ in range(2))
    (tmp_path / "0.pid").write_text(str(process.pid), encoding="utf-8")

    def interrupt() -> None:
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=interrupt)
    asking.start()
    with pytest.raises(Preempted):
        launch._watch(launcher, tmp_path, RunSettings(processes=2), Console("quiet"))
    asking.join()
    assert process.wait(10) == -signal.SIGKILL


def test_what_the_first_process_logs_is_shown_where_that_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "0.log"
    writing = "import sys, time; open(sys.argv[1], 'w').write('attention varlen'); time.sleep(1)"
    launcher = subprocess.Popen([sys.executable, "-c", writing, str(log)], start_new_session=True)
    assert launch._watch(launcher, tmp_path, RunSettings(processes=2), Console("verbose")) == 0
    assert "attention varlen" in capfd.readouterr().err
