"""Groups of an optimizer by learning rate: weights that a method lets learn faster or more slowly.

Usage: `split_by_rate(optimizer, model, {"model.embed_tokens.weight": 0.1})`, before its schedule is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def split_by_rate(optimizer: Any, model: Any, rates: Mapping[str, float], *, apart: bool = False) -> None:
    """Split the groups of an optimizer so that each weight has its share of the rate, in place. Others keep theirs.

    With `apart` each weight gets a group of its own. Weights with a rate of their own come last: transformers logs that
    of the first group.
    """
    named = {id(weight): name for name, weight in model.named_parameters()}
    groups: list[tuple[bool, dict[str, Any]]] = []
    for group in optimizer.param_groups:
        shares: dict[tuple[float, str], list[Any]] = {}
        for weight in group["params"]:
            name = named[id(weight)]
            shares.setdefault((rates.get(name, 1.0), name if apart else ""), []).append(weight)
        for (share, _), weights in shares.items():
            groups.append((share != 1.0, {**group, "params": weights, "lr": group["lr"] * share}))
    optimizer.param_groups[:] = [group for _, group in sorted(groups, key=lambda pair: pair[0])]
