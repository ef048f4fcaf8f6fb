"""The `key=value` overrides of a command line: read, and turned into nested keys.

Usage: `command, overrides = parse(["run", "domain=medical", "cpt.tokens=5"], COMMANDS)`, then `nest(overrides)`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.config.yaml import DEEPEST, parse_value
from common.errors import ConfigError, did_you_mean, quoted

LOUDNESS = {"-v": "verbose", "verbose": "verbose", "-q": "quiet", "quiet": "quiet"}
# Taken as they are, never parsed: a commit may look like a number.
RAW = (
    "domain", "domains", "order", "profile", "pipeline", "name", "data", "data_root", "out", "model.path",
    "model.revision",
)  # fmt: skip
ALLOW_CODE = "run.allow_code"
ANY = "any"  # consent to whatever code is there now
Overrides = dict[str, str]


def parse(arguments: Sequence[str], commands: Collection[str]) -> tuple[str, Overrides]:
    """Split arguments into the command and its overrides; a value may hold spaces and `=`.

    Raises ConfigError for an argument without `=`, a key given twice, or an unknown command.
    """
    for argument in arguments:
        if "\0" in argument or not argument.isascii():
            _check_text(argument)
    command, *rest = arguments
    if command not in commands:
        raise ConfigError(f"There is no command {quoted(command)}.{did_you_mean(command, commands)}")
    if command == "stage":  # its plan and its stage may come first, without their keys
        for place, key in enumerate(("plan", "stage")[: len(rest)]):
            if "=" not in rest[place] and rest[place] not in LOUDNESS:
                rest[place] = f"{key}={rest[place]}"
    overrides: Overrides = {}
    for argument in rest:
        if argument in LOUDNESS:
            argument = f"run.verbosity={LOUDNESS[argument]}"
        key, separator, value = argument.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected key=value, such as domain=medical; got {quoted(argument)}.")
        if key.count(".") >= DEEPEST:
            raise ConfigError(f"{quoted(key)} has more than {DEEPEST} dots; no setting is that deep.")
        if key in overrides:
            both = f"{quoted(overrides[key])} and {quoted(value)}"
            raise ConfigError(f"{quoted(key)} is given twice: {both}. Keep one.")
        if key in RAW and key != "domain" and not value.strip():
            raise ConfigError(f"{key} is empty. Give a value, or leave {key} out.")
        overrides[key] = value
    return command, overrides


def _check_text(argument: str) -> None:
    """Refuse what no file of a run can hold: bytes of another encoding, and NUL. Raises ConfigError."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{quoted(argument)} is not UTF-8. Give names and values in UTF-8.") from None
    if "\0" in argument:
        raise ConfigError(f"{quoted(argument)} holds a NUL character. Leave it out.")


def take_consent(overrides: Overrides, domain: str) -> str | None:
    """Take `run.allow_code` out; return the digest of the code that may run, ANY for the domain's name alone, or None.

    Raises ConfigError for another's name.
    """
    allowed = overrides.pop(ALLOW_CODE, None)
    name, at, digest = (allowed or "").partition("@")
    if allowed is None:
        return None
    if name != domain or (at and not digest):
        raise ConfigError(
            f"{ALLOW_CODE}={allowed}: expected the name of this run's domain, {domain}, or {domain}@<digest>, "
            "as `plan` shows it."
        )
    return digest or ANY


def nest(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Turn dotted keys into nested ones with parsed values: {"cpt.tokens": "5"} -> {"cpt": {"tokens": 5}}."""
    nested: dict[str, Any] = {}
    for key, text in overrides.items():
        place = nested
        *parents, last = key.split(".")
        for part in parents:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: '{part}' is given a value of its own elsewhere on the command line.")
        place[last] = parse_value(text) if key not in RAW else text
    return nested


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> leaf of nested mappings; lists and empty mappings are leaves."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}
