"""The parts that a document is read in, such as the pages of a PDF, and why one, or all of it, cannot be read.

Usage: `yield Part(3, text)`; `raise Unreadable(ENCRYPTED, "needs a password")`.

It reads nothing. The reasons are few: rows are counted by them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from common.data.accounting import TOO_LARGE

MOST_CHARACTERS = 2**26  # of the text of one part
_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_PAIRS = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # of surrogates, as PDFs write characters beyond 16 bits


class Part(NamedTuple):
    """One part of a document: its number from 1, and its text, or the reason why it has none and what to say of it."""

    number: int
    text: str = ""
    reason: str = ""
    detail: str = ""  # follows the name of the file and the place


OPENED = Part(0)  # a document of many parts is open: from now on a part that cannot be read is one alone


class Unreadable(Exception):
    """A document, or one part of it, cannot be read."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def clean(text: str) -> str:
    """Return a text without control characters and halves of characters, its line ends as line feeds."""
    if max(text, default="") > "\ud7ff":
        text = _PAIRS.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(TOO_LARGE, f"has more than {MOST_CHARACTERS:,} characters. Split it")
    return _CONTROLS.sub("", text)


def tidy(text: str) -> str:
    """Return a paragraph with single blanks."""
    return re.sub(r"[ \t\n\f\v\u00a0]+", " ", text).strip()


def as_part(answer: dict[str, Any]) -> Part:
    """Return a part as it was sent as JSON."""
    number, text, reason, detail = answer["part"]
    return Part(int(number), str(text), str(reason), str(detail))
