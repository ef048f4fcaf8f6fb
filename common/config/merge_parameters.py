"""What a parameter of a merge can be: a number in its range, a switch, a list over the layers, or a list by filter.

Usage: `parameters: MergeParameters` in settings; `flaw("density", 5)` says what is wrong with one.

It loads no library, so a plan can ask it. Which method has which parameter, and what must fit together, is mergekit's
to say (`common.training.merging`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from common.config.numbers import LARGEST_OPTION, UNSOUND, shown
from common.errors import quoted

NUMBERS = ("weight", "density", "epsilon", "t", "lambda", "scale")
SWITCHES = ("normalize", "rescale", "int8_mask", "filter_wise")
RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {  # mergekit accepts any number
    "density": (lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    "t": (lambda x: 0 <= x <= 1, "a number from 0 (the base) to 1 (the other model)"),
    "epsilon": (lambda x: 0 <= x < 0.5, "a number from 0 to below 0.5"),
}
ANY = (lambda x: abs(x) <= LARGEST_OPTION, f"a finite number of at most {LARGEST_OPTION:,}")


def flaw(name: str, value: Any) -> str | None:
    """Return why a value cannot be that of a parameter, or None where it can, or where no method has the parameter."""
    if name not in (*NUMBERS, *SWITCHES):
        return None
    conditions = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    values = [item.get("value") for item in conditions] if conditions else [value]
    formed = all(
        item.keys() <= {"filter", "value"} and isinstance(item.get("filter", ""), str | None) for item in conditions
    )
    if (conditions and len(conditions) < (len(value) if isinstance(value, list) else 1)) or not formed:
        values = [None]
    for leaf in [leaf for one in values for leaf in (one if isinstance(one, list) and one else [one])]:
        if leaf is None or isinstance(leaf, list | dict):
            return (
                "expected a value, a list of values over the layers (a gradient), or a list of {filter: part of a "
                f"tensor's name, value: …}}; got {quoted(value)}"
            )
        if name in SWITCHES:
            if not isinstance(leaf, bool):
                return f"expected true or false; got {quoted(leaf)}"
            continue
        number = _number(leaf)
        if number is None:
            return f"expected a number; got {quoted(leaf)}"
        accepts, description = RANGES.get(name, ANY)
        if not accepts(number):
            return f"expected {description}, or a list of them over the layers; got {shown(number)}"
    return None


def _number(value: Any) -> float | None:
    """Return a number, or one that is given as text, as mergekit takes it."""
    try:
        return None if isinstance(value, bool) else value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return None


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    for name, value in parameters.items():
        if problem := flaw(name, value):
            raise PydanticCustomError(UNSOUND, "{problem}", {"key": name, "problem": problem})
    return parameters


MergeParameters = Annotated[dict[str, Any], AfterValidator(_checked)]
