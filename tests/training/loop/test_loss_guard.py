"""The loss guard: what counts as a spike, which batches are skipped, and that training continues after them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.base import GuardSettings
from common.config.resolve import resolve
from common.config.stages import CptSettings
from common.console import Console
from common.engine.run import run_stage
from common.errors import ContractError
from common.store.artifacts import Store
from common.training.loop.loss_guard import HALVINGS, LossSpikeGuard, without_skipped
from common.training.loop.trainer import TrainingLoop
from tests.conftest import QUICK, REPOSITORY, long


def guarded(folder: Path, losses: list[float], **settings: Any) -> LossSpikeGuard:
    guard = LossSpikeGuard(GuardSettings(**{"window": 8, "patience": 2, "spike": 2.0, **settings}), folder)
    for loss in losses:
        guard.note(loss)
        if guard.problem:
            break
    return guard


def test_a_loss_that_stays_high_trips_it_and_one_that_comes_back_does_not(tmp_path: Path) -> None:
    assert guarded(tmp_path, [1.0] * 8 + [9.0, 1.0, 9.0, 1.0]).problem == ""
    assert guarded(tmp_path, [1.0] * 8 + [9.0, 9.0]).problem == "the loss rose from 1.000 to 9.000 for 2 steps"
    assert guarded(tmp_path, [1.0] * 7 + [9.0, 9.0]).problem == ""  # too few steps to say what is usual
    assert guarded(tmp_path, [1.0] * 8 + [9.0] * 5, spike=None).problem == ""


def test_a_loss_that_differs_by_batch_is_compared_with_the_highest_of_the_window(tmp_path: Path) -> None:
    """As that of `unlikelihood`: many bad documents in a few batches in a row are no spike."""
    losses = [1.0, 1.0, 1.0, 5.0] * 2 + [5.0, 5.0]
    assert guarded(tmp_path, losses).problem.startswith("the loss rose")
    guard = LossSpikeGuard(GuardSettings(window=8, patience=2, spike=2.0), tmp_path)
    guard.usual = max
    for loss in losses:
        guard.note(loss)
    assert guard.problem == ""
    for loss in (11.0, 12.0):
        guard.note(loss)
    assert guard.problem == "the loss rose from 5.000 to 12.000 for 2 steps"


def test_other_text_may_have_another_loss(tmp_path: Path) -> None:
    def trained(steps: int, *, skipped: int = 0, within: float = 0.0) -> str:
        guard = LossSpikeGuard(GuardSettings(window=8, patience=1, spike=2.0), tmp_path, [0.5, 1.0])
        guard.skipped = [(1, skipped)] if skipped else []
        for step in range(1, steps + 1):
            mixed = 1.0 + 8.0 * within if within and step == 21 else 9.0
            guard.note(1.0 if step <= 20 - skipped else mixed)
            guard.forget(step, steps)
        return guard.problem

    assert trained(40) == ""
    assert trained(40, skipped=3) == ""  # the other text begins as much earlier
    assert trained(41, within=0.4) == ""  # at step 20.5, whose batch is of both texts
    assert trained(60).startswith("the loss rose from 1.000 to 9.000")


def test_a_loss_that_is_no_number_trips_it_at_once(tmp_path: Path) -> None:
    for broken in (float("nan"), float("inf")):
        assert guarded(tmp_path, [1.0, broken], spike=None).problem == "the loss became NaN or infinite"


def test_a_gradient_that_is_no_number_trips_it_unless_only_its_scale_was_too_large(tmp_path: Path) -> None:
    for broken in (float("nan"), float("inf")):
        guard = guarded(tmp_path, [1.0])
        guard.note(1.0, broken)
        assert guard.problem == "the gradient became NaN or infinite"
    guard = guarded(tmp_path, [1.0])
    for gradient in [float("inf")] * HALVINGS + [2.0] + [float("inf")] * HALVINGS:
        guard.note(1.0, gradient, scaled=True)
    assert guard.problem == ""
    guard.note(1.0, float("nan"), scaled=True)
    assert guard.problem == "the gradient became NaN or infinite"


def test_skipped_steps_are_remembered_and_the_losses_before_it_are_not(tmp_path: Path) -> None:
    guard = guarded(tmp_path, [1.0] * 8 + [9.0, 9.0])
    guard.skip(5, 10)
    guard.skip(7, 8)
    assert guard.problem == ""
    assert not guard.recent
    again = LossSpikeGuard(GuardSettings(), tmp_path)
    again.restore()
    assert again.skipped == [(5, 10), (7, 8)]


def test_skipped_blocks_do_not_come_again() -> None:
    assert without_skipped(range(6), []) == [0, 1, 2, 3, 4, 5]
    assert without_skipped(range(6), [(3, 4)]) == [0, 1, 4, 5, 0, 1]
    assert without_skipped(range(6), [(3, 4), (3, 3)]) == [0, 1, 5, 0, 1, 0]  # of the order that the first has made


WORDS = {**QUICK, "domain": "medical", "base.tokens": "24576", "run.checkpoint_minutes": "0.00001"}


@pytest.fixture
def broken_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps whose rows give a loss that is no number; each does so once, as a fault of a machine would."""
    steps: list[int] = []
    seen: list[float] = []
    note = LossSpikeGuard.note

    def noting(self: LossSpikeGuard, loss: float, gradient: float = 0.0, *, scaled: bool = False) -> None:
        seen.append(loss)
        broken = bool(steps) and len(seen) == steps[0]
        if broken:
            steps.pop(0)
        note(self, float("nan") if broken else loss, gradient, scaled=scaled)

    monkeypatch.setattr(LossSpikeGuard, "note", noting)
    return steps


