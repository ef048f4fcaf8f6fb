"""Cut a text of any script into words as they are compared: one spelling, no case, no punctuation, no layout.

Usage: `words_of("diag-\\nnosed")`; `cut(text).joined`; `count_words("中国的首都是哪座城市?")`; `written_words("A, b")`.

Words are runs of letters, digits and the marks that belong to them, as Unicode segments text (UAX 29): a vowel sign
of Devanagari is part of its word. What is only layout goes first: compatibility forms (full width, ligatures), case,
characters that are ignored when shown (soft hyphens, joiners, marks of direction, byte order marks), and pointing that
writers leave out: Arabic and Hebrew points, the Arabic tatweel, accents of stress, the dots of the Russian io. So do
the accents of Latin and Greek, which capitals, keyboards and extraction lose, and the tags and entities of HTML.

A hyphen or apostrophe within a word may end a line there, be part of the word, or be left out by a writer. So such a
word is known in two forms, cut and joined.

Scripts without spaces between words are cut into their characters, each with its marks. How many of them count as a
word is ours, about what a translation needs for an English word: of Han 1.7 characters, of kana 3, of Thai, Lao, Khmer
and Burmese 4 with their marks. Thirteen words are then about as unlikely to be met by chance in each script.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

WORD = 60  # the weight of a word; a whole number, so that ten Han characters are six words exactly
_UNSPACED = {  # script -> (weight of a character, first and last code point of its blocks)
    "han": (36, ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))),
    "kana": (20, ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x1B000, 0x1B16F))),
    "thai and lao": (15, ((0x0E00, 0x0EFF),)),
    "burmese": (15, ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F))),
    "khmer": (15, ((0x1780, 0x17FF),)),
}
# What Unicode says to ignore when shown (Default_Ignorable_Code_Point), then points and accents that may be left out.
_LAYOUT = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc]+"
)
_SPELLINGS = (("\u2010", "-"), ("\u2011", "-"), ("\u2019", "'"), ("\u0451", "\u0435"), ("_", " "))
_JOINT = re.compile(r"-\s*|'")  # behind an apostrophe and a blank a new word begins
_ASCII = re.compile(r"[a-z0-9]+(?:(?:-\s*|')[a-z0-9]+)*")
# Latin, Greek, Cyrillic, Georgian and Hangul have no marks once they are composed, so that a shorter pattern does.
_SIMPLE = re.compile(r"\w+(?:(?:-\s*|')\w+)*")
_NOT_SIMPLE = re.compile(
    "[^\x00-\xac\xae-\u02ff\u0370-\u0482\u048a-\u052f\u10a0-\u10ff\u1e00-\u200a\u2010-\u2029\u2030-\u205f"
    "\u20a0-\u20cf\u2100-\u2bff\uac00-\ud7a3]"
)
_HAN, _MAY_CHANGE = re.compile("[\u4e00-\u9fff]"), re.compile("[^\x00-\x7f\u4e00-\u9fff]+")

# Tags of a word's own letters, as in H<sub>2</sub>O, and those that part words; others may be part of the text.
_ATTRIBUTES = r"(?:\s+[\w:-]+\s*=[^<>]*)?\s*/?>"
_INSIDE = re.compile(r"</?(?:a|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u)" + _ATTRIBUTES, re.I)
_BETWEEN = re.compile(
    r"</?(?:blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|img|li|ol|p|pre|table|tbody|td|th|thead|tr|ul)" + _ATTRIBUTES,
    re.I,
)


def _ranges(places: list[int]) -> str:
    """Write code points as the inside of a character class."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][1] == place - 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


@functools.cache
def _any() -> re.Pattern[str]:
    """Return what matches a word, with joiners inside, or a character of a script without spaces.

    It is made when a text needs it: a plan reads words of English alone.
    """
    blocks = [block for _, found in _UNSPACED.values() for block in found]
    base = [c for first, last in blocks if last < 0x10000 for c in range(first, last + 1) if chr(c).isalnum()]
    unspaced = _ranges(sorted(base)) + "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    marks = _ranges([place for place in range(0x0300, 0xFFFF) if unicodedata.category(chr(place))[0] == "M"])
    # Beyond the first plane marks are taken with the letters around them: a long class would be slow for every word.
    marks += "\U00010300-\U0001afff\U0001b170-\U0001e95f"
    word = rf"[^\W_{unspaced}]+(?:[{marks}]+[^\W_{unspaced}]*)*"
    return re.compile(rf"{word}(?:(?:-\s*|'){word})*|[{unspaced}][{marks}]*")


