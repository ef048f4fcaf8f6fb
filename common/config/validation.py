"""What is wrong with the keys and values of a file or a command line, one line per problem.

Usage: `pipeline = validated(Pipeline, raw, path=path)`.

Each line names the key, what was found and what was expected, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from common.config.numbers import UNSOUND, shown
from common.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
MAX_LISTED = 20  # problems shown at once
MAX_SHOWN = 60  # characters of a wrong value
# What a value should be, by the first word of pydantic's error types, such as int_parsing or model_type.
KINDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "keys below it", "model": "keys below it", "none": "nothing",
}  # fmt: skip
LIMITS = {
    "finite_number": "a finite number", "string_too_short": "text of at least {min_length} letters",
    "string_too_long": "text of at most {max_length} letters", "string_pattern_mismatch": "text like {pattern}",
    "too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them",
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}",
    "less_than": "less than {lt}", "multiple_of": "a multiple of {multiple_of}",
}  # fmt: skip
RANGES = {"ge": "greater_than_equal", "gt": "greater_than", "le": "less_than_equal", "lt": "less_than"}
RANGED = set(RANGES.values())


def validated(
    model: type[Model], raw: Any, *, path: str | Path | None = None, prefix: str = "",
    origin: Callable[[str], str] = lambda key: "",
) -> Model:  # fmt: skip
    """Return the settings in `raw`. Raises ConfigError as `explain` says, under the file's path where one is given."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = explain(error, model, raw, prefix=prefix, origin=origin)
        raise ConfigError(report(path, problems) if path else "\n".join(_first(problems))) from None


