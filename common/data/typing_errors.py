"""Tell a typing error from another word: one character replaced, dropped, doubled, or swapped with its neighbour.

Usage: `is_slip("capital", "captial")`; `Slips(texts).past(("mali", "and"), 0, ("mlai", "and"), 0)` is (2, 2).

It is about copies of known texts. Other words are those with a digit, single letters ("vitamin A"), abbreviations, and
what these texts themselves have in such a place. In scripts without spaces a word here is a character with its marks.
"""

from __future__ import annotations

import functools
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from common.data.words import WORD, weight_of

# Words of a passage and of a text: one for one, two run together, one torn apart, a letter that is gone.
GAPS = ((1, 1), (2, 1), (1, 2), (1, 0))
# Besides, of characters: one too few or too many, two swapped, and marks that then belong to another one.
GAPS_UNSPACED = ((1, 1), (1, 0), (0, 1), (2, 2), (2, 1), (1, 2), (3, 3))
MOST_TAKEN = 3  # words of a passage in any of them
ABBREVIATION = 3  # letters; a longer one is seldom another with one letter changed
COMMON, COMMON_SHARE = 5, 0.05  # texts that a word is in, and their share, from which on it is no abbreviation


def is_slip(known: str, written: str) -> bool:
    """Whether one text is the other with at most one character replaced, dropped, added, or two neighbours swapped."""
    if known == written:
        return True
    longer = len(written) - len(known)
    if not -1 <= longer <= 1:
        return False
    start = 0
    for one, other in zip(known, written, strict=False):
        if one != other:
            break
        start += 1
    a, b = known[start:], written[start:]
    if longer == 0:
        return a[1:] == b[1:] or (len(a) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:])
    return a == b[1:] if longer > 0 else a[1:] == b


class Slips:
    """Which words of a text may stand for others, given all texts of the passages as words."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        words, grams, number = Counter[str](), array("q"), 0
        self.words: dict[str, int] = {}  # and the number of each
        for text in texts:
            number += 1
            words.update(set(text))
            numbers = [self.words.setdefault(word, len(self.words)) for word in text]
            grams.extend(hash(tuple(numbers[i : i + _reach(word)])) for i, word in enumerate(text))
        # A hash of numbers, unlike one of words, is the same in every process. It takes 8 bytes, and a run 110.
        self._grams = array("q", sorted(grams))
        limit = max(COMMON, COMMON_SHARE * number)
        self._common = frozenset(word for word, found in words.items() if found >= limit)
        self._near: dict[str, list[str]] = {}  # what is left of a word without one of its characters -> words

    def remember(self, words: Iterable[str]) -> None:
        """Have `near` find these words."""
        for word in sorted(set(words)):
            if len(word) > 1 and not _unspaced(word) and not any(map(str.isdigit, word)):
                for left in set(_shortened(word)):
                    self._near.setdefault(left, []).append(word)

    def near(self, written: str) -> list[str]:
        """Return the remembered words that a word of a text may be a slip of."""
        found = dict.fromkeys(word for left in _shortened(written) for word in self._near.get(left, ()))
        return [word for word in found if is_slip(word, written)]

    def past(
        self, known: Sequence[str], own: int, words: Sequence[str], place: int, *, backwards: bool = False
    ) -> tuple[int, int] | None:
        """Return how far a passage and a text go on alike past a slip, from a place in each; None where there is none.

        Of the ways to explain the slip it is the one that goes furthest.
        """
        step, best = -1 if backwards else 1, None
        edge = own - backwards, place - backwards
        unspaced = any(0 <= at < len(of) and _unspaced(of[at]) for of, at in ((known, edge[0]), (words, edge[1])))
        for taken, used in GAPS_UNSPACED if unspaced else GAPS:
            end, last = own + step * taken, place + step * used
            if not (0 <= end <= len(known) and 0 <= last <= len(words)):
                continue
            written = words[min(place, last) : max(place, last)]
            if not self._stands_for(known, min(own, end), max(own, end), written):
                continue
            while 0 <= end - backwards < len(known) and 0 <= last - backwards < len(words):
                if known[end - backwards] != words[last - backwards]:
                    break
                end, last = end + step, last + step
            if best is None or abs(end - own) > abs(best[0] - own):
                best = end, last
        return best

    def _stands_for(self, known: Sequence[str], start: int, end: int, written: Sequence[str]) -> bool:
        """Whether some words may be written for those from start to end of a passage."""
        meant = known[start:end]
        one, other = "".join(meant), "".join(written)
        if one == other:
            return True  # a blank too few or too many
        if not is_slip(one, other) or any(map(str.isdigit, one + other)) or self._is_name(one):
            return False
        if not all(map(_unspaced, (*meant, *written))) and not (
            (len(meant) == len(written) == 1 and (len(one) > 1 or other == one + one)) or (not other and len(one) == 1)
        ):
            return False
        # Is it another word, which these texts have in the same place?
        size = _reach(meant[0] if meant else written[0])
        instead = [*known[max(0, start - size + 1) : start], *written, *known[end : end + size - 1]]
        runs = [instead[at : at + size] for at in range(len(instead) - size + 1)]
        return not all(map(self._has, runs))

    def _has(self, run: Sequence[str]) -> bool:
        """Whether some text of the passages has a run of words."""
        numbers = tuple(self.words.get(word, -1) for word in run)
        wanted = hash(numbers)
        place = bisect_left(self._grams, wanted)
        return -1 not in numbers and place < len(self._grams) and self._grams[place] == wanted

    def _is_name(self, known: str) -> bool:
        """Whether a word may be an abbreviation: rare, and of few letters that have case."""
        return len(known) <= ABBREVIATION and known[:1].upper() != known[:1] and known not in self._common


def _unspaced(word: str) -> bool:
    """Whether a word is a character of a script without spaces."""
    return _weight_of_letter(word[0]) < WORD


_weight_of_letter = functools.lru_cache(2**12)(weight_of)


def _reach(word: str) -> int:
    """Return how many words, or characters of a script without spaces, tell what is meant: about one and a half."""
    return -(-3 * WORD // (2 * _weight_of_letter(word[0])))


def _shortened(word: str) -> Iterator[str]:
    """Yield a word, and what is left of it without each of its characters."""
    yield word
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]
