"""Word what is wrong with a layer's keys and values: key, layer and file, what was found, what was expected.

Usage: `raise ConfigError(explain(error, Config, "", lambda key: origins[key]))`.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from common.config.folders import is_path
from common.config.validation import describe_error, value_of


def explain(error: ValidationError, cls: type[BaseModel], prefix: str, origin: Callable[[str], str]) -> str:
    """Return one line per problem: key, layer, what was found, what was expected."""
    lines = []
    for item in error.errors():
        key = ".".join([*([prefix] if prefix else []), *(str(part) for part in item["loc"])])
        where = f" ({_with_file(origin(key))})"
        if item["type"] == "value_error":
            lines.append(f"{key or 'configuration'}: {value_of(item)}")
        elif item["type"] == "missing":  # no layer has said it
            lines.append(f"{key} is missing.")
        else:
            lines.append(f"{key}{where}: {describe_error(item, _fields_at(cls, item['loc']))}")
    return "\n".join(lines)


def _with_file(label: str) -> str:
    """Return the label of a layer, and the file that it stands for where the label does not say."""
    if not label.startswith("domain "):
        return label
    domain = label.removeprefix("domain ").partition(",")[0]
    return f"{label}; {domain if is_path(domain) else f'domains/{domain}'}/stages.yaml"


def _fields_at(cls: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model that a nested error lies in."""
    current = cls
    for part in place[:-1]:
        field_info = current.model_fields.get(str(part))
        annotation = field_info.annotation if field_info else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        current = annotation
    return list(current.model_fields)
