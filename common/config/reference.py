"""What a setting means: its description, type and default, read from the settings' classes.

Usage: `for line in describe("cpt.schedule.warmup"): print(line)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.config.kinds import kinds
from common.config.schema import Config
from common.errors import ConfigError, did_you_mean


def describe(key: str) -> list[str]:
    """Return lines on one setting, or on all settings of a block. Raises ConfigError for a key that does not exist."""
    first, *rest = key.split(".")
    fields = {name: field for name, field in Config.model_fields.items() if name != "stages"}
    if first in kinds():
        return list(_lines(key, kinds()[first].settings, rest))
    if first not in fields:
        raise ConfigError(f"There is no setting '{key}'.{did_you_mean(first, [*fields, *kinds()])}")
    model = _model_of(fields[first])
    return [_line(key, fields[first])] if model is None else list(_lines(key, model, rest))


def _lines(key: str, model: type[BaseModel], rest: list[str]) -> Iterator[str]:
    for number, part in enumerate(rest):
        if part not in model.model_fields:
            raise ConfigError(f"There is no setting '{key}'.{did_you_mean(part, model.model_fields)}")
        field = model.model_fields[part]
        below = _model_of(field)
        if below is None:
            free = " (an option of the library)" if rest[number + 1 :] else ""
            yield _line(key, field) + free
            return
        model = below
    yield f"{key}: {(model.__doc__ or '').strip().splitlines()[0]}"
    for name, field in model.model_fields.items():
        yield "  " + _line(name, field)


def _line(key: str, field: FieldInfo) -> str:
    kind = str(field.annotation).removeprefix("typing.") if not isinstance(field.annotation, type) else (
        field.annotation.__name__)  # fmt: skip
    default: Any = "needed" if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return f"{key}: keys below it"
    about = f"{field.description} " if field.description else ""
    return f"{key}: {about}[{kind}, default {default}]"


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    found = field.annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None
