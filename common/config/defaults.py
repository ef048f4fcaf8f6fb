"""Settings as what differs from their declared defaults, and back.

Usage: `given = differing(settings)` for a recipe; `filled(given, type(settings))` to show or compare all of them.

A recipe leaves defaults out, so that a new setting changes no fingerprint. A default that changes does change results:
then `common.engine.fingerprint.RECIPE_SCHEMA` goes up by one, and a test compares the defaults with a table to say so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python


def default_of(field: FieldInfo) -> Any:
    """Return a field's default; PydanticUndefined where it has none."""
    return field.get_default(call_default_factory=True)


def differing(settings: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return the values that are not the declared defaults, ready for JSON; the same within each block."""
    return settings.model_dump(mode="json", exclude_defaults=True, exclude=set(exclude))


def filled(values: Mapping[str, Any], cls: type[BaseModel]) -> dict[str, Any]:
    """Return values, as `differing` gives them, with the defaults of a class around them."""
    found = {}
    for name, field in cls.model_fields.items():
        default = default_of(field)
        if name not in values:
            if default is not PydanticUndefined:
                found[name] = to_jsonable_python(default)
        elif isinstance(default, BaseModel) and isinstance(values[name], Mapping):
            found[name] = filled(values[name], type(default))
        else:
            found[name] = values[name]
    return {**found, **{name: value for name, value in values.items() if name not in found}}
