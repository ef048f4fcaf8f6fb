"""Groups of an optimizer by rate: every weight once, with its rate and its decay, and the plain ones first."""

from __future__ import annotations

import torch

from common.training.methods.rates import split_by_rate


def test_each_weight_has_its_share_and_keeps_its_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    weights = dict(model.named_parameters())
    groups = [{"params": [weights["0.weight"], weights["1.weight"]], "weight_decay": 0.1}]
    groups.append({"params": [weights["0.bias"], weights["1.bias"]], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    split_by_rate(optimizer, model, {"0.weight": 0.5, "0.bias": 0.0})
    named = {id(weight): name for name, weight in weights.items()}
    found = [([named[id(p)] for p in g["params"]], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [
        (["1.weight"], 1e-2, 0.1), (["1.bias"], 1e-2, 0.0), (["0.weight"], 5e-3, 0.1), (["0.bias"], 0.0, 0.0)
    ]  # fmt: skip
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-3, 5e-4, 0.0]


def test_apart_each_weight_is_in_a_group_of_its_own() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    split_by_rate(optimizer, model, {"bias": 0.5}, apart=True)
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(1, 1e-2), (1, 5e-3)]
