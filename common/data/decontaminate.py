"""Keep exam questions out of training rows: n-gram overlap, as in GPT-3 (Brown et al. 2020, appendix C).

Usage: `guard = Decontaminator(row["question"] for row in corpus.rows("questions_domain"))`, then
`rows = filter_rows(rows, guard, count)`.

A text is hit when it shares a run of `n` words with a question, or holds a whole shorter question of at least
six words. What a word is in each script, and what does not tell two apart, is `common.data.words`. It finds copies,
not paraphrases; questions under six words are too common to look for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common.data.accounting import RowCount
from common.data.corpus import Row
from common.data.texts import texts_of
from common.data.words import WORD, Cut, cut, pieces_of_text, weight_of

SHORTEST_QUESTION = 6  # words
EXAM_OVERLAP = "exam overlap"
HEAD = 4  # words of a run that are looked up before the whole of it
LONG = 2**18  # characters of a text that are cut into words at once
SPAN = 100  # characters that a word of a run takes at most on average, with what stands around it
_APOSTROPHES, _HYPHENS = re.compile("['\u2019]"), re.compile("(?<=\\w)[-\u2010\u2011](?=\\w)")


class Decontaminator:
    """The exam's questions, indexed by their runs of words."""

    def __init__(self, questions: Iterable[str], n: int = 13) -> None:
        assert n >= SHORTEST_QUESTION, f"runs of {n} words meet by chance"
        self._runs: dict[int, dict[tuple[str, ...], str]] = {}  # length -> run -> question
        self._starts: set[tuple[str, str]] = set()
        self._heads: set[tuple[str, ...]] = set()
        self._longest = 0
        for question in questions:
            # As it stands, and as one who leaves out its apostrophes, or its hyphens, would write it.
            for written in dict.fromkeys((question, _APOSTROPHES.sub("", question), _HYPHENS.sub("", question))):
                found = cut(written)
                self._add(question, found.words, [weight_of(word) for word in found.words], n)
                if found.joined is not None:
                    weights = [weight_of(word) for word in found.joined]
                    for place, size in zip(found.joints, found.sizes, strict=True):
                        weights[place] = size * WORD
                    self._add(question, found.joined, weights, n)

    def _add(self, question: str, words: Sequence[str], weights: Sequence[int], n: int) -> None:
        """Index every run that weighs `n` words, or the whole of a question that is shorter."""
        if sum(weights) < SHORTEST_QUESTION * WORD or len(words) < HEAD:
            return
        ends = list(itertools.accumulate(weights))
        least = min(n * WORD, ends[-1])
        end = 0
        for start in range(len(words)):
            before = ends[start - 1] if start else 0
            while end < len(words) and ends[end] - before < least:
                end += 1
            if end == len(words):
                return
            run = tuple(words[start : max(end + 1, start + HEAD)])
            if len(run) < HEAD:
                return
            self._runs.setdefault(len(run), {}).setdefault(run, question)
            self._starts.add((run[0], run[1]))
            self._heads.add(run[:HEAD])
            self._longest = max(self._longest, len(run))

    def hit(self, text: str) -> str | None:
        """Return the exam question that the text repeats, or None."""
        if not self._runs:
            return None
        before = ""
        for piece in pieces_of_text(text, LONG):
            piece = before + piece  # a run, or a word that a hyphen joins, may lie across two pieces
            question = self._find(cut(piece))
            if question is not None:
                return question
            before = piece[-SPAN * self._longest :]
        return None

    def _find(self, found: Cut) -> str | None:
        starts = self._starts
        # Most positions end at this pair look-up, so that a text costs little more than splitting it.
        places = [i for i, pair in enumerate(itertools.pairwise(found.words)) if pair in starts]
        question = self._at(found.words, places)
        if question is not None or found.joined is None:
            return question
        words = found.joined
        near = {i for joint in found.joints for i in range(max(0, joint - self._longest), joint + 1)}
        return self._at(words, [i for i in near if tuple(words[i : i + 2]) in starts])

    def _at(self, words: list[str], places: Iterable[int]) -> str | None:
        """Return the question of which a run stands at one of some places."""
        for place in places:
            if tuple(words[place : place + HEAD]) in self._heads:
                for length, runs in self._runs.items():
                    question = runs.get(tuple(words[place : place + length]))
                    if question is not None:
                        return question
        return None


def filter_rows(
    rows: Iterable[Row], decontaminator: Decontaminator, count: RowCount | Mapping[str, RowCount]
) -> Iterator[Row]:
    """Yield the rows that repeat no exam question; the others are counted as dropped.

    `count` is one account for all rows, or one per source id. Only its `dropped` changes here.
    """
    for row in rows:
        if any(decontaminator.hit(text) for text in texts_of(row)):
            (count if isinstance(count, RowCount) else count[row["source"]]).drop(EXAM_OVERLAP)
        else:
            yield row
