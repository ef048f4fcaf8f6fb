"""Build a stage's training rows: read, keep the exam out, tokenise, pack, mix with replay, account for all.

Usage: `rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)`; `rows.dataset` is in final order.

The token budget is met exactly: sources are shuffled through each other, read until the budget is reached, and
repeated in fresh shuffles where they are shorter.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from common.config import TrainingSettings
from common.data.accounting import RowCount, check_limits
from common.data.decontaminate import Decontaminator, filter_rows
from common.errors import DataError
from common.stages import StageContext
from common.training.options import steps_for
from common.training.packing import NOTHING_TO_LEARN, TokenRow, interleave, pack, tokenise

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 100_000  # rows held while sources are shuffled through each other


@dataclass
class TrainingRows:
    """Rows ready for the trainer, in the order in which it must take them."""

    dataset: Dataset  # columns input_ids, labels, seq_lengths; or text/messages with packing: trl
    steps: int
    counts: list[RowCount]
    samples: list[TokenRow] = field(default_factory=list)  # a few rows as tokenised, for the contracts

    def accounting(self) -> list[dict[str, Any]]:
        return [count.as_dict() for count in self.counts]


class _Reader:
    """Reads one role: decontaminated, shuffled, tokenised, counted per source, up to a number of tokens."""

    def __init__(self, context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, chat_only: bool) -> None:
        self.context, self.tokenizer, self.role, self.chat_only = context, tokenizer, role, chat_only
        self.settings = cast(TrainingSettings, context.settings)
        self.counts: dict[str, RowCount] = {}
        self.guard = exam_guard(context, role)
        self.num_tokens = 0

    def raw(self) -> Iterator[dict[str, Any]]:
        """Yield the role's rows, shuffled, without those that repeat the exam."""
        for row in filter_rows(self._read(), self.guard, _Counts(self)):
            if not (self.chat_only and "text" in row):
                yield row

    def _read(self) -> Iterator[dict[str, Any]]:
        yield from shuffled(self.context.corpus.rows(self.role), f"{self.context.config.seed}/{self.role}")

    def tokens(self, *, assistant_only: bool, budget: int | None) -> Iterator[TokenRow]:
        """Yield token rows until the budget is reached; remember how many tokens that was."""
        stream = tokenise(
            self.tokenizer, self.raw(), assistant_only=assistant_only,
            sequence_length=self.settings.sequence_length, count_of=self.count,
        )  # fmt: skip
        for row in stream:
            self.num_tokens += len(row.input_ids)
            yield row
            if budget is not None and self.num_tokens >= budget:
                return

    def count(self, source: str) -> RowCount:
        """Return the account of a source; reading and tokenising write to the same one."""
        read = self.context.corpus.counts(self.role)
        if source not in self.counts:
            self.counts[source] = read.get(source) or RowCount(source, self.role)
            self.counts[source].rows_out = 0
        return self.counts[source]

    def separate_masked(self) -> None:
        """Count rows without one token to learn from apart from the dropped ones: they have a limit of their own."""
        for count in self.counts.values():
            masked = count.dropped.pop(NOTHING_TO_LEARN, 0)
            count.masked_share = masked / count.num_kept if count.num_kept else 0.0