@pytest.mark.slow
def test_a_training_goes_on_behind_the_rows_that_broke_it(
    tmp_path: Path, broken_steps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    broken_steps.append(9)
    resolved = resolve({**WORDS, "out": str(tmp_path)}, REPOSITORY)
    artifact = run_stage(resolved, "base", Console("quiet"))
    said = capsys.readouterr().out
    assert "base: the loss became NaN or infinite; rolling back to step 8 and skipping the batches of 2 steps" in said
    assert artifact.manifest["metrics"]["passed_over_steps"] == 2
    log = [json.loads(line) for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]
    assert [record["step"] for record in log] == list(range(1, 25))  # all steps, and none twice


@pytest.mark.slow
@pytest.mark.long
def test_one_that_breaks_again_and_again_stops_the_stage(tmp_path: Path, broken_steps: list[int]) -> None:
    broken_steps.extend([9, 14])
    resolved = resolve({**WORDS, "out": str(tmp_path), "base.guard.times": "1"}, REPOSITORY)
    with pytest.raises(ContractError, match=r"became NaN or infinite \(step \d+\), and 1 spikes were skipped before"):
        run_stage(resolved, "base", Console("quiet"))
    assert not list(Store(tmp_path).artifacts.glob("base-*"))


@pytest.mark.parametrize(
    ("at", "high", "at_most"),
    [
        (10, 0, 7),  # the first loss after step 8 is no number: nor are the weights of that checkpoint
        (12, 0, 10),
        (12, 2, 9),
    ],
)
def test_a_checkpoint_whose_weights_are_broken_is_not_tried_again(
    at: int, high: int, at_most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(line=lambda *_, **__: None)
    context: Any = SimpleNamespace(stage="cpt", work=tmp_path, settings=CptSettings(tokens=512), console=told)
    loop = TrainingLoop(context, 512)
    loop.from_step, loop.guard.problem, loop.guard.high = 8, "the loss became NaN or infinite", high
    loop.folder.mkdir()
    asked: list[int] = []

    def newest(at_most: int) -> tuple[Path, float]:
        asked.append(at_most)
        return Path("checkpoint-5"), 0.0

    monkeypatch.setattr(loop, "_newest", newest)
    trainer: Any = SimpleNamespace(state=SimpleNamespace(global_step=at))
    assert loop._roll_back(trainer).name == "checkpoint-5"
    assert asked == [at_most]


def test_one_that_breaks_before_any_checkpoint_stops_the_stage(tmp_path: Path, broken_steps: list[int]) -> None:
    broken_steps.append(3)
    resolved = resolve({**WORDS, "out": str(tmp_path), "run.checkpoint_minutes": "10"}, REPOSITORY)
    with pytest.raises(
        ContractError, match=r"there is no trainer checkpoint before it. Nothing is saved. Lower base.train"
    ):
        run_stage(resolved, "base", Console("quiet"))


@pytest.mark.parametrize("step", [3, long(24)])
def test_a_gradient_that_breaks_between_two_logs_or_at_the_end_is_not_saved(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of that step is a number: only the next one would not be, and after the last there is none."""
    from transformers import Trainer

    norm, seen = Trainer._get_grad_norm, []

    def broken(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(1)
        return norm(self, *args, **options) * (float("nan") if len(seen) == step else 1.0)

    monkeypatch.setattr(Trainer, "_get_grad_norm", broken)
    words = {**WORDS, "out": str(tmp_path), "run.checkpoint_minutes": "10", "base.train.logging_steps": "10"}
    with pytest.raises(ContractError, match=r"the gradient became NaN or infinite \(step \d+\).*Nothing is saved"):
        run_stage(resolve(words, REPOSITORY), "base", Console("quiet"))
    assert not list(Store(tmp_path).artifacts.glob("base-*"))
