"""Run a list of blocks over the rows of a role: cut into tasks, pass by pass, each task committed by a rename.

Usage:
    cleaning = Cleaning(folder, "cpt", [("unicode", settings)], gate, sample=20)
    if not cleaning.is_cut:
        cleaning.cut(rows)                   # raw rows into shards of about equal size, one for each task
    run_all(cleaning, runner, workers)       # see `common.data.cleaning.runners`
    cleaning.accounts()

Blocks that see all rows before they decide (`common.config.blocks.TwoPass`) end a pass: what stands behind them belongs
to the next one. How many tasks there are follows from the rows alone, so that shards and counts are the same bytes for
any number of workers. A task that is done is not run again, and one that was killed starts over: its shard is renamed
into place when it is whole, and its accounts are written last.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from common.config.blocks import Block, BlockContext, BlockSettings, Drop, Row, RowFunction, Task, TwoPass, block_of
from common.data.cleaning.accounts import BEFORE, TaskAccounts
from common.data.cleaning.amounts import sample_of_task
from common.data.shards import read_shard, write_shard
from common.data.texts import texts_of
from common.store.artifacts import write_json
from common.store.manifest import read_mapping

SHARD_CHARACTERS = 6_000_000  # of a task at most, from 100 MB of rows on: half a minute or less, little in memory
SHARES = 16  # a task is about this part of the rows before it, so that few rows too are work for several processes
GATE = "exam"  # what accounts call the last step, which keeps the exam out
RAW, CUT = "raw", "cut.json"
Gate = Callable[[], RowFunction]  # gives what judges the rows of a task


@dataclass(frozen=True)
class Pass:
    """What one pass over the rows does: judge by the block that the one before prepared, clean, prepare the next."""

    number: int
    judges: int | None  # place of a block with two passes among all blocks
    cleans: tuple[int, ...]  # places of blocks that look at single rows
    looks: int | None
    last: bool


@dataclass(frozen=True)
class Cleaning:
    """The rows of one role on their way through a list of blocks. It crosses to other processes."""

    folder: Path
    role: str
    blocks: Sequence[tuple[str, BlockSettings]]  # by name, since it crosses to other processes
    gate: Gate | None = None
    sample: int = 20  # rejected rows that are kept for each block and reason
    earlier: Mapping[str, Path] = field(default_factory=dict)
    scorers: Mapping[str, Callable[..., float]] = field(default_factory=dict)
    data: Path | None = None  # the data folder
    seed: int = 0
    workers: int = 1

    @property
    def passes(self) -> list[Pass]:
        """The passes that the blocks need, in their order; at least one."""
        found: list[Pass] = []
        judges, cleans = None, list[int]()
        for place, (name, _) in enumerate(self.blocks):
            if block_of(name).look is None:
                cleans.append(place)
                continue
            found.append(Pass(len(found), judges, tuple(cleans), place, False))
            judges, cleans = place, []
        return [*found, Pass(len(found), judges, tuple(cleans), None, True)]

    def label(self, place: int) -> str:
        """Return what accounts call a block: its place in the list, from 1, and its name."""
        return f"{place + 1} {self.blocks[place][0]}"

    def _block(self, place: int) -> tuple[Block, BlockSettings]:
        name, settings = self.blocks[place]
        return block_of(name), settings

    def context(self, place: int) -> BlockContext:
        """Return what a block may use."""
        folder = self.folder / f"block-{place + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        return BlockContext(
            folder, self.role, earlier=self.earlier, scorers=self.scorers, data=self.data, seed=self.seed,
            workers=self.workers,
        )  # fmt: skip

    def cut(self, rows: Iterable[Row], on_task: Callable[[int], None] = lambda task: None) -> None:
        """Write the raw rows into one shard for each task, and tell of each. What was started starts again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        tasks = 0
        for task, shard in itertools.groupby(_numbered(rows), key=itemgetter(0)):
            write_shard(self.folder / RAW / shard_name(task), map(itemgetter(1), shard))
            on_task(task)
            tasks = task + 1
        write_json(self.folder / CUT, {"tasks": tasks})

    def _cut(self) -> int | None:
        tasks = read_mapping(self.folder / CUT).get("tasks")
        return tasks if isinstance(tasks, int) else None

    def check(self) -> None:
        """Begin each block, without rows. Raises what it says of its settings, or of what is missing."""
        for place, (name, settings) in enumerate(self.blocks):
            block = block_of(name)
            begin = block.start or block.look
            assert begin is not None
            begin(settings, self.context(place))

    @property
    def is_cut(self) -> bool:
        return self._cut() is not None

    @property
    def can_begin_early(self) -> bool:
        """Whether tasks can go through the first pass while others are read: they need not know how many there are."""
        place = self.passes[0].looks
        return place is None or not self._block(place)[0].roles(self._block(place)[1])

    @property
    def tasks(self) -> int:
        """Into how many tasks the rows are cut."""
        tasks = self._cut()
        assert tasks is not None, "the rows are cut first"
        return tasks

    def shard(self, number: int, task: int) -> Path:
        """Return where a task of a pass writes its rows."""
        return self.folder / f"pass-{number}" / shard_name(task)

    def accounts_of(self, number: int, task: int) -> Path:
        """Return the accounts of a task in a pass; they are written last."""
        return self.folder / f"pass-{number}" / f"{task:05d}.json"

    def _samples_of(self, number: int, task: int) -> Path:
        return self.folder / f"pass-{number}" / f"{task:05d}.samples.jsonl.zst"

    def left(self, number: int) -> list[int]:
        """Return the tasks of a pass that are not done."""
        return [task for task in range(self.tasks) if not self.accounts_of(number, task).is_file()]

    def decide(self, number: int) -> None:
        """Let the block that looked at all rows of a pass decide."""
        place = self.passes[number].looks
        if place is not None:
            self._two_pass(place).decide(self.tasks)

    def _two_pass(self, place: int) -> TwoPass:
        block, settings = self._block(place)
        assert block.look is not None
        return block.look(settings, self.context(place))

    def run_task(self, number: int, task: int) -> None:
        """Take the rows of one task through one pass."""
        if self.accounts_of(number, task).is_file():
            return
        this, share = self.passes[number], Task(task, self._cut() or 0)
        accounts = TaskAccounts(self.sample, sample_of_task(task))
        before = self.folder / RAW / shard_name(task) if number == 0 else self.shard(number - 1, task)
        rows = read_shard(before) if number else _as_read(read_shard(before), accounts, task)
        if this.judges is not None:
            rows = self._judged(this.judges, share, rows, accounts)
        if this.cleans:
            rows = self._cleaned(this.cleans, rows, accounts)
        if this.looks is not None:
            rows = self._looked(this.looks, share, rows)
        elif self.gate is not None:
            rows = self._gated(self.gate, rows, accounts)
        write_shard(self.shard(number, task), _counted(rows, accounts, task) if this.last else rows)
        write_shard(self._samples_of(number, task), accounts.samples())
        write_json(self.accounts_of(number, task), accounts.as_dict())

    def _judged(self, place: int, task: Task, rows: Iterator[Row], accounts: TaskAccounts) -> Iterator[Row]:
        """Yield the rows that a block keeps, now that it has seen all of them."""
        judge = self._two_pass(place).judge(task)
        sees, label, seen = self._sees(place), self.label(place), itertools.count()
        for row in rows:
            if not sees(row):
                yield row
            elif (found := _apply(functools.partial(judge, next(seen)), label, row, accounts)) is not None:
                yield found

    def _looked(self, place: int, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Let a block look at the rows that it is for; the others pass by, in their order."""
        sees, waiting = self._sees(place), deque[tuple[Row, bool]]()

        def shown() -> Iterator[Row]:
            for row in rows:
                waiting.append((row, sees(row)))
                if waiting[-1][1]:
                    yield row

        for looked in self._two_pass(place).look(task, shown()):
            while not waiting[0][1]:
                yield waiting.popleft()[0]
            waiting.popleft()
            yield looked
        yield from (row for row, _ in waiting)

    def _cleaned(self, places: Sequence[int], rows: Iterator[Row], accounts: TaskAccounts) -> Iterator[Row]:
        """Yield the rows that all blocks of some places keep, as they leave them."""
        steps = [(self.label(place), self._sees(place), self._start(place)) for place in places]
        for row in rows:
            for label, sees, judge in steps:
                if not sees(row):
                    continue
                if (kept := _apply(judge, label, row, accounts)) is None:
                    break
                row = kept
            else:
                yield row

    def _gated(self, gate: Gate, rows: Iterator[Row], accounts: TaskAccounts) -> Iterator[Row]:
        judge = gate()
        for row in rows:
            if (found := _apply(judge, GATE, row, accounts, always=True)) is not None:
                yield found

    def _start(self, place: int) -> RowFunction:
        block, settings = self._block(place)
        assert block.start is not None
        return block.start(settings, self.context(place))

    def _sees(self, place: int) -> Callable[[Row], bool]:
        """Return what tells whether a block is for a row: by its kind, and by the sources that the block is for."""
        block, settings = self._block(place)
        kinds, sources = frozenset(block.rows), frozenset(settings.sources)
        return lambda row: not kinds.isdisjoint(row) and (not sources or row["source"] in sources)

    def accounts(self) -> TaskAccounts:
        """Return the accounts of all passes."""
        accounts = TaskAccounts(self.sample)
        for number, task in itertools.product(range(len(self.passes)), range(self.tasks)):
            accounts.add(read_mapping(self.accounts_of(number, task)))
            for row in read_shard(self._samples_of(number, task)):
                accounts.add_sample(row)
        return accounts

    def results(self) -> list[Path]:
        """Return the shards of cleaned rows, in their order."""
        return [self.shard(self.passes[-1].number, task) for task in range(self.tasks)]


def shard_name(task: int) -> str:
    """Return the name of a task's shard."""
    return f"{task:05d}.jsonl.zst"


def _apply(judge: RowFunction, label: str, row: Row, accounts: TaskAccounts, *, always: bool = False) -> Row | None:
    """Return the row as a block leaves it, or None; its count says what was done."""
    count = accounts.of(label, row["source"])
    count.seen += 1
    found = judge(row)
    if isinstance(found, Drop):
        accounts.reject(label, row, found, always=always)
        return None
    if "changed" in found:
        count.changed.update(found["changed"])
        found = {key: value for key, value in found.items() if key != "changed"}
    return found


def _as_read(rows: Iterator[Row], accounts: TaskAccounts, task: int) -> Iterator[Row]:
    for number, row in enumerate(rows):
        accounts.amount(BEFORE, row["source"]).add(f"{task}/{number}", row)
        yield row


def _counted(rows: Iterator[Row], accounts: TaskAccounts, task: int) -> Iterator[Row]:
    for number, row in enumerate(rows):
        accounts.written(row, f"{task}/{number}")
        yield row


def _numbered(rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
    """Yield rows, each with its task: of SHARD_CHARACTERS; the first ones are shorter, a share of those before them."""
    task = size = before = 0
    for row in rows:
        yield task, row
        size += sum(map(len, texts_of(row)))
        if size >= min(SHARD_CHARACTERS, max(SHARD_CHARACTERS, before) // SHARES):
            task, before, size = task + 1, before + size, 0
