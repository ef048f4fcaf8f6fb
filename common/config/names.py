"""What may be the name of a stage, run, domain, profile, pipeline or source: one pattern, wherever a name comes from.

Usage: `check_name("name", "my-run")`; `stage: Name` in settings; `twins(["SFT", "sft"])`. `path: NonEmpty` is a path,
id or other text that has to say something.

Names become files and folders. One that passes here is a single part of a path on Linux, macOS and Windows, in ASCII,
and no file that the store itself writes. Whether something of that name exists is `common.config.folders`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from common.errors import ConfigError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LONGEST = 100  # leaves room for what the store adds; file systems take 255 bytes
EXPECTED = f"letters, digits, '.', '_' and '-', a letter or digit first, and at most {LONGEST} of them"
# Windows keeps these for devices, with any ending.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
WRITTEN = {"plan.json", "summary.json", "manifest.json", "published.json"}  # by the store, beside what has a name
ALL = "all"  # as `domain=all`


def flaw(name: Any) -> str | None:
    """Return why a value may not be a name, or None where it may."""
    if not isinstance(name, str) or len(name) > LONGEST or re.fullmatch(NAME, name) is None:
        return f"expected {EXPECTED}"
    if name.endswith("."):
        return "a name does not end in a dot, which Windows would drop"
    if name.casefold().partition(".")[0] in DEVICES:
        return "Windows keeps this name for a device; choose another"
    if name.casefold() in WRITTEN:
        return "the store writes a file of this name; choose another"
    return None


def is_name(name: Any) -> bool:
    return flaw(name) is None


def check_name(key: str, name: Any) -> str:
    """Return a name. Raises ConfigError for a value that may be none; `key` is what gave it."""
    if problem := flaw(name):
        raise ConfigError(f"{key}={str(name)[:LONGEST]!r}: {problem}.")
    return str(name)


def domain_flaw(name: str) -> str | None:
    """Return why a domain may not be called so, or None where it may: its name has small letters."""
    if name != name.casefold():
        return f"expected small letters; {name.casefold()} would do" if is_name(name) else flaw(name)
    return f"domain={ALL} means every domain; choose another" if name == ALL else flaw(name)


def twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that differ in nothing but capital letters, so that some disks hold only one of them."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None


def _checked(name: Any) -> Any:
    if isinstance(name, str) and (problem := flaw(name)):
        raise ValueError(problem)
    return name


def _said(text: Any) -> Any:
    if isinstance(text, str) and not text.strip():
        raise PydanticCustomError("empty", "expected text that is not empty")
    return text


Name = Annotated[str, BeforeValidator(_checked), Field(pattern=f"^{NAME}$", max_length=LONGEST)]
NonEmpty = Annotated[str, BeforeValidator(_said), Field(min_length=1)]
