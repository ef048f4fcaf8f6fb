"""Around a step: rates come back after it, what is measured at the last one is logged, and results read the log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.methods import MethodSettings, OptimizerMethod, Step
from common.training.methods.applied import Applied


def halve(step: Step, own: MethodSettings, state: dict[str, Any]) -> None:
    for group in step.optimizer.param_groups:
        group["lr"] *= 0.5


HALVED = OptimizerMethod(
    name="halved", settings=MethodSettings, phrase="x", paper="ours", apart=True, before_step=halve,
    after_step=lambda step, own, state: {"step": step.number} if step.number == step.of else None,
)  # fmt: skip


def started(steps: int) -> tuple[Applied, Any, Any, Any]:
    """Return methods that have started, the optimizer, and what calls their events."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    applied = Applied([(HALVED, MethodSettings())])
    callback = applied.callback(SimpleNamespace(model=model, optimizer=optimizer))
    state, control = SimpleNamespace(global_step=0, max_steps=steps), SimpleNamespace(should_log=False)

    def call(event: str) -> None:
        getattr(callback, event)(SimpleNamespace(output_dir=""), state, control)

    call("on_train_begin")
    return applied, optimizer, (state, control), call


def test_rates_of_a_step_do_not_reach_the_next_one_where_float16_passes_it_over() -> None:
    """The schedule does not step then, so that a rate which stayed changed would be changed once more."""
    _, optimizer, _, call = started(steps=2)
    for _ in range(3):
        call("on_pre_optimizer_step")
        assert [group["lr"] for group in optimizer.param_groups] == [0.4]
        call("on_optimizer_step")
        assert [group["lr"] for group in optimizer.param_groups] == [0.8]


@pytest.mark.parametrize(("step", "steps", "logged"), [(3, 4, False), (4, 4, True), (2, 4, False)])
def test_what_is_measured_at_the_last_step_is_logged(step: int, steps: int, logged: bool) -> None:
    _, _, (state, control), call = started(steps)
    state.global_step = step
    call("on_step_end")
    assert control.should_log is logged


def test_results_read_the_log_of_all_attempts() -> None:
    """A killed training knows of the steps before by its log alone."""
    applied, _, _, _ = started(steps=9)
    log: list[dict[str, float]] = [
        {"step": 3, "halved/step": 3, "halved/early": 0.12345678},
        {"step": 6, "halved/step": 6.0},
        {"step": 9},
    ]
    assert applied.measured({}, log)["methods"]["halved"]["measured"] == {"step": 6, "early": 0.123457}
