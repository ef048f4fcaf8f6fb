"""Keep exam questions out of training rows: n-gram overlap, as in GPT-3 (Brown et al. 2020, appendix C).

Usage: `guard = Decontaminator(row["question"] for row in corpus.rows("questions_domain"))`, then
`rows = filter_rows(rows, guard, count)`.

A text is hit when it shares a run of `n` words with a question, or holds a whole shorter question of at least
six words. It finds copies, not paraphrases; questions under six words are too common to look for.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from common.data.accounting import RowCount
from common.data.corpus import Row

SHORTEST_QUESTION = 6  # words
EXAM_OVERLAP = "exam overlap"
# Scripts written without spaces (Thai to Myanmar, Khmer, kana, CJK) count each character as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are compared: one spelling, no case, no punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Decontaminator:
    """The exam's questions, indexed by their runs of words."""

    def __init__(self, questions: Iterable[str], n: int = 13) -> None:
        assert n >= SHORTEST_QUESTION, f"runs of {n} words meet by chance"
        self._runs: dict[int, dict[tuple[str, ...], str]] = {}  # length -> run -> question
        self._starts: set[tuple[str, str]] = set()
        for question in questions:
            words = words_of(question)
            if len(words) < SHORTEST_QUESTION:
                continue
            length = min(n, len(words))
            runs = self._runs.setdefault(length, {})
            for start in range(len(words) - length + 1):
                runs.setdefault(tuple(words[start : start + length]), question)
                self._starts.add((words[start], words[start + 1]))

    def hit(self, text: str) -> str | None:
        """Return the exam question that the text repeats, or None."""
        words = words_of(text)
        starts = self._starts
        # Most positions end at this pair look-up, so that a text costs little more than splitting it.
        places = [i for i, pair in enumerate(itertools.pairwise(words)) if pair in starts]
        for length, runs in self._runs.items():
            for place in places:
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


def texts_of(row: Row) -> Iterator[str]:
    """Yield each piece of text that a training row would teach."""
    if "text" in row:
        yield row["text"]
    for name in ("messages", "prompt", "chosen", "rejected", "completion"):
        for message in row.get(name, ()):
            yield message["content"]
            yield message.get("reasoning_content") or ""
            for call in message.get("tool_calls") or ():
                yield json.dumps(call["function"].get("arguments"), ensure_ascii=False)
