"""The exceptions that a user can meet, and suggestions of near names.

Every message says what was found, where, what was expected and what to do next. The command line prints
the message alone; a traceback means a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecipeError(Exception):
    """Base of all errors that are not bugs: the command line shows the message and exits with 1."""


class ConfigError(RecipeError, ValueError):
    """A name, key or value in a configuration file or on the command line is wrong."""


class DataError(RecipeError, ValueError):
    """A source is missing, unreadable, malformed, or would leak the exam into training."""


class ContractError(RecipeError, ValueError):
    """A stage's result breaks a promise that the next stage relies on; the result is not committed."""


class StoreError(RecipeError, OSError):
    """The artifact store cannot be read or written: read-only, full, or held by another run."""


class ResourceError(RecipeError):
    """A machine has too little memory for what a stage does."""


class LaunchError(RecipeError):
    """A process of a stage that several share died, or could not be started."""


class GateError(RecipeError):
    """A checkpoint fell outside the pipeline's limits and the gate is set to stop."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's message, or the name of an error without one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name, or the list of known names when none is near."""
    names = sorted({str(item) for item in known})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:14]) + (", …" if len(names) > 14 else "")
    return f" Known: {shown}."
