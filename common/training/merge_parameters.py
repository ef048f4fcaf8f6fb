"""What the value of one mergekit parameter may be, and what it is for a tensor at a depth.

Usage: `check_parameter("merge.models.dpo.weight", "weight", [0, 0.5, 1], "linear", frozenset({"weight"}))`.

A value is a number or switch, a gradient of them over the layers (`[0, 0.5, 1]`), or a list of
`{filter: self_attn, value: …}` of which the first that matches a tensor's name counts. It knows single values
only: which parameters a method has, and how they fit together, is `common.training.merging`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from common.errors import ConfigError, did_you_mean

SWITCHES = frozenset({"normalize", "rescale", "int8_mask", "filter_wise"})
RANGES = {  # name: (accepts, in words)
    "density": (lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    "t": (lambda x: 0 <= x <= 1, "a number from 0 (the base) to 1 (the other model)"),
    "epsilon": (lambda x: 0 <= x < 0.5, "a number from 0 to below 0.5"),
}
DELLA_EPSILON = 0.15  # mergekit's default


def check_parameter(key: str, name: str, value: Any, method: str, known: frozenset[str]) -> None:
    """Check one parameter's name, form and range. Raises ConfigError with its key."""
    if name not in known:
        raise ConfigError(
            f"{key}: method {method} has no parameter '{name}' here.{did_you_mean(name, known)}"
            + ("" if known else " It takes none.")
        )
    conditions = [value] if isinstance(value, dict) else value
    if not isinstance(conditions, list) or not any(isinstance(item, dict) for item in conditions):
        _check_scalars(key, name, conditions)
        return
    for number, item in enumerate(conditions):
        if not isinstance(item, dict) or "value" not in item or set(item) - {"filter", "value"}:
            raise ConfigError(f"{key}.{number}: expected {{filter: part of a tensor's name, value: …}}, got {item!r}.")
        if not isinstance(item.get("filter"), str | None):
            raise ConfigError(f"{key}.{number}.filter: expected part of a tensor's name, got {item['filter']!r}.")
        _check_scalars(f"{key}.{number}.value", name, item["value"])


def _check_scalars(key: str, name: str, value: Any) -> None:
    """Check a number or switch, or a gradient of them."""
    if isinstance(value, list) and not value:
        raise ConfigError(f"{key}: the list is empty. Give one value, or two or more for a gradient over the layers.")
    for item in value if isinstance(value, list) else [value]:
        if name in SWITCHES:
            if not isinstance(item, bool):
                raise ConfigError(f"{key}: expected true or false, got {item!r}.")
            continue
        accepts, words = RANGES.get(name, (lambda _: True, "a finite number"))
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item) or not accepts(item):
            hint = " YAML takes it for text: write it with a point, as in 1.0e-3." if _reads_as_number(item) else ""
            raise ConfigError(f"{key}: expected {words}, or a list of them over the layers; got {item!r}.{hint}")


def _reads_as_number(item: Any) -> bool:
    """Whether a text is a number that YAML did not see, such as 1e-3."""
    try:
        return isinstance(item, str) and math.isfinite(float(item))
    except ValueError:
        return False


def resolve_parameter(setting: Any, tensor: str, depth: float) -> Any:
    """Return a parameter's value for a tensor at a depth from 0 (first layer) to 1 (last), or None.

    Gradients are piecewise linear in depth; of a list of filters the first that occurs in the name counts.
    """
    conditions = [setting] if isinstance(setting, dict) else setting
    if not isinstance(conditions, list):
        return conditions
    if any(isinstance(item, dict) for item in conditions):
        for item in conditions:
            pattern = item.get("filter")
            if pattern is None or pattern == "*" or pattern in tensor:
                return resolve_parameter(item["value"], tensor, depth)
        return None
    place = depth * (len(conditions) - 1)
    left = min(int(place), len(conditions) - 1)
    right = min(left + 1, len(conditions) - 1)
    return conditions[left] + (place - left) * (conditions[right] - conditions[left])


def resolve_scopes(scopes: Sequence[Any], tensor: str, depth: float) -> Any:
    """Return the first value that the scopes (a model's own, the whole merge's, a default) give, or None."""
    values = (resolve_parameter(setting, tensor, depth) for setting in scopes)
    return next((value for value in values if value is not None), None)


def list_places(settings: Sequence[Any], beside: float = 0.0) -> Iterator[tuple[str, float]]:
    """Yield every (filter, depth) at which one of the settings bends; between two depths all are linear.

    With `beside` each depth is joined by its two neighbours at that distance.
    """
    conditions = [item for value in settings for item in (value if isinstance(value, list) else [value])]
    filters = {str(item["filter"]) for item in conditions if isinstance(item, dict) and item.get("filter")}
    lists = [value for value in settings if isinstance(value, list)]
    lists += [item["value"] for item in conditions if isinstance(item, dict) and isinstance(item["value"], list)]
    bends = {step / (len(items) - 1) for items in lists if len(items) > 1 for step in range(len(items))} | {0.0, 1.0}
    depths = sorted({min(max(bend + side, 0.0), 1.0) for bend in bends for side in (-beside, 0.0, beside)})
    for pattern in ["", *sorted(filters)]:
        yield from ((pattern, depth) for depth in depths)
