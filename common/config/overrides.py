"""The `key=value` words of a command line: read, taken one by one, and turned into nested keys.

Usage: `command, words = parse(["run", "domain=medical", "cpt.tokens=5"], COMMANDS)`, then `nest(words)`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.config.yaml import parse_value
from common.errors import ConfigError, did_you_mean

LOUDNESS = {"-v": "verbose", "verbose": "verbose", "-q": "quiet", "quiet": "quiet"}
# Taken as they are, never parsed: a commit may look like a number.
RAW_WORDS = ("domain", "profile", "pipeline", "data", "data_root", "out", "model.path", "model.revision")
Words = dict[str, str]


def parse(arguments: Sequence[str], commands: Collection[str]) -> tuple[str, Words]:
    """Split arguments into the command and its words; a value may hold spaces and `=`.

    Raises ConfigError for a word without `=`, one given twice, or an unknown command.
    """
    if not arguments:
        raise ConfigError(f"No command is given. Say one of: {', '.join(commands)}.")
    command, *rest = arguments
    if command not in commands:
        raise ConfigError(f"There is no command '{command}'.{did_you_mean(command, commands)}")
    words: Words = {}
    if command == "stage":
        rest = [f"{key}={value}" for key, value in zip(("plan", "stage"), rest[:2], strict=False)] + rest[2:]
    for word in rest:
        if word in LOUDNESS:
            word = f"run.verbosity={LOUDNESS[word]}"
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ConfigError(f"'{word}' is no key=value word, such as domain=medical.")
        if key in words:
            raise ConfigError(f"'{key}' is given twice: {words[key]} and {value}.")
        words[key] = value
    return command, words


def take(words: Words, key: str, command: str, *, needed: bool = False) -> str | None:
    """Take one word out of those of a command. Raises ConfigError if it is needed and not there."""
    value = words.pop(key, None)
    if needed and not value:
        raise ConfigError(f"{command} needs {key}=<{key}>.")
    return value


def refuse_rest(words: Words, command: str, known: Sequence[str]) -> None:
    """Raise ConfigError for the first word that a command does not know."""
    for key in words:
        raise ConfigError(f"{command} takes no '{key}'.{did_you_mean(key, known)}")


def nest(words: Mapping[str, str]) -> dict[str, Any]:
    """Turn dotted words into nested keys with parsed values: {"cpt.tokens": "5"} -> {"cpt": {"tokens": 5}}."""
    nested: dict[str, Any] = {}
    for key, text in words.items():
        place = nested
        *parents, last = key.split(".")
        for part in parents:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: '{part}' is given a value of its own elsewhere on the command line.")
        place[last] = parse_value(text) if key not in RAW_WORDS else text
    return nested


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> leaf of nested mappings; lists and empty mappings are leaves."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}
