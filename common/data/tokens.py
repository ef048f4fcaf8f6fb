"""Tokens of the texts of a source before and after cleaning, and its fertility: tokens of a word, character and byte.

Usage: `counter = TokenCounter(path, vocabulary=2048)`; `tokens_of_sources(artifact.path, counter)["faq"].left.number`.

Texts are counted as they stand: what a chat template or an end of text adds is not among them. Of a source that is
larger than its sample, tokens are estimated by the sample, and marked so. Without a tokenizer they follow from the size
of the vocabulary. Rows as a stage trains on them are counted exactly by the stage (`common.training.rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from common.data.cleaned import SAMPLES, CleanedRows
from common.data.cleaning.accounts import BEFORE, LEFT
from common.data.corpus import Corpus
from common.data.shards import read_shard
from common.data.sizes import load_core, token_bytes
from common.data.texts import texts_of, utf8_size
from common.data.words import count_words
from common.errors import DataError

BATCH = 1000  # texts that are encoded at once
GENERAL = ("text_general", "pretrain", "replay")  # roles of general text, the most general first
GENERAL_CHARACTERS = 200_000  # of general text that are read


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts by a tokenizer.json, or estimates them by the size of a vocabulary."""

    tokenizer: Path | None
    vocabulary: int | None = None

    @cached_property
    def _core(self) -> Any:
        assert self.tokenizer is not None, "without one the vocabulary's size is used"
        core = load_core(self.tokenizer)
        core.no_truncation()
        core.no_padding()
        return core

    def count(self, texts: Sequence[str]) -> int:
        """Return the tokens of some texts, encoded in batches."""
        if self.tokenizer is None:
            return round(utf8_size(texts) / token_bytes(self.vocabulary))
        readable = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # no half surrogate pairs
        batches = (readable[start : start + BATCH] for start in range(0, len(readable), BATCH))
        encoded = (self._core.encode_batch_fast(batch, add_special_tokens=False) for batch in batches)
        return sum(len(text.ids) for batch in encoded for text in batch)


class Tokens(NamedTuple):
    """How many tokens a source has."""

    number: int
    counted: bool  # or estimated

    def __str__(self) -> str:
        return f"{'' if self.counted else '~'}{self.number:,}"


class Fertility(NamedTuple):
    """Into how many tokens a tokenizer cuts texts."""

    per_word: float
    per_character: float
    per_byte: float


class SourceTokens(NamedTuple):
    """The tokens of a source before and after cleaning, and the fertility of what is left."""

    before: Tokens
    left: Tokens
    fertility: Fertility | None  # none without a tokenizer


def tokens_of_sources(folder: Path, counter: TokenCounter) -> dict[str, SourceTokens]:
    """Return the tokens of each source that a stage has cleaned, by its result.

    Raises DataError for one that was made before results held samples.
    """
    if not (folder / SAMPLES).is_file():
        stage = folder.name.rpartition("-")[0]
        raise DataError(f"{folder.name} has no samples of its texts. Make it again: `just rerun stage={stage}`.")
    amounts, samples = CleanedRows(folder).facts["amounts"], _samples(folder)
    found = {}
    for source, before in amounts[BEFORE].items():
        left = amounts[LEFT].get(source, {"bytes": 0})
        first, last = (samples.get((side, source), []) for side in (BEFORE, LEFT))
        tokens = counter.count(last)
        found[source] = SourceTokens(
            measured(before["bytes"], first, counter.count(first), counter),
            measured(left["bytes"], last, tokens, counter),
            fertility(last, tokens) if counter.tokenizer is not None else None,
        )
    return found


def measured(size: int, sample: Sequence[str], tokens: int, counter: TokenCounter) -> Tokens:
    """Return the tokens of `size` bytes of text, of which a sample and its tokens are given."""
    sampled = utf8_size(sample)
    return Tokens(round(tokens * size / sampled) if sampled else 0, counter.tokenizer is not None and sampled == size)


def fertility(texts: Sequence[str], tokens: int) -> Fertility | None:
    """Return the fertility of a tokenizer that cuts some texts into so many tokens; None without any words."""
    words, characters = sum(map(count_words, texts)), sum(map(len, texts))
    if not words:
        return None
    return Fertility(tokens / words, tokens / characters, tokens / utf8_size(texts))


def general_texts(corpus: Corpus) -> list[str]:
    """Return some general text of a corpus, to compare with; none where that would have to be fetched."""
    for role in GENERAL:
        portions = corpus.portions(role) if corpus.conversations(role) else None
        if portions and (texts := list(_up_to(row for portion in portions for row in portion.rows))):
            return texts
    return []


def _up_to(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    size = 0
    for row in rows:
        for text in texts_of(dict(row)):
            if text:
                yield text
                size += len(text)
        if size >= GENERAL_CHARACTERS:
            return


def _samples(folder: Path) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in read_shard(folder / SAMPLES):
        found.setdefault((row["side"], row["source"]), []).extend(row["texts"])
    return found
