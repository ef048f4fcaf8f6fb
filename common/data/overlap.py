"""Find passages of an exam inside texts: as they stand, or with one typing error in them.

Usage: `index = PassageIndex(passages, n=13)`; `for found in index.search(words): ...`.

A passage is found where a text shares a run of `n` words with it, or holds the whole of a shorter one. One word of the
run may be mistyped: a character replaced, dropped, doubled, or swapped with its neighbour. What is no typing error is
in `common.data.typing_errors`. Runs that many passages of one exam share, such as the instructions around each
question, are no evidence by themselves.

Of every four words of a passage, or three of a short one, a seed of three is looked up, the one whose words are rarest
in the exam. A run that counts has two seeds, so that a typing error leaves one of them. Where many passages share a
seed, a tree of the words around it tells them apart, so that a look-up costs the same however many they are.

It knows words only. Texts are cut in `common.data.words`; what is done about a row is `common.data.decontaminate`.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.data.typing_errors import MOST_TAKEN, Slips
from common.data.words import WORD, weight_of

SHORTEST = 6  # words of a passage that is looked for
LEAST_UNITS = 4  # words or characters that a run has at least
BLOCK, SPARSE_BLOCK = 4, 8  # words of which one seed is looked up
SEED, SEED_UNITS = 2, 3  # what a seed weighs at least, in words, and how many words or characters it has
FEW = 32  # passages that are compared one by one
END = "\n"  # in a tree: a passage goes no further to the right; no word is a line end


@dataclass(frozen=True, slots=True)
class Form:
    """A passage as one way to write it: its words, where each ends in weight, and how much of it makes a hit."""

    passage: int
    words: tuple[str, ...]
    ends: Sequence[int]  # ends[i]: weight of the words before place i
    own: Sequence[int]  # the same, of words that are not in instructions alone
    least: int
    least_own: int
    enough_with_slip: int  # what a run with a typing error in it weighs at least
    block: int  # words of which one seed is looked up

    def is_evidence(self, start: int, end: int) -> bool:
        """Whether the words from start to end say that the passage is there."""
        return self.ends[end] - self.ends[start] >= self.least and self._is_own(start, end)

    def is_evidence_with_slip(self, start: int, end: int) -> bool:
        """Whether words with a typing error among them do: it takes twice as many, or all.

        A longer passage has a run without one, and a shorter run may be of another question that is worded alike.
        """
        return self.ends[end] - self.ends[start] >= self.enough_with_slip and self._is_own(start, end)

    def _is_own(self, start: int, end: int) -> bool:
        return self.own[end] - self.own[start] >= self.least_own and end - start >= LEAST_UNITS


class Match(NamedTuple):
    """Where a form lies in a text: from `start` to `end` of its words, which are those from `first` to `last` there."""

    form: Form
    start: int
    end: int
    first: int
    last: int
    is_clean: bool = True  # its first and last words are written as in the form

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the form; a typing error in its first or last word may be another word."""
        return self.is_clean and self.start == 0 and self.end == len(self.form.words)


Seed = tuple[str, ...]
Candidate = tuple[int, int]  # a form, and the place of the seed in it
Tree = list[Candidate] | dict[str, Any]


