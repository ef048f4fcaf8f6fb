"""Read one role of a corpus for training: shuffled, without rows that repeat the exam, tokenised, accounted for.

Usage: `reader = Reader(context, tokenizer, "cpt", chat_only=False)`; `list(reader.tokens(...))`; `reader.finish(1.0)`.
Pairs and prompts have tokenisers of their own: `for row in read_role(context, role, accounts): …`, `accounts.close(…)`.

Only rows that were examined count. Reading stops at the token budget, and the rows behind it are not counted. So are
those that stages before have read, where a reader begins `behind` them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from common.config.kinds import kind_of
from common.data.accounting import RowCount
from common.data.cleaned import Cleaned
from common.data.decontaminate import filter_rows, guard_of
from common.errors import DataError, did_you_mean
from common.stage import StageContext
from common.store.artifacts import Artifact
from common.training.rows.packing import NOTHING_TO_LEARN, Mark, TokenBatch, tokenised_batches
from common.training.rows.shards import TokenRow
from common.training.rows.shuffling import shuffled
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_SCORES: Mapping[str, str] = MappingProxyType({})
SAMPLED_FILES = {  # of a sample, and of texts that were labelled
    "preference": "pairs.jsonl", "sft": "answers.jsonl", "prompts": "prompts.jsonl", "cpt": "texts.jsonl",
}  # fmt: skip


def sampled_input(context: StageContext) -> Artifact | None:
    """Return the input with answers sampled from a checkpoint, or with texts that it labelled, or None."""
    return next((a for a in context.inputs.values() if kind_of(a.manifest["kind"]).brings_rows), None)


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

        A dropped row that was made of several records counts as many as such rows have on average.
        Of rows that were cleaned before, what cleaning did is in the accounts of that stage; here are only its losses.
        With `budgeted`, shuffling has read ahead of a token budget. A source then counts the same share of its dropped
        rows as was examined of its other rows. Answers sampled from a checkpoint are not read from the corpus.
        """
        cleaned = isinstance(context.corpus, Cleaned) and context.corpus.is_clean(self.role)
        examined = {source: count.rows_out + count.num_dropped for source, count in self.items()}
        each: dict[str, float] = {}
        if self.role not in SAMPLED_FILES or sampled_input(context) is None:
            for source, read in context.corpus.counts(self.role).items():
                partly = budgeted and read.rows_out
                share = min(1.0, examined.get(source, 0) / read.rows_out) if partly else 1.0
                own, each[source] = self[source], read.records_each
                own.dropped = {
                    reason: number if reason == NOTHING_TO_LEARN else round(number * read.records_each)
                    for reason, number in own.dropped.items()
                }
                places = (
                    [(read.dropped, own.before)]
                    if cleaned
                    else [(read.dropped, own.dropped), (read.changed, own.changed)]
                )
                for found, added in places:
                    for reason, number in found.items():
                        if counted := round(number * share):
                            added[reason] = added.get(reason, 0) + counted
        for count in self.values():
            masked = count.dropped.pop(NOTHING_TO_LEARN, 0)
            count.joined = round((masked + count.rows_out) * (each.get(count.source, 1.0) - 1))
            count.rows_in = count.num_dropped + masked + count.rows_out + count.joined
            count.masked_share = masked / count.num_kept if count.num_kept else 0.0
            count.epochs = round(epochs, 3)
        return list(self.values())


def without_exam(
    context: StageContext, role: str, rows: Iterable[dict[str, Any]], accounts: Accounts
) -> Iterator[dict[str, Any]]:
    """Return the rows that repeat nothing of the exam and its benchmarks. The others are counted as dropped.

    Rows that were cleaned before, and pairs that never train, come as they are.
    """
    from_corpus = role not in SAMPLED_FILES or sampled_input(context) is None
    clean = from_corpus and isinstance(context.corpus, Cleaned) and context.corpus.is_clean(role)
    if clean or role == "preference_heldout":
        return iter(rows)
    return filter_rows(rows, guard_of(context.corpus, role, context.benchmarks), accounts)


