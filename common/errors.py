"""The exceptions that a user can meet, how their messages quote what others wrote, and suggestions of near names.

Usage: `raise DataError(f"{path}: column {quoted(name)} is missing. Name another.")`.

Every message says what was found, where, what was expected and what to do next. The command line prints
the message alone; a traceback means a bug of ours. No message floods a terminal, moves its cursor or looks like two.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST_QUOTE = 80  # characters of a value, name or path that a message shows
LONGEST_REASON = 300  # characters of another library's message
LONGEST_LINE = 800  # characters of one line of a message: the start says what and where, the end what to do
MOST_LINES = 60  # of a message
LONGEST_NAME, MOST_NAMES = 200, 20_000  # characters of a name, and names, among which the nearest is looked for
# What moves a cursor, starts an escape, turns the direction of text, breaks a line, or is no character: the controls,
# the marks and overrides of direction, separators of lines, invisible tags, and halves of characters.
UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str, keep: str = "") -> str:
    """Return a text with the characters that a terminal obeys written as escapes; those in `keep` stay."""
    return UNSEEN.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters, the middle left out."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[-end:]}"


def quoted(value: object, most: int = LONGEST_QUOTE) -> str:
    """Return a value as a message quotes it: on one line, nothing invisible, cut; text in quotation marks."""
    if isinstance(value, str):
        return f"'{cut(visible(cut(value, most)), most)}'"
    try:
        return cut(visible(repr(value)), most)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, lists a thousand deep
        return f"a {type(value).__name__} that is too large to show"


def _message(text: str) -> str:
    """Return a message that stays one: bounded, nothing invisible, and no line but the first at the margin."""
    lines = text.splitlines() if len(text) > LONGEST_LINE or UNSEEN.search(text) else [text]
    if len(lines) > MOST_LINES:
        left_out = f"… {len(lines) - MOST_LINES + 1} more lines …"
        lines = [*lines[: MOST_LINES - 11], left_out, *lines[-10:]]
    lines = [cut(visible(cut(line, LONGEST_LINE)), LONGEST_LINE) for line in lines]
    return "\n".join(
        line if number == 0 or not line or line.startswith("  ") else f"  {line}" for number, line in enumerate(lines)
    )


class RecipeError(Exception):
    """Base of all errors that are not bugs: the command line shows the message and exits with 1."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_message(arg) if isinstance(arg, str) else arg for arg in args))


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
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return cut(visible(line), LONGEST_REASON)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name, or the list of known names when none is near.

    A key of a YAML file may be a number.
    """
    names = sorted({str(item) for item in known} - {str(name)})
    small = str(name)[:LONGEST_NAME].casefold()
    by_small = {other.casefold(): other for other in names[:MOST_NAMES]}
    if small in by_small:
        return f" Did you mean {quoted(by_small[small])}? Capital letters count."
    if near := difflib.get_close_matches(small, by_small, n=1, cutoff=0.6):
        return f" Did you mean {quoted(by_small[near[0]])}?"
    if not names:
        return ""
    shown = ", ".join(quoted(name)[1:-1] for name in names[:14]) + (", …" if len(names) > 14 else "")
    return f" Known: {shown}."
