"""Tell a sentence that states what a question asks about from a copy of the question, or of a part of it.

Usage: `states_it("Who compiles data on the size of firms?", "ENR compiles data on the size of firms.", 1, 9)` is True.

Questions of reading exams are made from sentences of the texts that they ask about: who or what takes the place of a
name, and the rest stays. Such texts are no copies. A copy asks, or is cut off; a statement has a name in that place and
ends as a statement.
"""

from __future__ import annotations

import re

from common.data.excerpts import span
from common.data.words import words_of

_ASKS = "?\uff1f\u061f\u037e"
_COMMAS = ",;\uff0c\u3001\uff1b\u060c\u061b"
_CLOSING = " \t\r\n\"'\u2019\u201d\u00bb)]\uff09\u300d"
_FULL_STOP = r"\.(?=[\s\"'\u2019\u201d)\]]|$)"  # not that of a number
_END = re.compile(rf"[?!\n\u2026\u3002\uff01\uff1f\u061f\u0964]|{_FULL_STOP}")
_START = re.compile(rf"[?!\n:;\u2026\u3002\uff01\uff1f\uff1a\uff1b\u061f\u061b\u0964]|{_FULL_STOP}")
_NO_WORD = re.compile(r"\W*\Z")


def question_in(passage: str) -> str:
    """Return the sentence that a passage ends in, where that is a question; else an empty text."""
    text = passage.rstrip(_CLOSING)
    if not text.endswith(tuple(_ASKS)):
        return ""
    ends = [found.end() for found in _END.finditer(text[:-1])]
    return text[ends[-1] if ends else 0 :]


def states_it(question: str, text: str, first: int, last: int) -> bool:
    """Whether the words of a text from `first` to the one before `last`, which are part of a question, state it."""
    if not question:
        return False
    start, end = span(text, first, last)
    opening = list(_START.finditer(text, 0, start))
    if not words_of(text[opening[-1].end() if opening else 0 : start]):
        return False  # a part of the question stands alone
    end = start + _NO_WORD.search(text[start:end]).start()  # type: ignore[union-attr] # it matches the empty text
    found = _END.search(text, end)
    if found is None:
        return text.rstrip().endswith(tuple(_COMMAS))  # it goes on
    return found[0] not in f"{_ASKS}\n"
