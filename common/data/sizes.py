"""How many rows a role has, how long they are, and what is dropped of them: what a plan knows of data before a run.

Usage: `sizes = RowSizes(corpus, tokenizer=None, vocabulary=2048).of("cpt")`; `sizes.rows`, `sizes.tokens(row)`.

A role is read up to a number of bytes, and the rest of its sources is taken to be like what was read: the same files
give the same figures on every machine. They are kept in the user's cache by what defines the rows, so that a second
plan reads nothing. Rows that a stage leaves out because they repeat the exam are counted here. Nothing is asked of the
Hub.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Portion, Row
from common.data.texts import utf8_size
from common.errors import DataError, RecipeError
from common.models.boundary import COPY_AGAIN, explain_loading
from common.models.tokenizer import fault_in_words
from common.store import cache

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCHEMA = 5  # goes up when the same rows are measured differently
MOST_BYTES = 32_000_000  # of a role that are read, all its sources together: at most about two seconds
MOST_FILES = 2 * MOST_BYTES  # of files: rows may be few among those that are read, as texts that are held out are
LEAST = 50  # rows of a source that are read however many bytes are: fewer say nothing of their lengths
SAMPLE = 400  # lengths that are kept of a role, at least, where it has as many rows
TEXT_SAMPLE = 600  # characters of a row that the tokenizer is tried on
SIDES = ("chosen", "rejected", "completion")  # of a pair, and of a single answer
CHATML, OWN = 5, 2  # tokens around what someone says: two marks, the name, two line ends; two marks in our template
# UTF-8 bytes of a token by the size of the vocabulary, of English: byte-pair encodings of 512 to 16,384 tokens learned
# on MedQuAD and novels and tried on other texts of theirs; SmolLM2's 49,152.
TOKEN_BYTES = ((512, 2.0), (2048, 3.0), (8192, 3.9), (49_152, 4.6))


class RowSize(NamedTuple):
    """One row in UTF-8 bytes."""

    text: int  # a document, a conversation, a prompt or a question
    answers: tuple[int, ...]  # the choices of a question, the two sides of a pair, or a single answer
    turns: int  # of a conversation or prompt; 0: a document or a question

    @property
    def total(self) -> int:
        return self.text + sum(self.answers)


def size_of(row: Row) -> RowSize:
    """Return the size of a row of any kind."""
    turns = [*row.get("messages", ()), *row.get("prompt", ())]
    own = [row[key] for key in ("text", "question") if key in row] + [_said(turn) for turn in turns]
    own += [json.dumps(row["tools"], ensure_ascii=False)] if row.get("tools") else []
    sides = ["".join(map(_said, row[side])) for side in SIDES if side in row]
    return RowSize(utf8_size(own), tuple(utf8_size([text]) for text in (*row.get("choices", ()), *sides)), len(turns))


def _said(turn: Mapping[str, Any]) -> str:
    """Return what a turn says, with its thoughts and its calls of tools."""
    calls = turn.get("tool_calls")
    text = str(turn["content"]) + str(turn.get("reasoning_content") or "")
    return text + (json.dumps(calls, ensure_ascii=False) if calls else "")


@dataclass(frozen=True)
class Sizes:
    """How many rows a role has, and how long some of them are, evenly spaced."""

    rows: int
    whole: bool  # all rows have been counted; else the number is estimated from a part
    mean_bytes: float  # of all rows read, answers included
    sample: tuple[RowSize, ...]
    token_bytes: float  # bytes of a token
    turn_tokens: int  # around what someone says
    counts: tuple[RowCount, ...] = ()  # of what was read, by source: rows read, dropped and changed
    times: tuple[float, ...] = ()  # that the rows of each of these sources are used

    def tokens(self, size: int) -> float:
        """Return the tokens of some bytes."""
        return size / self.token_bytes

    def conversations(self) -> list[float]:
        """Return the tokens of every sampled row, with those around its turns; a document ends in one more."""
        return [self.tokens(row.total) + (self.turn_tokens * row.turns or 1) for row in self.sample]

    def total(self, longest: int | None = None) -> float:
        """Return the tokens of all rows; conversations longer than `longest` are left out."""
        if not self.sample:
            return 0.0
        sampled = sum(row.total for row in self.sample)
        scale = self.mean_bytes * len(self.sample) / sampled if sampled else 1.0
        kept = (
            tokens
            for row, tokens in zip(self.sample, self.conversations(), strict=True)
            if longest is None or not row.turns or tokens <= longest
        )
        return sum(kept) * scale / len(self.sample) * self.rows


class _Sampler:
    """Keeps some of the items that pass, evenly spaced: every one until there are many, then every second, fourth, …"""

    def __init__(self) -> None:
        self.kept: list[RowSize] = []
        self.stride, self.seen, self.bytes = 1, 0, 0

    def add(self, size: RowSize) -> None:
        self.bytes += size.total
        if self.seen % self.stride == 0:
            self.kept.append(size)
            if len(self.kept) == 2 * SAMPLE:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
        self.seen += 1


def _some_text(row: Row) -> str:
    if "text" in row or "question" in row:
        return str(row.get("text", row.get("question")))[:TEXT_SAMPLE]
    turns = [*row.get("messages", ()), *row.get("prompt", ())]
    turns += [*row.get("chosen", ()), *row.get("completion", ())]
    return "\n".join(map(_said, turns))[:TEXT_SAMPLE]


class RowSizes:
    """The sizes of a corpus by role, each counted when first asked for."""

    def __init__(
        self, corpus: Corpus, *, tokenizer: Path | None, vocabulary: int | None, turn_tokens: int = CHATML,
        most: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        """`tokenizer` is a tokenizer.json, where there is one; without it tokens follow from the vocabulary's size."""
        self._corpus, self._turn_tokens = corpus, turn_tokens
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self._most = most
        self._known: dict[str, Sizes | None] = {}
        self.problems: dict[str, str] = {}  # role -> why its rows cannot be read

    def of(self, role: str) -> Sizes | None:
        """Return the sizes of a role; None where some of its rows are on the Hub, or cannot be read."""
        if role not in self._known:
            try:
                self._known[role] = self._find(role)
            except RecipeError as error:  # the run says what is wrong with all of the data
                self._known[role], self.problems[role] = None, str(error)
        return self._known[role]

    def sampled(self) -> list[str]:
        """Return the roles asked for so far that were read in part."""
        return [role for role, sizes in self._known.items() if sizes is not None and not sizes.whole]

    def _find(self, role: str) -> Sizes | None:
        portions = self._corpus.portions(role)
        if portions is None:
            return None
        facts = [SCHEMA, reader_code(), role, self._corpus.identity([role]), self._most]
        found = cache.remembered(
            "rows", facts, lambda: asdict(self._count(portions, distinct=role.startswith("text_"))), _sizes_of
        )
        sizes = _sizes_of(found)
        if self.tokenizer is None:
            known = token_bytes(self.vocabulary)
        else:
            facts.append(cache.known_digest(self.tokenizer))
            made = cache.remembered(
                "tokens", facts, lambda: {"bytes": self._token_bytes(role)}, lambda found: float(found["bytes"])
            )
            known = float(made["bytes"])
        return replace(sizes, token_bytes=known, turn_tokens=self._turn_tokens)

    def _count(self, portions: list[Portion], *, distinct: bool) -> Sizes:
        """Count the rows of a role; `distinct` says that a text which two sources give counts once."""
        sampler = _Sampler()
        rows, whole, seen, left = 0.0, True, set[int](), float(self._most)
        for number, portion in enumerate(portions):
            most, count, read = left / (len(portions) - number), 0, 0
            for row in portion.rows:
                if distinct:
                    if (text := hash(row["text"])) in seen:
                        continue
                    seen.add(text)
                size = size_of(row)
                sampler.add(size)
                count, read = count + 1, read + size.total
                if count >= LEAST and _is_much(portion, count, read, most) and (share := portion.share()) < 1:
                    whole = False
                    rows += portion.times * count / share
                    break
            else:
                rows += portion.times * count
            left = max(0.0, left - read)
        mean = sampler.bytes / sampler.seen if sampler.seen else 0.0
        counted = [(portion.count, portion.times) for portion in portions if portion.count is not None]
        counts, times = tuple(count for count, _ in counted), tuple(times for _, times in counted)
        return Sizes(round(rows), whole, mean, tuple(sampler.kept), 0.0, 0, counts, times)

    def _token_bytes(self, role: str) -> float:
        """Return the bytes of a token as the tokenizer cuts the first texts of each source."""
        portions = self._corpus.portions(role) or []
        each = -(-SAMPLE // max(1, len(portions)))
        rows = (row for portion in portions for row in itertools.islice(portion.rows, each))
        texts = [text for row in rows if (text := _some_text(row))]
        if not texts:
            return token_bytes(self.vocabulary)
        assert self.tokenizer is not None, "without one the vocabulary's size is used"
        encoded = load_core(self.tokenizer).encode_batch(texts, add_special_tokens=False)
        return utf8_size(texts) / max(1, sum(len(text.ids) for text in encoded))


def _is_much(portion: Portion, count: int, read: int, most: float) -> bool:
    """Whether a source has given its share of bytes, or their reading has gone through its share of the files."""
    return read > most or (count % LEAST == 0 and portion.share() * portion.size > most * MOST_FILES / MOST_BYTES)


def load_core(path: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json. Raises DataError for one that cannot be read, or cuts words wrongly."""
    from tokenizers import Tokenizer

    with explain_loading("tokenizer of", path.parent):
        core = Tokenizer.from_file(str(path))
        if wrong := fault_in_words(lambda text: core.encode(text, add_special_tokens=False).ids):
            raise DataError(f"The tokenizer of {path.parent} {wrong}. {COPY_AGAIN}")
    return core


def _sizes_of(found: dict[str, Any]) -> Sizes:
    """Return sizes as they were kept. Raises KeyError, TypeError or ValueError for what is damaged."""
    sample = tuple(RowSize(text, tuple(answers), turns) for text, answers, turns in found["sample"])
    counts = tuple(RowCount(**count) for count in found["counts"])
    return Sizes(**{**found, "sample": sample, "counts": counts, "times": tuple(found["times"])})


@functools.cache
def reader_code() -> str:
    """Return a digest of the code that reads rows: what it drops is part of what is kept."""
    files = sorted([*(Path(__file__).parent / "manifest").rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def token_bytes(vocabulary: int | None) -> float:
    """Return the bytes of a token of English with a vocabulary of some size; of the usual size where it is unknown."""
    if vocabulary is None or vocabulary >= TOKEN_BYTES[-1][0]:
        return TOKEN_BYTES[-1][1]
    if vocabulary <= TOKEN_BYTES[0][0]:
        return TOKEN_BYTES[0][1]
    (low, fewer), (high, more) = next(pair for pair in itertools.pairwise(TOKEN_BYTES) if pair[1][0] >= vocabulary)
    return fewer + (more - fewer) * math.log(vocabulary / low) / math.log(high / low)
