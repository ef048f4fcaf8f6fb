"""Show the part of a text that its words were found in: as it stands there, and cut where it is long.

Usage: `excerpt(text, 12, 25)` are the 13th to 25th word with what stands between them; `shown(text)` fits in a line.

Words are those of `common.data.words.words_of`.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from common.data.words import words_of

LONGEST = 200  # characters
_PARTS = re.compile(r"\S+")


def excerpt(text: str, first: int, last: int) -> str:
    """Return the part of a text from one of its words to the one before `last`."""
    start, end = span(text, first, last)
    return text[start:end].strip()


def span(text: str, first: int, last: int) -> tuple[int, int]:
    """Return where that part begins and ends; found by counting, so that it is slow.

    Where tags or entities stand in the text it may begin some words away.
    """
    start: int | None = None
    before, end = 0, len(text)
    for part in _PARTS.finditer(text):
        size = len(words_of(part[0]))
        if start is None and before + size > first:
            start = part.start() + _place(part[0], first - before)
        if before + size >= last:
            end = part.start() + _place(part[0], last - before)
            break
        before += size
    return start or 0, end


def _place(part: str, number: int) -> int:
    """Return where in a part without blanks so many words have ended."""
    if number <= 0:
        return 0
    if number >= len(words_of(part)):
        return len(part)
    return bisect_left(range(len(part) + 1), number, key=lambda place: len(words_of(part[:place])))


def shown(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line, without its middle where it is longer."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    half = (longest - 3) // 2
    return f"{line[:half].rstrip()} … {line[-half:].lstrip()}"
