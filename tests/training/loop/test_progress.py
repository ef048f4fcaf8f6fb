"""A trainer checkpoint counts once all of it is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.training.loop.progress import DONE, finish, newest_whole


def test_a_checkpoint_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    force = os.fsync

    def note(descriptor: int) -> None:
        force(descriptor)
        forced.append(os.fstat(descriptor).st_ino)

    for step in (4, 8):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "shards").mkdir(parents=True)
        for name in ("model.safetensors", "shards/0.bin"):
            (folder / name).write_bytes(b"weights")
        monkeypatch.setattr(os, "fsync", note)
        finish(folder, 1.5, "whole")
        marks = [path.stat().st_ino for path in folder.rglob("*") if path.is_file() and path.name != DONE]
        assert set(forced[:2]) == set(marks)
        assert forced[2:] == [(folder / DONE).stat().st_ino]
        forced.clear()
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-8", 1.5, "whole")
    (folder / "shards" / "0.bin").write_bytes(b"")  # as a power cut leaves what was not forced
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-4", 1.5, "whole")