class PassageIndex:
    """Forms of passages, by the seeds that are looked up: a few neighbouring words of each block."""

    def __init__(self, forms: Sequence[Form]) -> None:
        """Index forms, whose equal words are best one object each."""
        self._forms = forms
        self._slips = Slips(form.words for form in forms)
        counted = Counter(word for form in forms for word in form.words)
        seeds: dict[Seed, Any] = {}
        for number, form in enumerate(forms):
            for place, seed in _seeds_of(form, counted):
                seeds.setdefault(seed, []).append((number, place))
        # Held-out texts may be many: nothing is kept twice here, not even for a moment.
        self._sizes: dict[tuple[str, str], tuple[int, ...]] = {}
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        for seed, found in seeds.items():
            seeds[seed] = self._grow(found, len(seed), 0)
            pair = seed[0], seed[1]
            sizes = tuple(sorted({*self._sizes.get(pair, ()), len(seed)}))
            self._sizes[pair] = shared.setdefault(sizes, sizes)
        self._seeds: dict[Seed, Tree] = seeds
        self._slips.remember(word for tree in self._seeds.values() for word in _keys(tree))

    def search(self, words: Sequence[str], places: Iterable[int] | None = None) -> Iterator[Match]:
        """Yield what is found in a text, at seeds that begin at some places, or at all of them."""
        sizes = self._sizes
        if places is None:  # most positions end at this look-up, so that a text costs little more than splitting it
            places = [place for place, pair in enumerate(itertools.pairwise(words)) if pair in sizes]
        seeds, passed = self._seeds, dict[int, int]()  # form -> place of the text up to which its last match goes
        for place in places:
            for size in sizes.get((words[place], words[place + 1]), ()):
                tree = seeds.get(tuple(words[place : place + size]))
                if tree is None:
                    continue
                few = tree if isinstance(tree, list) else self._candidates(tree, words, place, size)
                for number, own in few:
                    if place < passed.get(number, 0):
                        continue
                    match = self._align(self._forms[number], own, words, place)
                    if match is not None:
                        passed[number] = match.last
                        yield match

    def _grow(self, found: list[Candidate], right: int, left: int) -> Tree:
        """Return a few candidates as they are, or a tree by the next word: to the right, then to the left."""
        if len(found) <= FEW:
            return found
        children: dict[str, list[Candidate]] = {}
        over: list[Candidate] = []
        for number, place in found:
            form = self._forms[number]
            there = place - left if left else place + right
            if 0 <= there < len(form.words) and (left or form.ends[there] - form.ends[place] < form.least):
                children.setdefault(form.words[there], []).append((number, place))
            else:
                over.append((number, place))
        tree: dict[str, Any] = {
            word: self._grow(below, right + (not left), left + bool(left)) for word, below in children.items()
        }
        if over:  # those that are the same word for word are one hit, whichever is named
            tree[END] = over[:FEW] if left else self._grow(over, right, 1)
        return tree

    def knows(self, word: str) -> bool:
        """Whether a word is in some passage."""
        return word in self._slips.words

    def _candidates(self, tree: Tree, words: Sequence[str], place: int, size: int) -> Iterator[Candidate]:
        """Yield the candidates that the words around a seed leave, with at most one of these mistyped."""
        waiting: list[tuple[Tree, int, int, bool]] = [(tree, size, 0, False)]
        while waiting:
            node, right, left, mistyped = waiting.pop()
            if isinstance(node, list):
                yield from node
                continue
            if END in node:
                waiting.append((node[END], right, left or 1, mistyped))
            there = place - left if left else place + right
            if not 0 <= there < len(words):
                continue
            further = (right + (not left), left + bool(left))
            if words[there] in node:
                waiting.append((node[words[there]], *further, mistyped))
            elif not mistyped:
                waiting += [(node[word], *further, True) for word in self._slips.near(words[there]) if word in node]

    def _align(self, form: Form, own: int, words: Sequence[str], place: int) -> Match | None:
        """Return the run around a seed, where it is long enough; past one typing error if need be."""
        known = form.words
        end, last = own, place
        while end < len(known) and last < len(words) and known[end] == words[last]:
            end, last = end + 1, last + 1
        start, first = own, place
        while start and first and known[start - 1] == words[first - 1]:
            start, first = start - 1, first - 1
        if form.is_evidence(start, end):
            return Match(form, start, end, first, last)
        ends, enough = form.ends, form.enough_with_slip
        # Most seeds are met by chance: the word that a run past an error needs at its far end is then not there.
        needed = bisect_left(ends, ends[start] + enough) - 1
        if needed < len(known) and (needed < end + MOST_TAKEN or _is_near(known[needed], words, last + needed - end)):
            ahead = self._slips.past(known, end, words, last)
            if ahead is not None and form.is_evidence_with_slip(start, ahead[0]):
                clean = ahead[1] > last and known[ahead[0] - 1] == words[ahead[1] - 1]
                return Match(form, start, ahead[0], first, ahead[1], clean)
        needed = bisect_right(ends, ends[end] - enough) - 1
        if needed >= 0 and (needed >= start - MOST_TAKEN or _is_near(known[needed], words, first - start + needed)):
            behind = self._slips.past(known, start, words, first, backwards=True)
            if behind is not None and form.is_evidence_with_slip(behind[0], end):
                clean = behind[1] < first and known[behind[0]] == words[behind[1]]
                return Match(form, behind[0], end, behind[1], last, clean)
        return None


def _is_near(word: str, words: Sequence[str], place: int) -> bool:
    """Whether a word stands at a place of a text or beside it, as after an error that adds or takes one."""
    return word in words[max(0, place - 1) : max(0, place + 2)]


def _keys(tree: Tree) -> Iterator[str]:
    """Yield every word by which a tree parts its candidates."""
    if isinstance(tree, dict):
        for word, below in tree.items():
            yield word
            yield from _keys(below)


def _seeds_of(form: Form, counted: Mapping[str, int]) -> Iterator[tuple[int, Seed]]:
    """Yield the seed of each block with its place: the one whose first words are rarest in the exam, then longest."""
    words, ends = form.words, form.ends
    blocks = max(2, ends[-1] // (form.block * WORD))
    start = 0
    for number in range(1, blocks + 1):
        end, limit = start, ends[-1] * number // blocks
        while end < len(words) and ends[end + 1] <= limit:
            end += 1
        best: tuple[tuple[int, int, int], int, Seed] | None = None
        for place in range(start, max(end, start + 1)):
            last = place + SEED_UNITS
            while last < len(words) and ends[last] - ends[place] < SEED * WORD:
                last += 1
            # A seed ends within its block, unless a word there weighs too much.
            if last > len(words) or (last > end and best is not None):
                break
            first, second = words[place], words[place + 1]
            rank = counted[first] * counted[second], -len(first) - len(second), place
            if best is None or rank < best[0]:
                best = rank, place, words[place:last]
        if best is not None:
            yield best[1:]
        start = end


def form_of(
    passage: int, words: Sequence[str], weights: Sequence[int] | None, n: int, *, sparse: bool, common: Sequence[bool]
) -> Form | None:
    """Return a form of a passage, or None where that is too short to be looked for.

    `weights` are those of the words where they differ from a word's; `common` says which words are in instructions, if
    any is. With `sparse` fewer places of a long passage are looked up: enough where much of it must be found.
    """
    if weights is None and (len(words) < 1 or max(words) < "\u0e00"):
        ends: Sequence[int] = range(0, (len(words) + 1) * WORD, WORD)
    else:
        weights = [weight_of(word) for word in words] if weights is None else weights
        ends = [0, *itertools.accumulate(weights)]
    if ends[-1] < SHORTEST * WORD or len(words) < LEAST_UNITS:
        return None
    own = ends
    if any(common):
        counted = (0 if c else b - a for a, b, c in zip(ends, ends[1:], common, strict=False))
        own = [0, *itertools.accumulate(counted)]
        if not own[-1]:
            return None
    least_own = min(SHORTEST * WORD, own[-1])
    block = SPARSE_BLOCK if sparse and ends[-1] >= 4 * n * WORD else BLOCK
    least, enough = min(n * WORD, ends[-1]), min(2 * n * WORD, ends[-1])
    return Form(passage, tuple(words), ends, own, least, least_own, enough, block)
