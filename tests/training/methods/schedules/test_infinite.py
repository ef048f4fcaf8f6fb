"""The infinite schedule against its equations in float64, at the borders of its phases, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.training.methods.schedules.infinite import InfiniteSettings, misfit, multiplier, phases, problem


def reference(
    steps: int, warmup: int, cooldown: int, anneal: int, constant: float, floor: float, divisor: int
) -> np.ndarray:
    """Return (steps,) shares of the peak, phase by phase, as the paper writes them."""
    n = np.arange(steps, dtype=np.float64)
    end = steps - anneal
    rising = n[:warmup] / max(1, warmup)
    cooling = constant + (1 - constant) / 2 * (1 + np.cos(np.pi * np.arange(cooldown) / max(1, cooldown)))
    flat = np.full(max(0, end - warmup - cooldown), constant)
    falling = constant * (floor / constant) ** (np.arange(anneal) / max(1, divisor))
    return np.concatenate([rising, cooling, flat, falling])


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("cooldown", [0, 30])
@pytest.mark.parametrize("anneal", [0, 20])
@pytest.mark.parametrize("denominator", ["anneal_steps", "paper_eq1"])
def test_it_is_the_papers_equation_in_every_phase(warmup: int, cooldown: int, anneal: int, denominator: str) -> None:
    steps, constant, floor = 100, 0.4, 0.01
    given = {"warmup": warmup, "cooldown": cooldown, "anneal": anneal, "constant": constant, "floor": floor}
    settings = InfiniteSettings.model_validate({**given, "denominator": denominator})
    divisor = anneal if denominator == "anneal_steps" else anneal + steps - anneal
    expected = reference(steps, warmup, cooldown, anneal, constant, floor, divisor)
    found = [multiplier(step, steps, settings) for step in range(steps)]
    assert found == pytest.approx(expected.tolist(), rel=1e-12, abs=1e-15)


def test_only_with_its_own_steps_as_denominator_the_floor_is_reached() -> None:
    own = InfiniteSettings(warmup=0, cooldown=0, anneal=20, constant=0.4, floor=0.01)
    assert multiplier(100, 100, own) == pytest.approx(0.01)
    other = own.model_copy(update={"denominator": "paper_eq1"})
    assert multiplier(100, 100, other) == pytest.approx(0.4 * (0.01 / 0.4) ** 0.2)


def test_lengths_below_one_are_shares_and_phases_meet() -> None:
    settings = InfiniteSettings(warmup=0.05, cooldown=0.25, anneal=0.1)
    assert phases(1000, settings) == (50, 250, 100)
    at = [multiplier(step, 1000, settings) for step in (0, 49, 50, 299, 300, 899, 900)]
    assert at[0] == 0
    assert at[2] == 1  # the peak, once
    assert at[4] == at[5] == at[6] == settings.constant
    assert math.isclose(at[3], settings.constant, rel_tol=1e-3)


def test_phases_that_take_more_steps_than_there_are_do_not_fit() -> None:
    assert misfit(100, InfiniteSettings(warmup=10, cooldown=70, anneal=20)) == ""
    found = misfit(99, InfiniteSettings(warmup=10, cooldown=70, anneal=20))
    assert found.startswith("warmup 10 + cooldown 70 + anneal 20 are 100 steps, and the stage has 99.")
    assert problem(InfiniteSettings(constant=0.1, floor=0.2), None).startswith(
        "floor 0.2 is above the constant rate 0.1"
    )
