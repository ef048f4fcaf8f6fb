"""Access tokens and passwords: found in what a run is given, hidden in what it shows and writes.

Usage: `text = hide(text)`; `if place := find(values): ...`, where `place` is the key that holds one.

Known are the shapes of common ones, passwords in addresses, and whatever the environment holds under a telling name.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
TELLING = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIALS)S?$", re.I)  # names of variables
SHORTEST = 8  # characters of a variable's value that is hidden; shorter ones are in many words
SHAPES = (
    r"\bhf_[A-Za-z0-9]{16,}\b"  # Hugging Face
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{32,}|\bwandb_v1_\w{30,}|\bxox[abprs]-[\w-]{20,}"
    r"|(?<=://)(?:[^/\s:@]*:[^/\s@]+|[^/\s@]{20,})(?=@)"  # user:password, or a token, in an address
)


def hide(text: str) -> str:
    """Return a text with secrets as `***`."""
    return _pattern(_of_environment()).sub(HIDDEN, text)


def find(value: Any) -> str | None:
    """Return the dotted key of the first text in a JSON-like value that holds a secret, or None."""
    return _find(value, "", _pattern(_of_environment()))


def _find(value: Any, key: str, pattern: re.Pattern[str]) -> str | None:
    if isinstance(value, str):
        return (key or HIDDEN) if pattern.search(value) else None
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, item in items:
        below = pattern.sub(HIDDEN, f"{key}.{name}" if key else str(name))
        if found := below if HIDDEN in below else _find(item, below, pattern):
            return found
    return None


@functools.lru_cache(maxsize=4096)
def _is_telling(name: str) -> bool:
    return TELLING.search(name) is not None


def _of_environment() -> tuple[str, ...]:
    found = [os.environ[name].strip() for name in os.environ if _is_telling(name)]  # each line that is shown asks
    return tuple(sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True))


@functools.lru_cache(maxsize=4)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([*map(re.escape, values), SHAPES]))
