"""What is wrong with a key or value, from one of pydantic's errors, in our words.

Usage: `f"{key}: {describe_error(item, cls.model_fields)}"` for an `item` of `ValidationError.errors()`.

`wanted(item)` says only what a value should have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.errors import did_you_mean

# By the first word of pydantic's types, such as int_parsing or model_type.
KINDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "keys below it", "model": "keys below it", "none": "nothing",
}  # fmt: skip
WHOLE = {
    "finite_number": "a finite number", "string_too_short": "text of at least {min_length} letters",
    "string_too_long": "text of at most {max_length} letters", "string_pattern_mismatch": "text like {pattern}",
    "too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them",
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}",
    "less_than": "less than {lt}", "multiple_of": "a multiple of {multiple_of}",
}  # fmt: skip


def describe_error(item: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """Return a sentence such as `expected a whole number; got 'two'.`; `known` are the keys that there are."""
    kind = str(item["type"])
    if kind == "extra_forbidden":
        return f"unknown key.{did_you_mean(str(item['loc'][-1]), known)}"
    if kind == "missing":
        return "is missing."
    if kind == "value_error":  # a check of our own
        return f"{value_of(item)}; got {item['input']!r}."
    return f"{expected_of(item)}; got {item['input']!r}."


def expected_of(item: Mapping[str, Any]) -> str:
    """Return what the value should have been, such as `expected at least 1`, or pydantic's words where we have none."""
    kind = str(item["type"])
    facts = {key: _plain(value) for key, value in item.get("ctx", {}).items()}
    if kind == "literal_error":
        return f"expected {facts['expected']}".replace("'", "")
    if kind in WHOLE:
        return f"expected {WHOLE[kind].format(**facts)}"
    of_a_kind = kind.endswith(("_type", "_parsing", "_from_float"))
    name = KINDS.get(kind.partition("_")[0]) if of_a_kind else None
    return f"expected {name}" if name else str(item["msg"])


def value_of(item: Mapping[str, Any]) -> str:
    """Return the words of a check of our own."""
    return str(item["msg"]).removeprefix("Value error, ")


def _plain(value: Any) -> Any:
    """Return a limit as people write it: whole numbers without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
