"""How many rows a role has and how long they are: what a plan knows of data before a run, counted within a time limit.

Usage: `sizes = RowSizes(corpus, tokenizer=None, vocabulary=2048).of("cpt")`; `sizes.rows`, `sizes.tokens(row)`.

Sources that the limit leaves no time for are read in part, and the rest is taken to be like it. Figures are kept in the
user's cache by what defines the rows, so that a second plan reads nothing. Rows that a stage leaves out because they
repeat the exam are counted here. Nothing is asked of the Hub.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from common.data.corpus import Corpus, Portion, Row
from common.errors import RecipeError
from common.store import cache

SCHEMA = 2  # goes up when the same rows are measured differently
PATIENCE = 2.0  # seconds of computing in which all roles of a plan are read, however busy the machine is
LEAST = 50  # rows of a source that are read however little time is left: fewer say nothing of their lengths
SAMPLE = 400  # lengths that are kept of a role, at least, where it has as many rows
TEXT_SAMPLE = 600  # characters of a row that the tokenizer is tried on
SIDES = ("chosen", "rejected", "completion")  # what a preference has as answers
CHATML, OWN = 5, 2  # tokens around what someone says: two marks, the name, two line ends; two marks in our template
# UTF-8 bytes of a token by the size of the vocabulary, of English: byte-pair encodings of 512 to 16,384 tokens learned
# on MedQuAD and novels and tried on other texts of theirs; SmolLM2's 49,152.
TOKEN_BYTES = ((512, 2.0), (2048, 3.0), (8192, 3.9), (49_152, 4.6))


class RowSize(NamedTuple):
    """One row in UTF-8 bytes."""

    text: int  # a document, a conversation, a prompt or a question
    answers: tuple[int, ...]  # the choices of a question, or the two sides of a pair
    turns: int  # of a conversation or prompt; 0: a document or a question


def size_of(row: Row) -> RowSize:
    """Return the size of a row of any kind."""
    turns = [*row.get("messages", ()), *row.get("prompt", ())]
    own = [row[key] for key in ("text", "question") if key in row] + [turn["content"] for turn in turns]
    sides = ["".join(turn["content"] for turn in row[side]) for side in SIDES if side in row]
    return RowSize(_bytes(own), tuple(_bytes([text]) for text in (*row.get("choices", ()), *sides)), len(turns))


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


@dataclass(frozen=True)
class Sizes:
    """How many rows a role has, and how long some of them are, evenly spaced."""

    rows: int
    whole: bool  # all rows have been counted; else the number is estimated from a part
    mean_bytes: float  # of all rows read, answers included
    sample: tuple[RowSize, ...]
    token_bytes: float  # bytes of a token
    turn_tokens: int  # around what someone says

    def tokens(self, size: int) -> float:
        """Return the tokens of some bytes."""
        return size / self.token_bytes

    def conversations(self) -> list[float]:
        """Return the tokens of every sampled row, with those around its turns; a document ends in one more."""
        return [self.tokens(row.text + sum(row.answers)) + (self.turn_tokens * row.turns or 1) for row in self.sample]

    def total(self, longest: int | None = None) -> float:
        """Return the tokens of all rows; conversations longer than `longest` are left out."""
        if not self.sample:
            return 0.0
        sampled = [row.text + sum(row.answers) for row in self.sample]
        scale = self.mean_bytes * len(sampled) / sum(sampled) if sum(sampled) else 1.0
        kept = (
            tokens
            for row, tokens in zip(self.sample, self.conversations(), strict=True)
            if longest is None or not row.turns or tokens <= longest
        )
        return sum(kept) * scale / len(self.sample) * self.rows


class _Sampler:
    """Keeps some of the items that pass, evenly spaced: every one until there are many, then every second, fourth, …"""

    def __init__(self) -> None:
        self.kept: list[tuple[RowSize, str]] = []
        self.stride, self.seen, self.bytes = 1, 0, 0

    def add(self, row: Row) -> None:
        size = size_of(row)
        self.bytes += size.text + sum(size.answers)
        if self.seen % self.stride == 0:
            self.kept.append((size, _some_text(row)))
            if len(self.kept) == 2 * SAMPLE:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
        self.seen += 1


def _some_text(row: Row) -> str:
    if "text" in row or "question" in row:
        return str(row.get("text", row.get("question")))[:TEXT_SAMPLE]
    turns = [*row.get("messages", ()), *row.get("prompt", ()), *row.get("chosen", ()), *row.get("completion", ())]
    return "\n".join(turn["content"] for turn in turns)[:TEXT_SAMPLE]


class RowSizes:
    """The sizes of a corpus by role, each counted when first asked for."""

    def __init__(
        self, corpus: Corpus, *, tokenizer: Path | None, vocabulary: int | None, turn_tokens: int = CHATML,
        patience: float = PATIENCE, clock: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        """`tokenizer` is a tokenizer.json, where there is one; without it tokens follow from the vocabulary's size."""
        self._corpus, self._tokenizer, self._vocabulary, self._turn_tokens = corpus, tokenizer, vocabulary, turn_tokens
        self._left, self._clock = patience, clock
        self._known: dict[str, Sizes | None] = {}

    def of(self, role: str) -> Sizes | None:
        """Return the sizes of a role; None where some of its rows are on the Hub, or cannot be read."""
        if role not in self._known:
            try:
                self._known[role] = self._find(role)
            except RecipeError:  # the run says what is wrong with the data, and where
                self._known[role] = None
        return self._known[role]

    def sampled(self) -> list[str]:
        """Return the roles asked for so far that were read in part."""
        return [role for role, sizes in self._known.items() if sizes is not None and not sizes.whole]

    def _find(self, role: str) -> Sizes | None:
        portions = self._corpus.portions(role)
        if portions is None:
            return None
        name = self._name(role)
        try:
            found = cache.read(name)
            rows = tuple(RowSize(text, tuple(answers), turns) for text, answers, turns in found["sample"])
            return Sizes(**{**found, "sample": rows})
        except (KeyError, TypeError, ValueError):
            pass
        started = self._clock()
        sizes = self._count(portions, distinct=role.startswith("text_"))
        self._left -= self._clock() - started
        cache.write(name, asdict(sizes))
        return sizes

    def _name(self, role: str) -> str:
        """Return what the figures depend on, as a name of the cache."""
        tokenizer = cache.known_digest(self._tokenizer) if self._tokenizer else self._vocabulary
        facts = [SCHEMA, role, self._corpus.identity([role]), tokenizer, self._turn_tokens]
        return "rows/" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _count(self, portions: list[Portion], *, distinct: bool) -> Sizes:
        """Count the rows of a role; `distinct` says that a text which two sources give counts once."""
        sampler = _Sampler()
        rows, whole, seen = 0.0, True, set[int]()
        end = self._clock() + max(0.0, self._left)
        for number, portion in enumerate(portions):
            until = self._clock() + (end - self._clock()) / (len(portions) - number)
            count = 0
            for row in portion.rows:
                if distinct:
                    if (text := hash(row["text"])) in seen:
                        continue
                    seen.add(text)
                sampler.add(row)
                count += 1
                if count >= LEAST and self._clock() > until and (share := portion.share()) < 1:
                    whole = False
                    rows += portion.times * count / share
                    break
            else:
                rows += portion.times * count
        sizes, texts = zip(*sampler.kept, strict=True) if sampler.kept else ((), ())
        mean = sampler.bytes / sampler.seen if sampler.seen else 0.0
        return Sizes(round(rows), whole, mean, tuple(sizes), self._token_bytes(texts), self._turn_tokens)

    def _token_bytes(self, texts: Sequence[str]) -> float:
        """Return the bytes of a token: as the tokenizer cuts some texts, or as vocabularies of its size do."""
        if self._tokenizer is not None and any(texts):
            from tokenizers import Tokenizer

            encoded = Tokenizer.from_file(str(self._tokenizer)).encode_batch(list(texts), add_special_tokens=False)
            return _bytes(texts) / max(1, sum(len(text.ids) for text in encoded))
        return token_bytes(self._vocabulary)


def token_bytes(vocabulary: int | None) -> float:
    """Return the bytes of a token of English with a vocabulary of some size; of the usual size where it is unknown."""
    if vocabulary is None or vocabulary >= TOKEN_BYTES[-1][0]:
        return TOKEN_BYTES[-1][1]
    if vocabulary <= TOKEN_BYTES[0][0]:
        return TOKEN_BYTES[0][1]
    (low, fewer), (high, more) = next(pair for pair in itertools.pairwise(TOKEN_BYTES) if pair[1][0] >= vocabulary)
    return fewer + (more - fewer) * math.log(vocabulary / low) / math.log(high / low)
