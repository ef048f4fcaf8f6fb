"""What training rows must not repeat: the questions of an exam, and the texts that are held out for it.

Usage: `passages = list(exam_passages(corpus, "sft"))`; benchmarks have theirs from `common.evaluation.benchmark_rows`.

It lists them. What counts as repeating one is `common.data.decontaminate`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.data.corpus import Row
from common.data.texts import UNWOVEN

SAME = 3  # questions of an exam from which on one wording asks nothing without its choices


@dataclass(frozen=True, slots=True)
class Passage:
    """What a training row must not repeat, and where it is from."""

    text: str
    exam: str = ""  # its role, such as questions_domain, or the benchmark's name
    id: str = ""
    held_out: bool = False  # a text that is read and not asked; a sentence that it shares is no copy

    @property
    def name(self) -> str:
        """Its exam and id, for people."""
        return " ".join(part for part in (self.exam, self.id) if part)


class Examined(Protocol):
    """The part of `common.data.corpus.Corpus` that tells what its exam is."""

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the roles of the exam that rows of a training role must not repeat."""

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role."""


def exam_passages(corpus: Examined, role: str) -> Iterator[Passage]:
    """Yield the questions and held-out texts of both sides that rows of a training role must not repeat."""
    for exam in corpus.exam_roles(role):
        if exam.startswith("text"):
            for number, row in enumerate(corpus.rows(exam), start=1):
                for text in (row["text"], *row.get(UNWOVEN, ())):
                    yield Passage(text, exam, str(row.get("id") or f"{row['source']}:{number}"), held_out=True)
        else:
            yield from question_passages(exam, corpus.rows(exam))


def question_passages(exam: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Passage]:
    """Yield the question of each row; one that several rows ask in the same words, with the choices of each."""
    rows = list(rows)
    asked = Counter(str(row["question"]) for row in rows)
    for row in rows:
        question, choices = str(row["question"]), row.get("choices") or ()
        if asked[question] >= SAME and choices:
            question = "\n".join([question, *map(str, choices)])
        yield Passage(question, exam, str(row.get("id", "")))


def digest_of(passages: Iterable[Passage]) -> str:
    """Return a digest of some passages and where they are from, for the identity of rows that were kept apart."""
    digest = hashlib.sha256()
    for one in passages:
        digest.update(json.dumps([one.exam, one.id, one.held_out, one.text]).encode() + b"\n")
    return digest.hexdigest()


def shared_runs(texts: Sequence[Sequence[str]], length: int, least: int, share: float) -> set[tuple[str, ...]]:
    """Return the runs of `length` words that more than a share of some texts, and at least so many, have in common."""
    limit = max(least, int(share * len(texts)) + 1)
    if len(texts) < limit:
        return set()

    def runs(words: Sequence[str]) -> set[tuple[str, ...]]:
        return {tuple(words[place : place + length]) for place in range(len(words) - length + 1)}

    likely = Counter(hash(run) for words in texts for run in runs(words))  # numbers need a tenth of the memory
    found = Counter(run for words in texts for run in runs(words) if likely[hash(run)] >= limit)
    return {run for run, number in found.items() if number >= limit}
