"""Keep what an exam asks and holds out away from training rows: runs of words, as in GPT-3 (Brown et al. 2020, app. C).

Usage: `guard = guard_of(corpus, "sft", benchmarks)`, then `hit = guard.hit(text)`, `guard.hit_in(row)`,
`rows = filter_rows(rows, guard, count)`, or `judge = gate(guard)` for the rejects' sample.

A text is hit when it shares a run of `n` words with a question, or holds a whole shorter question of at least six
words, with one typing error at most. A sentence that states what is asked, as the text that a question was made from
does, is no part of a copy (`common.data.phrasing`). A held-out text is copied where most of it (80%) is found, or most
of a row is part of it: texts of one field share paragraphs. What a word is in each script, and what does not tell two
apart, is `common.data.words`; how runs are found is `common.data.overlap`. It finds copies, not paraphrases; questions
under six words are too common to look for. Passages come from `common.data.exam_passages`.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from common.config.blocks import Drop
from common.data.accounting import RowCount
from common.data.corpus import Row
from common.data.exam_passages import Examined, Passage, exam_passages, shared_runs
from common.data.excerpts import excerpt, shown
from common.data.overlap import SHORTEST, Form, Match, PassageIndex, form_of
from common.data.phrasing import question_in, states_it
from common.data.texts import UNWOVEN, texts_of
from common.data.words import WORD, Cut, cut, pieces_of_text, weight_of, words_of

EXAM_OVERLAP = "exam overlap"
LONG = 2**18  # characters of a text that are cut into words at once
SPAN = 100  # characters that a word of a run takes at most on average, with what stands around it
COPIED = 0.8  # of a held-out text, or of a row, from which on one is a copy of the other
RUNS = 2  # that a row has of a held-out text at least, where it is a part of that
STATED = 16  # statements of a question in a piece of text; one more is taken for a copy, as telling is slow
COMMON, COMMON_SHARE = 10, 0.2  # questions of an exam, and their share, whose instructions are the same
_APOSTROPHES, _HYPHENS = re.compile("['\u2019]"), re.compile("(?<=\\w)[-\u2010\u2011](?=\\w)")
Way = tuple[Sequence[str], Sequence[int] | None]  # words, and what each weighs where they were joined


class Hit(NamedTuple):
    """A passage of the exam that a text repeats, and the part of the text that does."""

    passage: Passage
    matched: str

    @property
    def detail(self) -> str:
        """Both texts in one line, each without its middle where it is long."""
        return f"{self.passage.name or 'exam'}: {shown(self.passage.text)!r}; in the row: {shown(self.matched)!r}"


class Decontaminator:
    """The passages of an exam, indexed by their runs of words. It can be pickled, to cross to other processes."""

    def __init__(self, passages: Iterable[Passage | str], n: int = 13) -> None:
        assert n >= SHORTEST, f"runs of {n} words meet by chance"
        self._n = n
        self._passages = [one if isinstance(one, Passage) else Passage(one) for one in passages]
        self._whole: dict[tuple[str, ...], int] = {}  # held-out texts of a few words: rows that are equal
        forms: list[Form] = []
        known: dict[str, str] = {}
        numbered = enumerate(self._passages)
        for _, group in itertools.groupby(sorted(numbered, key=lambda one: one[1].exam), key=lambda one: one[1].exam):
            forms += self._forms_of(list(group), known)
        self._index = PassageIndex(forms)
        # Words of the longest run that makes a hit: characters weigh less than words.
        self._longest = max((min(len(f.words), f.least // min(map(weight_of, f.words)) + 1) for f in forms), default=0)

    def __len__(self) -> int:
        return len(self._passages)

    def _forms_of(self, group: Sequence[tuple[int, Passage]], known: dict[str, str]) -> Iterator[Form]:
        """Yield the forms of one exam's passages. `known` has each word once, with those of other exams."""
        questions = {number: list(_ways_to_write(one.text, known)) for number, one in group if not one.held_out}
        common = shared_runs([found[0][0] for found in questions.values()], self._n, COMMON, COMMON_SHARE)
        for number, one in group:
            for words, weights in questions.pop(number, None) or _ways_to_write(one.text, known):
                form = form_of(
                    number, words, weights, self._n, sparse=one.held_out, common=_within(words, common, self._n)
                )
                if form is not None:
                    yield form
                elif one.held_out and words:
                    self._whole.setdefault(tuple(words), number)

    def hit(self, text: str) -> Hit | None:
        """Return the passage of the exam that the text repeats, or None."""
        if not self._passages:
            return None
        copied, before = _Copied(), ""
        for piece in pieces_of_text(text, LONG):
            piece = before + piece  # a run, or a word that a hyphen joins, may lie across two pieces
            found = cut(piece)
            stated = Counter[int]()  # how often this piece states what a form asks: it is slow to tell
            for match in self._matches(found):
                passage = self._passages[match.form.passage]
                if passage.held_out:
                    copied.add(match, piece)
                elif match.is_whole or stated[id(match.form)] == STATED or not self._states(passage, match, piece):
                    return Hit(passage, excerpt(piece, match.first, match.last))
                else:
                    stated[id(match.form)] += 1
            if len(piece) == len(text) and len(found.words) < 4 * SHORTEST:
                whole = self._whole.get(tuple(found.words))
                if whole is not None:
                    return Hit(self._passages[whole], text)
            before = piece[-SPAN * self._longest :] if self._longest else ""
        return copied.hit(self._passages, text, self._n) if copied else None

    def _states(self, passage: Passage, match: Match, text: str) -> bool:
        """Whether a text states what a question asks about; a run of twice as many words is a copy all the same."""
        form = match.form
        if form.ends[match.end] - form.ends[match.start] >= 2 * self._n * WORD:
            return False
        question = question_in(passage.text)
        end = len(form.words)
        start = end - len(words_of(question))
        is_all_of_it = match.is_clean and match.start <= start and match.end == end
        return match.end > start and not is_all_of_it and states_it(question, text, match.first, match.last)

    def hit_in(self, row: Row) -> Hit | None:
        """Return the passage of the exam that a text of a row repeats, or one that it was woven of; or None."""
        texts = (*texts_of(row), *row.get(UNWOVEN, ()))
        return next((hit for text in texts if (hit := self.hit(text)) is not None), None)

    def _matches(self, found: Cut) -> Iterator[Match]:
        """Yield the matches of a text in both its forms, by their places among the words of the first."""
        yield from self._index.search(found.words)
        if found.joined is None:
            return
        knows, joints = self._index.knows, found.joints
        near = {
            place for joint in joints if knows(found.joined[joint])
            for place in range(max(0, joint - self._longest), min(joint + self._longest, len(found.joined) - 1))
        }  # fmt: skip
        if near:
            added = [0, *itertools.accumulate(size - 1 for size in found.sizes)]
            for match in self._index.search(found.joined, sorted(near)):
                first, last = (at + added[bisect_left(joints, at)] for at in (match.first, match.last))
                yield match._replace(first=first, last=last)


