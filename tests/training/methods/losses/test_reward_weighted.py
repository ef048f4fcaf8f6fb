"""Reward-weighted regression against its definition in float64: weights, their limit, and documents without a score."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from common.config.resolve import resolve
from common.errors import ConfigError
from common.training.methods.losses.reward_weighted import HIGHEST, RewardWeightedSettings, term, weight
from tests.conftest import REPOSITORY
from tests.training.methods.losses.test_self_distillation import softmax
from tests.training.methods.losses.test_unlikelihood import batch


@pytest.mark.parametrize(("better", "beta"), [("lower", 10.0), ("lower", 0.3), ("higher", 0.3)])
def test_it_is_the_definition(better: Literal["lower", "higher"], beta: float) -> None:
    given = batch()
    probabilities = softmax(given.logits_BTV.detach().double().numpy())
    scores, following = given.scores["bad"].double().numpy(), given.next_BT.numpy()
    total, weights, gradient = 0.0, 0.0, np.zeros_like(probabilities)
    for place in np.ndindex(following.shape):
        if following[place] == -100:
            continue
        reward = scores[place] if better == "higher" else -scores[place]
        w = 1.0 if np.isnan(reward) else min(np.exp(reward / beta), 1000)
        total -= w * np.log(probabilities[place][following[place]])
        weights += w
        gradient[place] = w * (probabilities[place] - np.eye(7)[following[place]])
    found, measured = term(given, RewardWeightedSettings(by="bad", better=better, beta=beta))
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)
    assert float(measured["weight"]) == pytest.approx(weights, rel=1e-6)
    found.backward()
    np.testing.assert_allclose(given.logits_BTV.grad.numpy(), gradient, atol=1e-5, rtol=1e-5)


def test_weights_end_at_a_thousand_and_at_nothing() -> None:
    scores = torch.tensor([-1e9, 1e9, -6.9, float("nan"), 0.0])
    found = weight(scores, RewardWeightedSettings(by="bad", beta=1.0))
    assert found.tolist() == pytest.approx([HIGHEST, 0.0, np.exp(6.9), 1.0, 1.0], rel=1e-5)


def test_it_is_not_together_with_unlikelihood() -> None:
    with pytest.raises(ConfigError, match=r"cpt\.methods: \w+ and \w+ cannot be on together; keep one\."):
        resolve({"domain": "medical", "cpt.methods": "[unlikelihood, reward_weighted]"}, REPOSITORY)
