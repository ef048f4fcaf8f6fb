"""What a value should have been, from one of pydantic's errors, in our words.

Usage: `f"{key}: expected {expected(item)}; got {item['input']!r}."` for an `item` of `ValidationError.errors()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "keys below it", "model": "keys below it", "none": "nothing",
}  # fmt: skip
LIMITS = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than"),
          "less_than_equal": ("le", "at most"), "less_than": ("lt", "less than")}  # fmt: skip
OTHERS = {
    "finite_number": "a finite number", "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text like {pattern}", "too_short": "at least {min_length} of them",
}  # fmt: skip


def expected(item: Mapping[str, Any]) -> str:
    """Return what an error says of the value, such as `a whole number`, `at least 1`, or `ddp, fsdp2 or zero3`.

    What has no words of ours keeps pydantic's.
    """
    kind, facts = str(item["type"]), item.get("ctx", {})
    if kind in LIMITS:
        name, words = LIMITS[kind]
        return f"{words} {facts[name]:g}"
    if kind == "literal_error":
        return str(facts["expected"]).replace("'", "")
    if kind in OTHERS:
        return OTHERS[kind].format(**facts)
    return KINDS.get(kind.partition("_")[0], str(item["msg"]))


def told(item: Mapping[str, Any]) -> str:
    """Return `expected …; got ….`; of a check of our own, what that says."""
    own = str(item["msg"]).removeprefix("Value error, ") if item["type"] == "value_error" else ""
    return f"{own or f'expected {expected(item)}'}; got {item['input']!r}."