class _Counts(dict[str, RowCount]):
    """Accounts by source, made when first asked for."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__()
        self.reader = reader

    def __missing__(self, source: str) -> RowCount:
        return self.reader.count(source)


def exam_guard(context: StageContext, role: str) -> Decontaminator:
    """Return the decontaminator over the exam questions that a role must not repeat."""
    exams = context.corpus.exam_roles(role)
    return Decontaminator(row["question"] for exam in exams for row in context.corpus.rows(exam))


def shuffled(rows: Iterable[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
    """Yield rows in a seeded random order through a buffer: a full shuffle up to SHUFFLE_BUFFER rows."""
    rng = random.Random(key)
    buffer: list[dict[str, Any]] = []
    for row in rows:
        if len(buffer) < SHUFFLE_BUFFER:
            buffer.append(row)
            continue
        place = rng.randrange(SHUFFLE_BUFFER)
        yield buffer[place]
        buffer[place] = row
    rng.shuffle(buffer)
    yield from buffer


def build_rows(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, *, role: str, assistant_only: bool
) -> TrainingRows:
    """Return the stage's rows. Raises DataError for a role without rows, ContractError beyond the limits.

    `assistant_only` masks all but the assistant's tokens; replay is then conversations alone.
    """
    settings = cast(TrainingSettings, context.settings)
    if settings.packing == "trl":
        return _rows_for_trl(context, tokenizer, role=role, chat_only=assistant_only)
    folder, length, seed = context.work / "rows", settings.sequence_length, context.config.seed
    budget = settings.tokens
    main = _Reader(context, tokenizer, role, chat_only=False)
    own_budget = None if budget is None else round(budget * (1 - settings.replay))
    samples: list[TokenRow] = []
    packed = pack(_sample(main.tokens(assistant_only=assistant_only, budget=own_budget), samples), length, folder, role)
    if not len(packed):
        raise DataError(f"Stage {context.stage}: the role {role} has no usable row. Check the sources of that role.")
    steps = steps_for(settings, len(packed), context.stage)
    total = steps * (settings.batch_tokens // length)
    readers, parts = [main], [packed]
    if settings.replay > 0:
        replay = _Reader(context, tokenizer, "replay", chat_only=assistant_only)
        stream = replay.tokens(assistant_only=assistant_only, budget=round(total * length * settings.replay))
        parts.append(pack(stream, length, folder, "replay"))
        readers.append(replay)
        if not len(parts[1]):
            kind = "conversations" if assistant_only else "rows"
            raise DataError(
                f"Stage {context.stage} asks for {settings.replay:.0%} replay, but the role replay has no {kind}. "
                f"Add a source with role: replay, or set {context.stage}.replay=0."
            )
    order = interleave(
        len(parts[0]), len(parts[1]) if len(parts) > 1 else 0, total=total, replay=settings.replay, seed=seed
    )
    _account(readers, parts, order)
    for reader in readers:
        reader.separate_masked()
    counts = [count for reader in readers for count in reader.counts.values()]
    check_limits(counts, settings.limits, context.stage)
    dataset = _concatenate(parts).select(order)
    logger.info("%s: %d steps, %d rows of %d tokens", context.stage, steps, total, length)
    return TrainingRows(dataset, steps, counts, samples)


def _sample(rows: Iterator[TokenRow], samples: list[TokenRow], size: int = 64) -> Iterator[TokenRow]:
    for row in rows:
        if len(samples) < size:
            samples.append(row)
        yield row


def _account(readers: list[_Reader], parts: list[Dataset], order: Any) -> None:
    """Write into each count how often its rows are seen: rows drawn from its side over rows that side has."""
    border = len(parts[0])
    drawn = [int((order < border).sum()), int((order >= border).sum())]
    for reader, part, number in zip(readers, parts, drawn, strict=False):
        for count in reader.counts.values():
            count.epochs = round(number / len(part), 3)


def _concatenate(parts: list[Dataset]) -> Dataset:
    from datasets import concatenate_datasets

    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _rows_for_trl(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, *, role: str, chat_only: bool
) -> TrainingRows:
    """Return raw rows for TRL's own preparation; the replay share is then one of rows, not of tokens."""
    from datasets import Dataset

    settings = cast(TrainingSettings, context.settings)
    readers = [_Reader(context, tokenizer, role, chat_only=False)]
    rows = [_for_trl(row, tokenizer, chat_only) for row in readers[0].raw()]
    if settings.replay > 0:
        readers.append(_Reader(context, tokenizer, "replay", chat_only=chat_only))
        wanted = round(len(rows) * settings.replay / max(1e-9, 1 - settings.replay))
        replay = [_for_trl(row, tokenizer, chat_only) for row, _ in zip(readers[1].raw(), range(wanted), strict=False)]
        rows = list(shuffled([*rows, *replay], f"{context.config.seed}/mix"))
    if not rows:
        raise DataError(f"Stage {context.stage}: the role {role} has no usable row. Check the sources of that role.")
    num_tokens = sum(len(tokenizer(str(row)).input_ids) for row in rows[:200]) / min(len(rows), 200) * len(rows)
    steps = steps_for(settings, max(1, round(num_tokens / settings.sequence_length)), context.stage)
    counts = [count for reader in readers for count in reader.counts.values()]
    return TrainingRows(Dataset.from_list(rows), steps, counts)


def _for_trl(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, chat_only: bool) -> dict[str, Any]:
    if chat_only:
        return {"messages": row["messages"]}
    return {"text": row["text"] if "text" in row else tokenizer.apply_chat_template(row["messages"], tokenize=False)}