def explain(
    error: ValidationError, model: type[BaseModel], raw: Any, *, prefix: str = "",
    origin: Callable[[str], str] = lambda key: "",
) -> list[str]:  # fmt: skip
    """Return one line per problem of `raw`, the value that `model` refused.

    `prefix` is the key that holds `raw`. `origin` gives the layer that set a key, or "". The items of a list go by
    their `name` or `id`, or else by their number.
    """
    items: dict[tuple[int | str, ...], list[Any]] = {}  # a value that fits none of several types is one problem
    for item in error.errors():
        items.setdefault(_place(raw, item["loc"], missing=item["type"] == "missing"), []).append(item)
    lines = []
    for place, (item, *others) in items.items():
        if item["type"] == "too_short" and any(other[: len(place)] == place for other in items.keys() - {place}):
            continue  # pydantic does not count wrong items, which have lines of their own
        name = ".".join([*filter(None, [prefix]), *_names(raw, place)])
        whole = itertools.takewhile(lambda part: isinstance(part, str), place)  # a list is of one layer
        layer = origin(".".join([*filter(None, [prefix]), *map(str, whole)]))
        where = f"{name} ({layer})" if layer else name
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key.{did_you_mean(str(place[-1]), _keys_at(model, place[:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"{name} is missing.")
        elif item["type"] == UNSOUND:
            name, inner = f"{name}.{item['ctx']['key']}", [prefix, *map(str, place), item["ctx"]["key"]]
            layer = origin(".".join(filter(None, inner)))
            end = "" if item["msg"].endswith("?") else "."
            lines.append(f"{name} ({layer}): {item['msg']}{end}" if layer else f"{name}: {item['msg']}{end}")
        elif item["type"] == "value_error":  # a check of our own, which names its keys
            said = item["msg"].removeprefix("Value error, ")
            says_all = said.endswith((".", "?")) or isinstance(item["input"], dict)  # what was found too
            found = "" if says_all else f"; got {_shown(item['input'])}"
            end = "" if said.endswith("?") else "."
            lines.append(f"{where}{': ' if where else ''}{said.removesuffix('.')}{found}{end}")
        else:
            limits = _limits_at(model, place)
            further = dict.fromkeys(f" or {_expected(other, limits).removeprefix('expected ')}" for other in others)
            expected = _expected(item, limits) + "".join(further)
            unquoted = expected == "expected text" and isinstance(item["input"], int | float)
            quotes = "; put it in quotes" if unquoted else ""
            lines.append(f"{where}{': ' if where else ''}{expected}; got {_shown(item['input'])}{quotes}.")
    return lines


def report(place: str | Path, problems: Sequence[str]) -> str:
    """Return the message on a file: one line for one problem, else a heading and a line for each."""
    lines = [line if line.endswith("?") else f"{line.rstrip('.')}." for line in problems]
    if len(lines) == 1:
        return f"{place}: {lines[0]}"
    return "\n".join([f"{place} has {len(lines)} problems:", *_first([f"  - {line}" for line in lines])])


def _first(lines: Sequence[str]) -> list[str]:
    """Return the lines to show, with how many more there are."""
    more = [f"  … and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return [*lines[:MAX_LISTED], *more]


def _expected(item: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Return what a value should have been, such as `expected 1 to 10`; pydantic's message where we have none.

    `limits` are those that its field declares; where it has a least and a greatest, both are named.
    """
    kind = str(item["type"])
    facts = {key: _plain(value) for key, value in item.get("ctx", {}).items()}
    if kind in RANGED:
        both = {**{key: _plain(value) for key, value in limits.items()}, **facts}
        if {"ge", "le"} <= both.keys():
            return "expected {ge} to {le}".format(**both)
        return "expected " + " and ".join(LIMITS[RANGES[key]].format(**both) for key in RANGES if key in both)
    if kind == "literal_error":
        return f"expected {facts['expected']}".replace("'", "")
    if kind in LIMITS:
        return f"expected {LIMITS[kind].format(**facts)}"
    name = KINDS.get(kind.partition("_")[0]) if kind.endswith(("_type", "_parsing", "_from_float")) else None
    return f"expected {name}" if name else str(item["msg"])


def _place(raw: Any, location: tuple[int | str, ...], *, missing: bool) -> tuple[int | str, ...]:
    """Return the keys and indices of an error's location that `raw` has, without the names of tried types behind."""
    for number, part in enumerate(location):
        listed = isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw)
        inside = listed or (isinstance(raw, Mapping) and part in raw)
        if not inside and not (missing and number == len(location) - 1):
            return location[:number]
        raw = raw[part] if inside else None
    return location


def _names(raw: Any, place: Iterable[int | str]) -> list[str]:
    """Return the parts of a place, the items of lists by their `name` or `id`, or else by their number from one."""
    names = []
    for part in place:
        if isinstance(part, int) and not isinstance(raw, Mapping):
            named = (item if isinstance(item, Mapping) else {} for item in raw)
            same = [str(item.get("name") or item.get("id") or "") for item in named]
            own = same[part] if part < len(same) else ""  # none: an item is missing
            names.append(own if own and same.count(own) == 1 else f"number {part + 1}")
            raw = raw[part] if part < len(same) else None
        else:
            names.append(str(part) or "''")
            raw = raw.get(part)
    return names


def _limits_at(model: type[BaseModel], place: Sequence[int | str]) -> dict[str, Any]:
    """Return the limits that the field at a place declares, by pydantic's names; none for what is inside a field."""
    found: Any = model
    field = None
    for part in place:
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = {field.alias or name: field for name, field in found.model_fields.items()}
            if (field := fields.get(str(part))) is None:
                return {}
            found = field.annotation
        elif isinstance(part, int) and get_args(found):  # an item of a list
            field, found = None, get_args(found)[0]
        else:
            return {}
    if field is None:
        return {}
    declared = [*field.metadata, *(limit for inner in get_args(found) for limit in get_args(inner)[1:])]
    flat = [one for limit in declared for one in (getattr(limit, "metadata", None) or [limit])]
    return {key: getattr(limit, key) for limit in flat for key in RANGES if getattr(limit, key, None) is not None}


def _keys_at(model: Any, place: Iterable[int | str]) -> list[str]:
    """Return the keys that a place below a model may have."""
    for part in place:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = fields[str(part)].annotation
        else:
            model = [inner for inner in get_args(model) if inner not in (Ellipsis, type(None))][-1]
        while get_origin(model) in (Union, UnionType, Annotated):
            model = next(inner for inner in get_args(model) if inner is not type(None))
    return [field.alias or name for name, field in model.model_fields.items()]


def _shown(value: Any) -> str:
    """Return a wrong value as a message shows it."""
    if value is None or isinstance(value, dict):
        return "nothing" if value is None else "keys below it"
    text = shown(value) if type(value) in (int, float) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _plain(value: Any) -> Any:
    """Return a limit as people write it: whole numbers without a point, thousands apart."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return f"{whole:,}" if type(whole) is int else whole
