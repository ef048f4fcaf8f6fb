"""Scratch that a disk cut short, or that somebody wrote into, is named in a sentence or made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.base import GuardSettings
from common.errors import DataError
from common.training.loop.best import EVALUATIONS, Best
from common.training.loop.loss_guard import FILE, LossSpikeGuard
from common.training.loop.progress import DONE, newest_whole, reached
from common.training.sampling import read_drawn

BROKEN = ('{"cut', "[" * 2000, '[{"a": 1}]', "[1]", '"text"')


@pytest.mark.parametrize("text", BROKEN)
def test_what_a_stage_reads_again_is_checked(text: str, tmp_path: Path) -> None:
    reads: dict[str, Callable[[], object]] = {
        FILE: LossSpikeGuard(GuardSettings(), tmp_path).restore,
        EVALUATIONS: lambda: Best(tmp_path).read(5),
        "drawn.jsonl": lambda: read_drawn(tmp_path / "drawn.jsonl"),
    }
    for name, read in reads.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"{name} is not as the stage wrote it .*the stage starts over"):
            read()


@pytest.mark.parametrize("text", BROKEN)
def test_a_trainer_checkpoint_with_a_broken_record_is_none(text: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / DONE).write_text('{"files": {}, "seconds": 1.0, "form": "whole"}', encoding="utf-8")
    (checkpoint / "trainer_state.json").write_text(text, encoding="utf-8")
    assert reached(tmp_path) == (0, 0)
    (checkpoint / DONE).write_text(text, encoding="utf-8")
    assert newest_whole(tmp_path) == (None, 0.0, "")
    assert not checkpoint.exists()
