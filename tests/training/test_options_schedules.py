"""Learning rates over the steps, as transformers' own schedulers give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.base import Schedule
from common.training.options import schedule_options

STEPS, PEAK = 100, 1.0


def rates(schedule: Schedule, tmp_path: Path) -> list[float]:
    """Return the learning rate of every step, from transformers' own scheduler."""
    import torch
    from transformers import TrainingArguments, get_scheduler

    options = schedule_options(schedule, STEPS)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, num_warmup_steps=int(arguments.warmup_steps),
        num_training_steps=STEPS, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )  # fmt: skip
    found = []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_warms_up_again_and_ends_at_its_floor(tmp_path: Path) -> None:
    found = rates(Schedule(kind="cosine", warmup=0.1, floor=0.1), tmp_path)
    assert found[0] == 0.0
    assert max(found) == found[10] == PEAK
    assert found[-1] == pytest.approx(0.1, abs=0.01)
    assert found[55] == pytest.approx(0.55, abs=0.02)


def test_wsd_holds_the_peak_and_decays_at_the_end(tmp_path: Path) -> None:
    found = rates(Schedule(kind="wsd", warmup=0.1, decay=0.2, floor=0.05), tmp_path)
    assert found[10:81] == [PEAK] * 71
    assert found[-1] < 0.2
    assert sorted(found[80:], reverse=True) == found[80:]


def test_constant_stays(tmp_path: Path) -> None:
    assert rates(Schedule(kind="constant", warmup=0.0), tmp_path) == [PEAK] * STEPS


def test_linear_is_that_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = get_linear_schedule_with_warmup(optimizer, 10, STEPS).lr_lambdas[0]
    found = rates(Schedule(kind="linear", warmup=0.1, floor=0.0), tmp_path)
    assert found == pytest.approx([theirs(step) for step in range(STEPS)])
    assert rates(Schedule(kind="linear", warmup=0.1, floor=0.1), tmp_path)[-1] == pytest.approx(0.11)


def test_cosine_without_a_floor_is_that_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = get_cosine_schedule_with_warmup(optimizer, 10, STEPS).lr_lambdas[0]
    found = rates(Schedule(kind="cosine", warmup=0.1, floor=0.0), tmp_path)
    assert found == pytest.approx([theirs(step) for step in range(STEPS)])


@pytest.mark.parametrize("kind", ["cosine", "wsd", "constant", "linear"])
def test_a_warm_up_may_be_a_number_of_steps(kind: str, tmp_path: Path) -> None:
    found = rates(Schedule.model_validate({"kind": kind, "warmup": 25, "decay": 0.9}), tmp_path)
    assert found.index(PEAK) == 25
    assert schedule_options(Schedule(warmup=500), STEPS)["warmup_steps"] == STEPS


def test_a_warm_up_is_a_share_or_a_number_of_steps() -> None:
    with pytest.raises(ValueError, match=r"warmup 1\.5 is neither a share of the steps nor a number of steps"):
        Schedule(warmup=1.5)
