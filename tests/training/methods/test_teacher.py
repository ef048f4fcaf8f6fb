"""A teacher that reads all rows before the first step, in real trainings: as beside, killed, and by two processes."""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.training.methods import teacher
from common.training.rows.taught import TopKStore
from tests.conftest import REPOSITORY
from tests.training.methods.conftest import Train, log, weights

pytestmark = pytest.mark.slow

KEY = "cpt.methods.self_distillation.top_k"


@pytest.mark.parametrize("method", ["self_distillation", pytest.param("logit_swap", marks=pytest.mark.long)])
def test_with_all_tokens_it_learns_what_it_does_beside_the_teacher(method: str, train: Train, based: Path) -> None:
    beside = log(train(**{"cpt.methods": method, "cpt.tokens": 4096}))
    made = train(**{f"cpt.methods.{method}.top_k": vocabulary_of(based), "cpt.tokens": 4096})
    for one, other in zip(beside, log(made), strict=True):
        for name in ("loss", "next_token_loss", f"{method}/kl", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=2e-5), name
    assert log(made)[-1][f"{method}/kl"] > 0
    assert made.manifest["metrics"]["methods"][method]["settings"]["top_k"] == vocabulary_of(based)


def vocabulary_of(based: Path) -> int:
    found = next((based / "artifacts").glob("base*/config.json"))
    return int(json.loads(found.read_text(encoding="utf-8"))["vocab_size"])


def test_a_run_that_is_killed_while_it_reads_and_while_it_trains_goes_on_to_the_same_weights(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    words: dict[str, Any] = {KEY: 8, "cpt.tokens": 4096}
    expected = train(**words)
    shutil.move(expected.path, tmp_path / "expected")
    expected = replace(expected, path=tmp_path / "expected")
    write, step = TopKStore.write, Trainer.training_step
    written: list[int] = []
    taken: list[int] = []
    loaded: list[weakref.ref[Any]] = []

    def stopped(self: TopKStore, number: int, rows: Any) -> None:
        if len(written) == 3:
            written.append(-1)
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, rows)

    def broken(self: Any, *args: Any, **options: Any) -> Any:
        taken.append(1)
        assert loaded[-1]() is None  # a teacher that has read is gone
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    def counted(*given: Any) -> Any:
        found = load(*given)
        loaded.append(weakref.ref(found))
        return found

    load = teacher.teacher_of
    monkeypatch.setattr(TopKStore, "write", stopped)
    monkeypatch.setattr(Trainer, "training_step", broken)
    monkeypatch.setattr(teacher, "teacher_of", counted)
    words["run.checkpoint_minutes"] = "0.00001"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(**words)
    made = train(**words)
    assert written[:5] == [0, 1, 2, -1, 3]  # each shard once
    assert sorted(written) == [-1, *range(len(written) - 1)]
    assert len(loaded) == 2  # and not again for a training that goes on
    assert weights(made) == weights(expected)
    assert [record["loss"] for record in log(made)] == [record["loss"] for record in log(expected)]


@pytest.mark.long
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_two_processes_share_the_reading_and_make_what_one_makes(
    parallelism: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "end_to_end" / "fsdp_on_cpu"))
    alone = train(**{KEY: 8, "cpt.tokens": 4096})
    shutil.move(alone.path, tmp_path / "alone")
    alone = replace(alone, path=tmp_path / "alone")
    shared = train(**{KEY: 8, "cpt.tokens": 4096, "run.processes": 2, "run.parallelism": parallelism})
    assert shared.fingerprint == alone.fingerprint
    assert shared.manifest["processes"] == 2
    for one, other in zip(log(alone), log(shared), strict=True):
        for name in ("loss", "next_token_loss", "self_distillation/kl"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-4), name
