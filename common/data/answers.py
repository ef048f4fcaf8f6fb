"""Compares an answer in words or numbers with the accepted ones.

Usage: `same_number(parse_number("It grew by 12.5%."), 12.5)`, `exact(reply, ["statute of frauds"])`,
`f1(reply, accepted)`.

It compares two texts; which part of a reply is the answer is the caller's business. Words are compared as SQuAD's
evaluation does (Rajpurkar et al. 2016, arXiv 1606.05250).
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

MINUS = "-\u2212\u2013"  # hyphen, minus sign, en dash
_UNSIGNED = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
# A number that does not go on from a word or number before it: "2019-2020" holds 2019 and 2020, "Q3" none.
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[{MINUS}](?=[$€£¥.\d]))?(?P<currency>[$€£¥]\s?(?P<inner>[{MINUS}])?)?"
    r"(?:(?P<power>\d+(?:\.\d+)?[eE][-+]?\d+)(?!\w)"
    rf"|(?<!/)(?:(?P<whole>\d{{1,2}}) )?(?P<over>{_UNSIGNED})\s?/\s?(?P<under>{_UNSIGNED})(?!\s?/|[.,]?\d)"
    r"|(?P<dotted>[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})(?![.,]?\d))"  # 1.234,5 and 1.234.567
    r"|(?P<spaced>[1-9]\d{0,2}(?P<gap>[ \u00a0\u2009\u202f'\u2019])\d{3}(?:(?P=gap)\d{3})*(?:\.\d+|,\d{1,2})?(?!\d))"
    r"|(?<!\d,)(?P<comma>\d+,(?:\d{1,2}|\d{4,5})|0,\d+)(?![.,]?\d)"
    rf"|(?P<digits>{_UNSIGNED}|\.\d+))"
)
# Digits that hang together, as in a date, a time or a number of some other notation.
_RUN = re.compile(r"\d+(?:[.,:/^'\u2019]\d+)+")
_LIST = re.compile(r"(?!.*,\d{3}(?:,|$))[\d,]+|[\d.]+")  # "1,2,3" and "1.2.3", where one part is read
_BEFORE_BRACKETED = re.compile(r"\(\s*$")
_AFTER_BRACKETED = re.compile(r"\s*%?\s*\)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def parse_number(text: str) -> float | None:
    """Return the last number of a text, or None where it has none.

    A currency sign and "%" are dropped ("12.5%" is 12.5), and a number alone in brackets is negative, as accounts write
    it: "(12.3)" is -12.3. What only one notation writes is read in that: 1,234.5; 1.234,5; 1 234; 1,5; 3/4; 1e3. A
    comma before three digits parts thousands, and a point alone is decimal. None too where the last number is but a
    part of something else, such as a date, so that nothing is half read.
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    value = _value(found)
    if value is None or not math.isfinite(value):  # hundreds of digits
        return None
    for run in _RUN.finditer(text):
        beyond = run.start() < found.end() < run.end() or run.start() < found.start("digits") < run.end() == found.end()
        if beyond and not _LIST.fullmatch(run[0]):
            return None
    bracketed = _BEFORE_BRACKETED.search(text[: found.start()]) and _AFTER_BRACKETED.match(text, found.end())
    return -value if found["sign"] or found["inner"] or (bracketed and not found["over"]) else value


def _value(found: re.Match[str]) -> float | None:
    """Return a number in any of its notations, without its sign; None for a fraction that is none."""
    if found["over"]:
        over, under = (float(found[name].replace(",", "")) for name in ("over", "under"))
        if not under or (found["whole"] and over >= under):
            return None
        return float(found["whole"] or 0) + over / under
    if european := found["dotted"] or found["comma"]:
        return float(european.replace(".", "").replace(",", "."))
    if found["spaced"]:
        return float(found["spaced"].replace(found["gap"], "").replace(",", "."))
    return float(found["power"] or found["digits"].replace(",", ""))


def final_answer(text: str, mark: str) -> str:
    """Return the first line behind the last occurrence of a mark, or the whole text where the mark is missing.

    For replies that may reason first and then end with, say, "Answer: 12.5".
    """
    lines = text.rpartition(mark)[2].strip().splitlines() if mark in text else [text.strip()]
    return lines[0].strip() if lines else ""


def same_number(first: float | None, second: float | None, relative: float = 1e-6) -> bool:
    """Whether two numbers differ by at most a share of the larger one; None, for no number, equals nothing."""
    if first is None or second is None:
        return False
    return math.isclose(first, second, rel_tol=relative, abs_tol=1e-9)


def normalise_text(text: str) -> str:
    """Return a text in lower case, without punctuation and English articles, its words parted by one space."""
    kept = (sign for sign in text.casefold() if sign not in string.punctuation)
    text = "".join(sign for sign in kept if not unicodedata.category(sign).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact(text: str, accepted: Sequence[str]) -> bool:
    """Whether a text is one of the accepted ones once both are normalised."""
    return _best(text, accepted, lambda words, wanted: float(words == wanted)) == 1.0


def f1(text: str, accepted: Sequence[str]) -> float:
    """Return the harmonic mean of the precision and recall of the words, for the accepted text that fits best."""
    return _best(text, accepted, _overlap)


def _best(text: str, accepted: Sequence[str], score: Callable[[list[str], list[str]], float]) -> float:
    texts = [accepted] if isinstance(accepted, str) else accepted  # a lone text is a sequence of letters
    return max((score(_words(text, wanted), _words(wanted, wanted)) for wanted in texts), default=0.0)


def _words(text: str, wanted: str) -> list[str]:
    """Return the normalised words, or the bare text where an accepted answer, such as "A", is nothing but articles."""
    return normalise_text(text).split() if normalise_text(wanted) else text.casefold().split()


def _overlap(words: list[str], wanted: list[str]) -> float:
    common = sum((Counter(words) & Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted)) if common else 0.0
