"""Which numbers a setting can have: of its own type, finite, and within what anybody would train with.

Usage: `check_type(field, value)` before pydantic reads a value, and `check_size(field, value)` after;
`common.config.base` does so for every field of every settings class.

Pydantic alone takes `true` for 1, 1 for `true`, and numbers of any size. A field says its own limits; where it says no
upper one, LARGEST holds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

LARGEST = 10**9  # of a count, size, rate or time that says no limit of its own
LARGEST_OPTION = 10**15  # of a library's option, such as a number of steps that means never, and of any setting
SOUND = f"a finite number of at most {LARGEST_OPTION:,}"
UNSOUND = "unsound"  # the type of the error about a number within a mapping or list; its context says the key


def check_type(field: FieldInfo, value: Any) -> None:
    """Raise PydanticKnownError where a boolean is given for a number, or a number for a boolean."""
    annotation: Any = field.annotation
    types = _types(annotation)
    number = next((kind for kind in (int, float) if kind in types), None)
    if number and isinstance(value, bool) and bool not in types:
        raise PydanticKnownError("int_type" if number is int else "float_type")
    if bool in types and not number and (type(value) in (int, float) or value in ("0", "1")):
        raise PydanticKnownError("bool_type")


def check_size(field: FieldInfo, value: Any) -> None:
    """Raise an error of pydantic's where a number, or one within a mapping or list, is too large or not finite."""
    if isinstance(value, Mapping | list | tuple):
        if wrong := next(unsound(value), None):
            key, number = wrong
            raise PydanticCustomError(UNSOUND, f"expected {SOUND}; got {shown(number)}", {"key": key})
    elif type(value) in (int, float) and not any(isinstance(limit, Le | Lt) for limit in field.metadata):
        for kind, key, limit in (("less_than_equal", "le", LARGEST), ("greater_than_equal", "ge", -LARGEST)):
            if (value > limit) if key == "le" else (value < limit):
                raise PydanticKnownError(kind, {key: limit})  # type: ignore[arg-type] # both are names of errors


def unsound(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the key and the number, wherever one within a value is infinite, NaN or absurdly large."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from unsound(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from unsound(inner, key)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_OPTION:  # false for NaN too
        yield key, value


def multiples_around(value: int, step: int) -> str:
    """Return the multiples of a step below and above a value, as `96 or 128`; 0 is left out."""
    below = value // step * step
    return " or ".join(str(near) for near in (below, below + step) if near)


def is_finite(value: Any) -> bool:
    """Whether no number in a value, or in the lists and mappings within it, is infinite or NaN."""
    return all(isinstance(number, int) or math.isfinite(number) for _, number in unsound(value))


def shown(number: float) -> str:
    """Return a number as a message shows it, however many digits it has."""
    if isinstance(number, int) and abs(number) > LARGEST_OPTION:
        return f"a whole number of {int(math.log10(abs(number))) + 1} digits"
    return repr(number)


@functools.cache
def _types(annotation: Any) -> frozenset[Any]:
    """Return the plain types that an annotation admits."""
    if get_origin(annotation) in (Union, UnionType):
        return frozenset().union(*map(_types, get_args(annotation)))
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    return frozenset([annotation])
