"""The `key=value` overrides of a command line: parsed, taken one by one, and turned into nested keys.

Usage: `command, overrides = parse(["run", "domain=medical", "cpt.tokens=5"], COMMANDS)`, then `nest(overrides)`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.config.yaml import parse_value
from common.errors import ConfigError, did_you_mean

LOUDNESS = {"-v": "verbose", "verbose": "verbose", "-q": "quiet", "quiet": "quiet"}
# Taken as they are, never parsed: a commit may look like a number.
RAW = ("domain", "profile", "pipeline", "data", "data_root", "out", "model.path", "model.revision")
Overrides = dict[str, str]


def parse(arguments: Sequence[str], commands: Collection[str]) -> tuple[str, Overrides]:
    """Split arguments into the command and its overrides. A value may hold spaces and `=`.

    Raises ConfigError for an argument without `=`, a key given twice, or an unknown command.
    """
    if not arguments:
        raise ConfigError(f"No command is given. Say one of: {', '.join(commands)}.")
    command, *rest = arguments
    if command not in commands:
        raise ConfigError(f"There is no command '{command}'.{did_you_mean(command, commands)}")
    overrides: Overrides = {}
    if command == "stage":
        rest = [f"{key}={value}" for key, value in zip(("plan", "stage"), rest[:2], strict=False)] + rest[2:]
    for argument in rest:
        text = f"run.verbosity={LOUDNESS[argument]}" if argument in LOUDNESS else argument
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"'{argument}' is not an override such as domain=medical: expected key=value.")
        if key in overrides:
            raise ConfigError(f"'{key}' is given twice: {overrides[key]} and {value}.")
        overrides[key] = value
    return command, overrides


def take(overrides: Overrides, key: str, command: str, *, needed: bool = False) -> str | None:
    """Take one override out of those of a command. Raises ConfigError if it is needed and missing."""
    value = overrides.pop(key, None)
    if needed and not value:
        raise ConfigError(f"{command} needs {key}=<{key}>.")
    return value


def refuse_rest(overrides: Overrides, command: str, known: Sequence[str]) -> None:
    """Raise ConfigError for the first override that a command does not know."""
    for key in overrides:
        raise ConfigError(f"{command} takes no '{key}'.{did_you_mean(key, known)}")


def nest(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Turn dotted keys into nested ones with parsed values: {"cpt.tokens": "5"} -> {"cpt": {"tokens": 5}}."""
    nested: dict[str, Any] = {}
    for key, text in overrides.items():
        block = nested
        *parents, last = key.split(".")
        for part in parents:
            block = block.setdefault(part, {})
            if not isinstance(block, dict):
                raise ConfigError(f"{key}: '{part}' is given a value of its own elsewhere on the command line.")
        block[last] = parse_value(text) if key not in RAW else text
    return nested


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> leaf of nested mappings; lists and empty mappings are leaves."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}