class Cursor:
    """Counts the rows that are drawn of a role; with `skip`, so many are passed over, as they were dealt with before.

    Usage: `for row in Cursor(skip=2).over(rows): ...`; `number` is the place behind the row that was drawn last.
    """

    def __init__(self, skip: int = 0) -> None:
        self._skip, self.number = skip, 0

    def over(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            self.number += 1
            if self.number > self._skip:
                yield row


def read_role(
    context: StageContext, role: str, accounts: Accounts, cursor: Cursor | None = None, scratch: Path | None = None,
    source: str | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Return a role's rows, or those of one source, shuffled; of a role that trains, without what repeats the exam.

    With a folder for scratch, little of what is shuffled is held in memory.
    """
    raw = training_rows(context, role)
    own = raw if source is None else (row for row in raw if row["source"] == source)
    rows = shuffled(own, f"{context.config.seed}/{role}", scratch)
    return without_exam(context, role, rows if cursor is None else cursor.over(rows), accounts)


class Reader:
    """The rows of one role as tokens, and the accounts of their sources."""

    def __init__(
        self, context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, chat_only: bool,
        witness: Witness = NOBODY, source: str | None = None,
    ) -> None:  # fmt: skip
        """With `source`, rows of other sources are passed over."""
        self.source = source
        self.context, self.tokenizer, self.role, self.chat_only = context, tokenizer, role, chat_only
        self.witness = witness
        self.rewrites: Sequence[Callable[[dict[str, Any]], dict[str, Any]]] = ()  # of methods, before tokenising
        self.marks: Sequence[Mark] = ()  # of methods, on what of a conversation is learned
        self.rewritten: dict[str, Any] = {}  # what decides them: settings and code of these methods
        self.accounts = Accounts(role)
        self.texts = Counter[str]()  # left out by `chat_only`, by source
        self.num_tokens = 0
        self.cut_short = False  # set where reading ended at a token budget
        self.behind: Sequence[int] = ()  # budgets of the stages before whose documents are passed over, in their order
        self.passed: list[int] = []  # tokens of each of them that has been passed over
        self.round = 0  # above 0 where the documents have ended, and are read from their start again
        self._cursor = Cursor()
        self._scratch: Path | None = None

    @property
    def name(self) -> str:
        """Its role and, where it reads one source alone, that, and its round, where it is a further one."""
        own = self.role if self.source is None else f"{self.role}-{self.source}"
        return f"{own}.{self.round}" if self.round else own

    @property
    def passes_over(self) -> bool:
        """Whether it is still among the documents that stages before have read."""
        return len(self.passed) < len(self.behind)

    @property
    def num_passed(self) -> int:
        """Tokens that were passed over so far."""
        return sum(self.passed) + (self.num_tokens if self.passes_over else 0)

    def position(self) -> dict[str, Any]:
        """Return where reading has ended: tokens that were passed over and that were read.

        `left` is what was missing of the budgets of stages before, where all documents are theirs. Then none counts.
        """
        if not self.passes_over:
            return {"passed": self.num_passed, "read": self.num_tokens, "left": []}
        first, *others = self.behind[len(self.passed) :]
        found = {"passed": self.num_passed, "read": 0, "left": [first - self.num_tokens, *others]}
        self.accounts.clear()
        self.texts.clear()
        return found

    def next_round(self) -> Reader:
        """Return a reader of the same rows, changed alike, in a further round from their start."""
        found = Reader(self.context, self.tokenizer, self.role, self.chat_only, self.witness, self.source)
        found.rewrites, found.marks, found.rewritten = self.rewrites, self.marks, self.rewritten
        found.round = self.round + 1
        return found

    def raw(self) -> Iterator[dict[str, Any]]:
        """Yield the role's rows as they were read; with `chat_only`, conversations alone."""
        for row in read_role(self.context, self.role, self.accounts, self._cursor, self._scratch, self.source):
            if self.chat_only and "text" in row:
                self.texts[row["source"]] += 1
            else:
                yield row

    def batches(
        self, *, assistant_only: bool, sequence_length: int, scores: Mapping[str, str] = NO_SCORES
    ) -> Iterator[TokenBatch]:  # fmt: skip
        """Yield token rows in batches, with scores that their rows have. They count in `num_tokens` as they are taken.

        Rows that stages before have read are in no batch; counting begins where these end.
        `scores` names the setting that asks for each. Raises DataError for a row without one.
        """
        options: dict[str, Any] = {"assistant_only": assistant_only, "sequence_length": sequence_length}
        options["scores"] = tuple(scores)

        def counted(rows: Iterable[TokenRow]) -> Iterator[TokenRow]:
            for row in rows:
                self.num_tokens += len(row.input_ids)
                if self.passes_over:
                    self._pass_over()
                else:
                    yield row

        rows: Iterator[dict[str, Any]] = self._scored(scores) if scores else self.raw()
        for rewrite in self.rewrites:
            rows = map(rewrite, rows)
        for batch in tokenised_batches(
            self.tokenizer, rows, self.accounts, witness=_Own(self), marks=self.marks, **options
        ):
            yield batch._replace(rows=counted(batch.rows))

    def _pass_over(self) -> None:
        """Leave a row to the stage that has read it, by the rule by which that one ended; counting begins behind it."""
        if self.num_tokens >= self.behind[len(self.passed)]:
            self.passed.append(self.num_tokens)
            self.num_tokens = 0
            self.accounts.clear()
            self.texts.clear()

    def _scored(self, scores: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for row in self.raw():
            known = row.get("scores") or {}
            for score, asking in scores.items():
                if score not in known:
                    raise DataError(
                        f"{self.context.stage}.{asking}={score}: a row of the source '{row['source']}' has no such "
                        f"score.{did_you_mean(score, known)} List a block that gives it for all rows of the source."
                    )
            yield row

    def tokens(self, *, assistant_only: bool, sequence_length: int, budget: int | None) -> Iterator[TokenRow]:
        """Yield token rows until the budget is reached. `num_tokens` counts them."""
        for batch in self.batches(assistant_only=assistant_only, sequence_length=sequence_length):
            for row in batch.rows:
                yield row
                if budget is not None and self.num_tokens >= budget:
                    return

    @property
    def state(self) -> dict[str, Any]:
        """What is known between two rows: how many were drawn, and all that was counted."""
        accounts = {source: asdict(count) for source, count in self.accounts.items()}
        known = {"drawn": self._cursor.number, "accounts": accounts, "texts": self.texts, "tokens": self.num_tokens}
        return known | ({"passed": self.passed} if self.behind else {})

    def go_on(self, state: Mapping[str, Any] | None, scratch: Path) -> None:
        """Begin behind the rows that a state has drawn, with what was counted until there; None is the beginning.

        Rows that wait to be shuffled are kept in the folder `scratch`.
        """
        self._scratch = scratch
        if state is not None:
            self._cursor = Cursor(state["drawn"])
            self.accounts.update({source: RowCount(**facts) for source, facts in state["accounts"].items()})
            self.texts, self.num_tokens = Counter(state["texts"]), state["tokens"]
            self.passed = list(state.get("passed", ()))

    def finish(self, epochs: float) -> list[RowCount]:
        """Return the closed accounts; `epochs` is how often the rows are seen."""
        closed = self.accounts.close(self.context, epochs, budgeted=True)
        return [replace(count, cut_short=self.cut_short) for count in closed if self.source in (None, count.source)]


class _Own(Witness):
    """Passes on what a reader's witness hears, but for rows that stages before have read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def kept(
        self, count: RowCount, row: dict[str, Any], ids: Sequence[int], labels: Sequence[int], changed: Sequence[str]
    ) -> None:
        if not self._reader.passes_over:
            self._reader.witness.kept(count, row, ids, labels, changed)

    def dropped(self, count: RowCount, row: dict[str, Any], reason: str) -> None:
        if not self._reader.passes_over:
            self._reader.witness.dropped(count, row, reason)


def require_rows(rows: Sized, reader: Reader) -> None:
    """Raise DataError where a reader gave no row, with what it found in each source."""
    if len(rows):
        return
    stage, place = reader.context.stage, origin(reader.context, reader.role)
    lost = [count for count in reader.accounts.values() if count.dropped]
    found = [f"source '{count.source}': dropped {count.losses}" for count in lost]
    found += [f"source '{name}': {number} texts, which have no answers" for name, number in reader.texts.items()]
    kind = "conversations" if reader.chat_only else "rows"
    otherwise = f"Add {kind} with role: replay" if reader.role == "replay" else "Check where it comes from"
    remedy = max(lost, key=lambda count: count.num_dropped).remedy(otherwise) if lost else otherwise
    without = f", or set {stage}.replay=0" if reader.role == "replay" else ""
    raise DataError(f"Stage {stage}: {place} has no usable row ({'; '.join(found) or 'none read'}). {remedy}{without}.")
