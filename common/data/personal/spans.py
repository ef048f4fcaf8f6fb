"""A place in a text that holds personal data, and what words before it say about a number.

Usage: `kept = apart([Span(0, 12, "card"), Span(0, 16, "phone")])`; `said(text, 20, CUE)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

REACH = 48  # characters before a number in which a word may say what it is


class Span(NamedTuple):
    """A piece of a text, from `start` up to `end`, and the kind of data that it is."""

    start: int
    end: int
    kind: str


def apart(found: Iterable[Span]) -> list[Span]:
    """Return spans in the order of the text; of those that overlap the one that was found first stays."""
    kept: list[Span] = []
    for span in found:
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept)


def said(text: str, start: int, cue: re.Pattern[str], reach: int = REACH) -> int:
    """Return where the last match of a cue ends, among the characters before a place; -1 where there is none."""
    first = max(0, start - reach)
    ends = [match.end() for match in cue.finditer(text, first, start)]
    return ends[-1] if ends else -1
