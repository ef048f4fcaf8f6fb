"""A signal may come twice, processes may be late, and a checkpoint is read as it was written."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.base import GuardSettings
from common.config.schema import RunSettings
from common.errors import ConfigError
from common.system.signals import Preempted
from common.training.loop.progress import newest_whole
from common.training.loop.stopping import catch_signals
from common.training.loop.trainer import TrainingLoop, _stopped_first


def test_a_signal_that_comes_again_stops_nothing_at_once() -> None:
    with catch_signals() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert stop.signum == signal.SIGUSR1
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGINT)


def checkpoint(folder: Path, step: int, form: str) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"12")
    done = {"files": {"weights": 2}, "seconds": 3.0, "form": form}
    (path / "done.json").write_text(json.dumps(done), encoding="utf-8")


def test_the_newest_whole_checkpoint_is_found_and_what_is_newer_goes(tmp_path: Path) -> None:
    for step in (2, 10, 30):
        checkpoint(tmp_path, step, "whole in each process")
    (tmp_path / "checkpoint-40").mkdir()  # unfinished: not marked
    assert newest_whole(tmp_path, at_most=20) == (tmp_path / "checkpoint-10", 3.0, "whole in each process")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_a_checkpoint_of_shards_is_not_read_whole(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(
        work=tmp_path, stage="cpt", settings=SimpleNamespace(guard=GuardSettings()),
        config=SimpleNamespace(run=RunSettings()),
    )  # fmt: skip
    checkpoint(tmp_path / "trainer", 7, "sharded by fsdp2")
    loop = TrainingLoop(context, 512)
    with pytest.raises(
        ConfigError, match="Stage cpt has a trainer checkpoint with its model sharded by fsdp2, which cannot"
    ):
        loop._newest()
    assert (tmp_path / "trainer" / "checkpoint-7").is_dir()


def test_a_stop_comes_before_what_it_has_broken() -> None:
    """torch's compilers are processes too, and an interrupt ends them."""
    with catch_signals() as stop:
        with pytest.raises(ConfigError, match="cannot compile"), _stopped_first(stop):
            raise ConfigError("torch cannot compile")
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Preempted), _stopped_first(stop):
            raise ConfigError("torch cannot compile")
