"""The 2:4 pattern and its scales against numpy in float64: what is kept, what a matrix computes, what is left of it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from common.models.sparsity.masks import cut, is_sparse, linears, mask_of, scale, scaled, scaled_weights
from tests.models.growth.small import logits, logits_of, small, weights_of

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def best(four: np.ndarray) -> set[int]:
    """Return the pair of places whose magnitudes are the largest together, by trying all of them."""
    return set(max(combinations(range(4), 2), key=lambda pair: float(np.abs(four[list(pair)]).sum())))


def pattern(weight: np.ndarray) -> np.ndarray:
    rows, columns = weight.shape
    found = np.zeros(weight.shape, dtype=bool)
    for row in range(rows):
        for start in range(0, columns, 4):
            for place in best(weight[row, start : start + 4]):
                found[row, start + place] = True
    return found


def test_the_two_largest_magnitudes_of_four_are_kept() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 12))
    np.testing.assert_array_equal(mask_of(torch.tensor(weight)).numpy(), pattern(weight))
    mask = mask_of(torch.tensor([[1.0, -3.0, 2.0, 0.5, 0.0, 0.0, 0.0, -1e-30]]))
    assert mask[0, :4].tolist() == [False, True, True, False]
    assert mask[0, 4:].sum() == 2
    assert mask[0, 7]
    for equal in (torch.ones(3, 8), torch.zeros(3, 8)):
        assert (mask_of(equal).unflatten(1, (2, 4)).sum(-1) == 2).all()


@pytest.mark.parametrize(
    ("row", "sparse"),
    [
        ([1, 0, 0, 2], True), ([0, 0, 0, 2], True), ([1, 0, 3, 2], False), ([0, 0, 0, 0], False), ([1, 0, 0], False),
        ([0, 0, 1, 1, 1, 1, 0, 0], True), ([0, 1, 1, 1, 0, 0, 0, 1], False),
    ],
)  # fmt: skip
def test_sparse_is_at_most_two_of_four_and_not_nothing(row: list[float], sparse: bool) -> None:
    assert is_sparse(torch.tensor([row], dtype=torch.float32)) is sparse


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_each_row_and_group_of_columns_has_a_scale(groups: int) -> None:
    rng = np.random.default_rng(1)
    weight, scales = rng.standard_normal((4, 12)), rng.standard_normal((4, groups))
    expected = np.array([[weight[r, c] * scales[r, c * groups // 12] for c in range(12)] for r in range(4)])
    np.testing.assert_allclose(scaled(torch.tensor(weight), torch.tensor(scales)).numpy(), expected)


@pytest.mark.parametrize(("family", "sizes"), [("llama", {"attention_bias": True}), ("qwen3", {})])
def test_a_cut_model_is_the_one_of_cut_weights_times_their_scales(family: str, sizes: dict[str, Any]) -> None:
    model = small(family, num_hidden_layers=2, **sizes)
    kinds = {name: type(module) for name, module in model.named_modules()}
    before, plain = logits_of(model), weights_of(model)
    names = scale(model, MODULES, 2)
    assert len(names) == 2 * 7
    assert set(names) == set(scaled_weights(model)) <= set(plain)
    torch.testing.assert_close(logits_of(model), before)  # scales begin at 1
    scales = {}
    for name, module in model.named_modules():
        if f"{name}.weight" in names:
            torch.nn.init.uniform_(module.scale, 0.5, 2.0)
            scales[f"{name}.weight"] = module.scale.detach().double().numpy()
    facts = cut(model)
    expected, lost, all_of_it = dict(plain), 0.0, 0.0
    for name in names:
        whole = plain[name] * np.repeat(scales[name], plain[name].shape[1] // 2, axis=1)
        expected[name] = np.where(pattern(plain[name]), whole, 0.0)
        lost, all_of_it = lost + float(((whole - expected[name]) ** 2).sum()), all_of_it + float((whole**2).sum())
    assert facts["cut"] == pytest.approx(lost / all_of_it, rel=1e-5)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert weights_of(model).keys() == plain.keys()
    for name, weight in weights_of(model).items():
        np.testing.assert_allclose(weight, expected[name], rtol=1e-6)
    np.testing.assert_allclose(logits_of(model).numpy(), logits(expected, model.config), atol=2e-4)
    assert not scaled_weights(model)


def test_other_layers_are_left_alone() -> None:
    model = small("llama", num_hidden_layers=1, tie_word_embeddings=False)
    assert len(linears(model)) == 7 + 1  # the head
    assert scale(model, ("down_proj",), 2) == ["model.layers.0.mlp.down_proj.weight"]
    head = model.lm_head.weight.detach().clone()
    cut(model)
    assert torch.equal(model.lm_head.weight, head)
    assert [name for name, module in linears(model).items() if is_sparse(module.weight)] == [
        "model.layers.0.mlp.down_proj"
    ]
