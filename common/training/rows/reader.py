"""Read one role of a corpus for training: shuffled, without rows that repeat the exam, tokenised, accounted for.

Usage: `reader = Reader(context, tokenizer, "cpt", chat_only=False)`; `list(reader.tokens(...))`; `reader.finish(1.0)`.
Pairs and prompts have tokenisers of their own: `for row in read_role(context, role, accounts): …`, `accounts.close(…)`.

Only rows that were examined count. Reading stops at the token budget, and the rows behind it are not counted.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from common.config.kinds import kind_of
from common.data.accounting import RowCount
from common.data.cleaned import Cleaned
from common.data.decontaminate import Decontaminator, filter_rows
from common.data.exam_passages import exam_passages
from common.data.texts import texts_of
from common.stage import StageContext
from common.store.artifacts import Artifact
from common.training.rows.packing import NOTHING_TO_LEARN, TokenRow, tokenise
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED_FILES = {"preference": "pairs.jsonl", "sft": "answers.jsonl", "prompts": "prompts.jsonl"}  # of a sample
SHUFFLE_BUFFER = 100_000  # rows held while sources are shuffled through each other
SHUFFLE_CHARACTERS = 2**28  # of those rows, unless a single one has more


def sampled_input(context: StageContext) -> Artifact | None:
    """Return the input with answers sampled from a checkpoint, or None."""
    return next((a for a in context.inputs.values() if kind_of(a.manifest["kind"]).makes == "sample"), None)


def origin(context: StageContext, role: str) -> str:
    """Say where a training role's rows come from, for messages."""
    if role in SAMPLED_FILES and (sampled := sampled_input(context)) is not None:
        return f"{SAMPLED_FILES[role]} of the stage '{sampled.manifest.get('stage', context.stage)}'"
    return f"the role {role}"


def training_rows(context: StageContext, role: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a training role: from the corpus, or those that a sample stage in the inputs wrote."""
    sampled = sampled_input(context) if role in SAMPLED_FILES else None
    if sampled is None:
        yield from context.corpus.rows(role)
        return
    with (sampled.path / SAMPLED_FILES[role]).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


class Accounts(dict[str, RowCount]):
    """Accounts by source, opened when first asked for."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def __missing__(self, source: str) -> RowCount:
        count = self[source] = RowCount(source, self.role)
        return count

    def close(self, context: StageContext, epochs: float = 0.0, *, budgeted: bool = False) -> list[RowCount]:
        """Add the rows that the corpus itself dropped or changed, and the totals. Return the accounts.

        With `budgeted`, shuffling has read ahead of a token budget. A source then counts the same share of its dropped
        rows as was examined of its other rows. Answers sampled from a checkpoint are not read from the corpus.
        """
        examined = {source: count.rows_out + count.num_dropped for source, count in self.items()}
        if self.role not in SAMPLED_FILES or sampled_input(context) is None:
            for source, read in context.corpus.counts(self.role).items():
                partly = budgeted and read.rows_out
                share = min(1.0, examined.get(source, 0) / read.rows_out) if partly else 1.0
                own = self[source]
                for found, added in ((read.dropped, own.dropped), (read.changed, own.changed)):
                    for reason, number in found.items():
                        if counted := round(number * share):
                            added[reason] = added.get(reason, 0) + counted
        for count in self.values():
            masked = count.dropped.pop(NOTHING_TO_LEARN, 0)
            count.rows_in = count.num_dropped + masked + count.rows_out
            count.masked_share = masked / count.num_kept if count.num_kept else 0.0
            count.epochs = round(epochs, 3)
        return list(self.values())


def _without_exam(
    context: StageContext, role: str, rows: Iterable[dict[str, Any]], accounts: Accounts
) -> Iterator[dict[str, Any]]:
    """Yield the rows that repeat no question and no held-out text of the exam. The others are counted as dropped."""
    yield from filter_rows(rows, Decontaminator(exam_passages(context.corpus, role)), accounts)


def shuffled(rows: Iterable[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
    """Yield rows in a seeded random order, through a buffer: up to SHUFFLE_BUFFER rows it is a full shuffle.

    Long rows fill the buffer sooner. Rows then leave it until the new one has room.
    """
    rng = random.Random(key)
    buffer: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        held += sum(map(len, texts_of(row)))
        buffer.append(row)
        while len(buffer) > SHUFFLE_BUFFER or (held > SHUFFLE_CHARACTERS and len(buffer) > 1):
            place = rng.randrange(len(buffer) - 1)
            leaving, buffer[place] = buffer[place], buffer[-1]
            buffer.pop()
            held -= sum(map(len, texts_of(leaving)))
            yield leaving
    rng.shuffle(buffer)
    yield from buffer


def read_role(context: StageContext, role: str, accounts: Accounts) -> Iterator[dict[str, Any]]:
    """Return a role's rows, shuffled; of a role that trains, without those that repeat the exam."""
    rows = shuffled(training_rows(context, role), f"{context.config.seed}/{role}")
    from_corpus = role not in SAMPLED_FILES or sampled_input(context) is None
    clean = from_corpus and isinstance(context.corpus, Cleaned) and context.corpus.is_clean(role)
    return rows if clean or role == "preference_heldout" else _without_exam(context, role, rows, accounts)


class Reader:
    """The rows of one role as tokens, and the accounts of their sources."""

    def __init__(
        self, context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, chat_only: bool,
        witness: Witness = NOBODY,
    ) -> None:  # fmt: skip
        self.context, self.tokenizer, self.role, self.chat_only = context, tokenizer, role, chat_only
        self.witness = witness
        self.accounts = Accounts(role)
        self.texts = Counter[str]()  # left out by `chat_only`, by source
        self.num_tokens = 0

    def raw(self) -> Iterator[dict[str, Any]]:
        """Yield the role's rows as they were read; with `chat_only`, conversations alone."""
        for row in read_role(self.context, self.role, self.accounts):
            if self.chat_only and "text" in row:
                self.texts[row["source"]] += 1
            else:
                yield row

    def tokens(self, *, assistant_only: bool, sequence_length: int, budget: int | None) -> Iterator[TokenRow]:
        """Yield token rows until the budget is reached. `num_tokens` counts them."""
        options: dict[str, Any] = {"assistant_only": assistant_only, "sequence_length": sequence_length}
        for row in tokenise(self.tokenizer, self.raw(), self.accounts, witness=self.witness, **options):
            self.num_tokens += len(row.input_ids)
            yield row
            if budget is not None and self.num_tokens >= budget:
                return

    def finish(self, epochs: float) -> list[RowCount]:
        """Return the closed accounts; `epochs` is how often the rows are seen."""
        return self.accounts.close(self.context, epochs, budgeted=True)