# Words as they are written; signs are a word where they stand alone, as in a | b.
_ALONE = r"(?<!\S)(?:[^\w\s]|_)+(?!\S)"
_WRITTEN_ASCII = re.compile(rf"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*|{_ALONE}")
_WRITTEN_SIMPLE = re.compile(rf"[^\W_]+(?:['\u2019-][^\W_]+)*|{_ALONE}")


@functools.cache
def _written() -> re.Pattern[str]:
    return re.compile(rf"{_any().pattern}|{_ALONE}")


@functools.cache
def _plain_letters() -> tuple[dict[str, str], re.Pattern[str]]:
    """Return the letters of Latin and Greek with accents, each with the one left without them; and what matches one."""
    plain = {"\u0110": "D", "\u0111": "d", "\u0131": "i", "\u0141": "L", "\u0142": "l", "\u00d8": "O", "\u00f8": "o"}
    for place in (*range(0xC0, 0x250), *range(0x370, 0x400), *range(0x1E00, 0x2000)):
        parts = unicodedata.normalize("NFD", chr(place))
        if len(parts) > 1 and all("\u0300" <= accent <= "\u036f" for accent in parts[1:]):
            plain[chr(place)] = parts[0]
    return plain, re.compile(f"[{_ranges(sorted(map(ord, plain)))}]")


class Cut(NamedTuple):
    """A text as words, cut at hyphens and apostrophes; and, where it has some, joined at them."""

    words: list[str]
    joined: list[str] | None  # None: there is nothing to join
    joints: tuple[int, ...]  # places among `joined` of the words that were joined
    sizes: tuple[int, ...]  # of how many words each of those was made


def cut(text: str) -> Cut:
    """Return the words of a text in both forms."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _BETWEEN.sub(" ", _INSIDE.sub("", text))
    if text.isascii():
        text = text.lower()
        found = _ASCII.findall(text)
    else:
        plain, accented = _plain_letters()
        text = accented.sub(lambda letter: plain[letter[0]], _composed(text))
        simple = _NOT_SIMPLE.search(text) is None
        text = (text if simple else _LAYOUT.sub("", text)).casefold()
        for sign, usual in _SPELLINGS:
            text = text.replace(sign, usual)
        found = (_SIMPLE if simple else _any()).findall(text)
    joints = [i for i, word in enumerate(found) if "-" in word or "'" in word] if "-" in text or "'" in text else []
    if not joints:
        return Cut(found, None, (), ())
    words, sizes, start = [], [], 0
    joined = found.copy()
    for place in joints:
        parts = _JOINT.split(found[place])
        words += found[start:place]
        words += parts
        joined[place] = "".join(parts)
        sizes.append(len(parts))
        start = place + 1
    words += found[start:]
    return Cut(words, joined, tuple(joints), tuple(sizes))


def _composed(text: str) -> str:
    """Return a text without compatibility forms. Between Han characters, which have none, it takes a third of the time.

    A mark behind a letter of ASCII is then left beside it; it is one of those that are taken away as layout.
    """
    if _HAN.search(text) is None or unicodedata.is_normalized("NFKC", text):
        return unicodedata.normalize("NFKC", text)
    return _MAY_CHANGE.sub(lambda part: unicodedata.normalize("NFKC", part[0]), text)


def words_of(text: str) -> list[str]:
    """Return the words of a text, cut at hyphens and apostrophes."""
    return cut(text).words


def written_words(text: str) -> list[str]:
    """Return the words of a text as they are written, and runs of signs that have blanks on both sides."""
    if text.isascii():
        return _WRITTEN_ASCII.findall(text)
    return (_WRITTEN_SIMPLE if _NOT_SIMPLE.search(text) is None else _written()).findall(text)


def weight_of(word: str) -> int:
    """Return what a word weighs: WORD, or less for a character of a script without spaces."""
    place = ord(word[0])
    if place < 0x0E00:
        return WORD
    return next((weight for weight, blocks in _UNSPACED.values() if any(a <= place <= b for a, b in blocks)), WORD)


def count_words(text: str) -> float:
    """Return how many words a text has, or as many characters as weigh like words."""
    return sum(map(weight_of, words_of(text))) / WORD


def pieces_of_text(text: str, size: int) -> Iterator[str]:
    """Yield a text in pieces of at most about `size` characters, each of which ends before a blank where it has one."""
    start = 0
    while start < len(text):
        end = len(text)
        if end - start > size:
            blank = max(text.rfind(sign, start + size // 2, start + size) for sign in " \n\t")
            end = start + size if blank < 0 else blank
        yield text[start:end]
        start = end