class _Copied:
    """What was found of held-out texts in one text."""

    def __init__(self) -> None:
        self._found: dict[int, list[tuple[Match, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, match: Match, piece: str) -> None:
        self._found.setdefault(id(match.form), []).append((match, piece))

    def hit(self, passages: Sequence[Passage], text: str, n: int) -> Hit | None:
        """Return the first held-out text of which enough was found, with its longest run."""
        size: int | None = None
        for matches in self._found.values():
            form = matches[0][0].form
            covered, end = 0, 0
            for match, _ in sorted(matches, key=lambda one: (one[0].start, one[0].end)):
                covered += max(0, form.ends[match.end] - form.ends[max(end, match.start)]) if match.end > end else 0
                end = max(end, match.end)
            if covered < COPIED * form.ends[-1]:
                if covered < RUNS * n * WORD:
                    continue
                size = size if size is not None else sum(map(weight_of, words_of(text)))
                if covered < COPIED * size:
                    continue
            longest, piece = max(matches, key=lambda one: one[0].last - one[0].first)
            return Hit(passages[form.passage], excerpt(piece, longest.first, longest.last))
        return None


def _ways_to_write(text: str, known: dict[str, str]) -> Iterator[Way]:
    """Yield the words of a passage as it stands, and as one who leaves out apostrophes, or hyphens, would write it.

    Each word is the one of `known`, which has all of them once.
    """
    seen = set[tuple[str, ...]]()
    for written in dict.fromkeys((text, _APOSTROPHES.sub("", text), _HYPHENS.sub("", text))):
        found = cut(written)
        ways: list[Way] = [(found.words, None)]
        if found.joined is not None:
            weights = [weight_of(word) for word in found.joined]
            for place, size in zip(found.joints, found.sizes, strict=True):
                weights[place] = size * WORD
            ways.append((found.joined, weights))
        for words, weights_of in ways:
            if tuple(words) not in seen:
                seen.add(tuple(words))
                yield [known.setdefault(word, word) for word in words], weights_of


def _within(words: Sequence[str], runs: set[tuple[str, ...]], length: int) -> Sequence[bool]:
    """Return which words lie in one of some runs of a length; nothing where none does."""
    if not runs:
        return ()
    found = [False] * len(words)
    for place in range(len(words) - length + 1):
        if tuple(words[place : place + length]) in runs:
            found[place : place + length] = [True] * length
    return found


def guard_of(corpus: Examined, role: str, benchmarks: Iterable[Passage] = ()) -> Decontaminator:
    """Return what keeps rows of a training role apart from the exam of a corpus and from some benchmarks."""
    return _indexed((*exam_passages(corpus, role), *benchmarks))


@functools.lru_cache(maxsize=1)  # the roles and sources of a stage mostly share one exam
def _indexed(passages: tuple[Passage, ...]) -> Decontaminator:
    return Decontaminator(passages)


def gate(decontaminator: Decontaminator) -> Callable[[Row], Row | Drop]:
    """Return what judges a row: the row itself, or a Drop that names the exam's passage and the row's."""

    def judge(row: Row) -> Row | Drop:
        hit = decontaminator.hit_in(row)
        return _told(row) if hit is None else Drop(EXAM_OVERLAP, hit.detail)

    return judge


def filter_rows(
    rows: Iterable[Row], decontaminator: Decontaminator, count: RowCount | Mapping[str, RowCount]
) -> Iterator[Row]:
    """Yield the rows that repeat nothing of the exam; the others are counted as dropped.

    `count` is one account for all rows, or one per source id. It also gets both texts of the first of them.
    """
    for row in rows:
        if (hit := decontaminator.hit_in(row)) is not None:
            (count if isinstance(count, RowCount) else count[row["source"]]).drop(EXAM_OVERLAP, hit.detail)
        else:
            yield _told(row)


def _told(row: Row) -> Row:
    """Return a row without what only tells whether it repeats the exam."""
    return {key: value for key, value in row.items() if key != UNWOVEN} if UNWOVEN in row else row
