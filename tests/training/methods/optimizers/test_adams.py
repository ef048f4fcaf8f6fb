"""AdamS against its equations in numpy and float64, with patterns that change, and what a stage must have for it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import method_of
from common.config.pruning import PruneSettings
from common.config.stages import CptSettings
from common.errors import ConfigError
from common.models.sparsity.masks import scale
from common.training.methods.applied import check_steps
from common.training.methods.optimizers.adams import AdamsSettings, optimizer, problem

BETAS, EPS, STEPS = (0.9, 0.95), 1e-8, 24


def model_of() -> Any:
    """Return a scaled layer, and one beside it with a bias, in float64."""
    torch.manual_seed(0)
    made = torch.nn.Sequential()
    made.add_module("pruned", torch.nn.Linear(8, 6, bias=False))
    made.add_module("other", torch.nn.Linear(6, 4))
    scale(made, ("pruned",), 2)
    return made.double()


def made_for(model: Any, own: AdamsSettings, decay: float = 0.0, steps: int = STEPS) -> Any:
    """Return the optimizer as a trainer gets it: biases without weight decay."""
    named = dict(model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named.items() if "bias" not in name], "weight_decay": decay},
        {"params": [weight for name, weight in named.items() if "bias" in name], "weight_decay": 0.0},
    ]
    return optimizer(torch.optim.AdamW(groups, lr=1e-3, betas=BETAS, eps=EPS, fused=True), model, own, steps)


def gradient_at(step: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([step, len(name)]).standard_normal(shape) * 1e-2


def rate_at(step: int) -> float:
    return 0.05 * (1 - (step - 1) / STEPS)


def kept(weight: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.abs(weight.reshape(weight.shape[0], -1, 4)), axis=-1, kind="stable")
    found = np.zeros_like(order, dtype=bool)
    np.put_along_axis(found, order[..., :2], True, axis=-1)
    return found.reshape(weight.shape)


def by_equations(weights: dict[str, np.ndarray], own: AdamsSettings, decay: float = 0.0) -> dict[str, np.ndarray]:
    """Take all steps as the paper writes them."""
    weights = {name: weight.copy() for name, weight in weights.items()}
    means = {name: np.zeros_like(weight) for name, weight in weights.items()}
    squares, masks = copy.deepcopy(means), {}
    for t in range(1, STEPS + 1):
        for name, weight in weights.items():
            means[name] = BETAS[0] * means[name] + (1 - BETAS[0]) * gradient_at(t, name, weight.shape)
            moved = means[name]
            if name == "pruned.weight":
                if (t - 1) % own.every == 0:
                    masks[name] = kept(weight)
                alpha = t / STEPS
                fading = (1 - alpha) * means[name] + alpha * own.decay * np.sign(weight)
                moved = np.where(masks[name], means[name], fading)
            squares[name] = BETAS[1] * squares[name] + (1 - BETAS[1]) * moved**2
            if decay and "bias" not in name and "scale" not in name:
                weight = weight * (1 - rate_at(t) * decay)
            step = moved / (1 - BETAS[0] ** t) / (np.sqrt(squares[name] / (1 - BETAS[1] ** t)) + EPS)
            weights[name] = weight - rate_at(t) * step
    return weights


def train(model: Any, made: Any, first: int = 1, last: int = STEPS) -> None:
    for step in range(first, last + 1):
        for name, weight in model.named_parameters():
            weight.grad = torch.tensor(gradient_at(step, name, tuple(weight.shape)))
        for group in made.param_groups:
            group["lr"] = rate_at(step)
        made.step()


def numbers(model: Any) -> dict[str, np.ndarray]:
    return {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("own", "decay"), [
    (AdamsSettings(decay=1e-3, every=10), 0.0), (AdamsSettings(decay=1e-2, every=1), 0.1),
    (AdamsSettings(decay=1.0, every=100), 0.0),
])  # fmt: skip
def test_weights_are_those_of_the_equations(own: AdamsSettings, decay: float) -> None:
    model = model_of()
    before = numbers(model)
    train(model, made_for(model, own, decay))
    expected = by_equations(before, own, decay)
    for name, weight in numbers(model).items():
        np.testing.assert_allclose(weight, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_patterns_are_drawn_again_every_so_many_steps_and_survive_a_checkpoint() -> None:
    own = AdamsSettings(decay=1e-2, every=10)
    whole, halves = model_of(), model_of()
    train(whole, made_for(whole, own))
    first = made_for(halves, own)
    train(halves, first, last=13)
    state = first.state_dict()
    (mask,) = [entry["mask"] for entry in state["state"].values() if "mask" in entry]
    assert mask.dtype == torch.bool
    again = made_for(halves, own)
    again.load_state_dict(copy.deepcopy(state))
    train(halves, again, first=14)
    for name, weight in numbers(halves).items():
        np.testing.assert_array_equal(weight, numbers(whole)[name], err_msg=name)


def test_what_decays_comes_to_zero_as_the_rate_falls() -> None:
    """With gradients that are noise, weights outside of the pattern end within the last rates of zero."""
    model = model_of()
    train(model, made_for(model, AdamsSettings(decay=1.0, every=1)))
    weight = model.pruned.weight.detach().numpy()
    assert np.abs(weight[~kept(weight)]).max() < 3 * rate_at(STEPS - 3)
    assert np.abs(weight[kept(weight)]).mean() > 0.1


def test_scales_have_no_weight_decay_and_only_pruned_weights_a_pattern() -> None:
    model = model_of()
    groups = made_for(model, AdamsSettings(), decay=0.1).param_groups
    named = {id(weight): name for name, weight in model.named_parameters()}
    found = {
        named[id(weight)]: (group["masked"], group["weight_decay"]) for group in groups for weight in group["params"]
    }
    assert found == {
        "pruned.weight": (True, 0.1), "pruned.scale": (False, 0.0), "other.weight": (False, 0.1),
        "other.bias": (False, 0.0),
    }  # fmt: skip
    assert all((group["betas"], group["eps"], group["lr"]) == (BETAS, EPS, 1e-3) for group in groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, ""),
        ({"schedule": {"kind": "wsd"}}, ""),
        ({"schedule": {"kind": "constant"}}, r"the rate ends at 1 of its peak, .* schedule\.kind=cosine with schedule"),
        ({"schedule": {"floor": 0.6}}, r"the rate ends at 0\.6 of its peak"),
        ({"methods": {"infinite": {"anneal": 0, "constant": 0.9}}}, ""),  # which is said where steps are known
        ({"train": {"optim": "adamw_torch"}}, ""),
        ({"train": {"optim": "adamw_bnb_8bit"}}, r"it is the optimizer itself, and train\.optim is adamw_bnb_8bit"),
    ],
)
def test_a_stage_without_what_it_needs_is_refused(settings: dict[str, Any], message: str) -> None:
    import re

    found = problem(AdamsSettings(), PruneSettings.model_validate({"tokens": 4096, **settings}))
    assert re.match(message, found) if message else not found
    assert problem(AdamsSettings(), CptSettings(tokens=4096)).startswith("it is for stages of kind prune")
    assert method_of("adams").paper


IN_STEPS = {"warmup": 100, "cooldown": 4000, "anneal": 1000, "constant": 0.9}


@pytest.mark.parametrize(
    ("methods", "steps", "message"),
    [
        ({"infinite": {}}, 1000, ""),
        ({"infinite": IN_STEPS}, 10_000, ""),
        (
            {"infinite": {**IN_STEPS, "denominator": "paper_eq1"}},
            50_000,
            r"prune\.methods\.adams: the rate ends at 0\.82",
        ),
        ({"infinite": IN_STEPS}, 5099, r"prune\.methods\.infinite: warmup 100 \+ cooldown 4,000"),
        (
            {"infinite": {"anneal": 0, "constant": 0.9}},
            1000,
            r"prune\.methods\.adams: the rate ends at 0\.9 of its peak",
        ),
        ({"rewarm": {"peak": 1e-3, "floor": 0.6}}, 1000, r"prune\.methods\.adams: the rate ends at 0\.6"),
        ({"rewarm": {"peak": 1e-3}}, 1000, ""),
        ({}, 1000, ""),
    ],
)
def test_a_schedule_falls_within_the_steps_that_there_are(methods: dict[str, Any], steps: int, message: str) -> None:
    stage = PruneSettings.model_validate({"tokens": 4096, "methods": methods})
    if not message:
        check_steps("prune", stage, steps)
        return
    with pytest.raises(ConfigError, match=message):
        check_steps("prune", stage, steps)
