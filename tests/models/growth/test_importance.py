"""The importance of layers against losses of a forward pass in numpy that leaves a layer out."""

from __future__ import annotations

import numpy as np
import torch

from common.models.growth.importance import layer_importance, least_important, mean_loss
from tests.models.growth.small import IDS, logits, small, weights_of


def loss(weights: dict[str, np.ndarray], config: object) -> float:
    """Return the mean loss of the next token, in float64."""
    scores = logits(weights, config)[:-1]
    scores = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    return float(-scores[np.arange(len(IDS) - 1), IDS[1:]].mean())


def without(weights: dict[str, np.ndarray], place: int, layers: int) -> dict[str, np.ndarray]:
    """Return the weights of a model that lacks one layer."""
    kept = [layer for layer in range(layers) if layer != place]
    made = {name: weight for name, weight in weights.items() if ".layers." not in name}
    for new, old in enumerate(kept):
        prefix = f"model.layers.{old}."
        made |= {name.replace(prefix, f"model.layers.{new}."): w for name, w in weights.items() if prefix in name}
    return made


def test_it_is_the_loss_that_is_added_without_a_layer() -> None:
    model = small("llama")
    ids = torch.tensor([IDS])
    found = layer_importance(model, [(ids, ids)])
    weights, whole = weights_of(model), loss(weights_of(model), model.config)
    model.config.num_hidden_layers = 3
    expected = [loss(without(weights, place, 4), model.config) - whole for place in range(4)]
    assert np.abs(np.array(found) - expected).max() < 1e-4
    assert np.ptp(expected) > 0.01


def test_tokens_count_alike_and_padding_does_not() -> None:
    model = small("llama")
    first, second = torch.tensor([IDS]), torch.tensor([IDS[::-1][:3]])
    apart = mean_loss(model, [(first, first), (second, second)])
    padded = torch.tensor([IDS, [*IDS[::-1][:3], 0, 0, 0, 0, 0]])
    labels = torch.tensor([IDS, [*IDS[::-1][:3], -100, -100, -100, -100, -100]])
    assert abs(mean_loss(model, [(padded, labels)]) - apart) < 1e-5
    assert abs(apart - (mean_loss(model, [(first, first)]) * 7 + mean_loss(model, [(second, second)]) * 2) / 9) < 1e-5


def test_the_least_important_layers_are_chosen_and_ties_go_to_the_lower() -> None:
    assert least_important([0.5, 0.1, 0.3, 0.1], 2) == [1, 3]
    assert least_important([0.1, 0.1, 0.1], 2) == [0, 1]
    assert least_important([0.3, -0.2, 0.1], 1) == [1]
    assert least_important([], 0) == []
