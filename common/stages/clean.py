"""Clean the rows of a role before anything trains on them: blocks in their order, then the exam is kept out.

Usage: comes by itself, as the stage `data-<role>`, where a data manifest lists `blocks:` (or `clean.blocks=` is given).

Its result holds the rows that are left, in shards; what each block did to each source; and a sample of the rows that
went, with the reason. All such stages of a run end before the first one trains.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Mapping
from typing import cast

from common.config.blocks import Row, chosen
from common.config.cleaning import PREFIX, DataSettings
from common.config.kinds import Kind
from common.data.accounting import BY_BLOCK, RowCount
from common.data.cleaned import FACTS, REJECTS, SAMPLES, WEIGHTS
from common.data.cleaning.accounts import LEFT, TaskAccounts
from common.data.cleaning.clean import GATE, Cleaning, shard_name
from common.data.cleaning.runners import Runner, run_all
from common.data.cleaning.workers import Workers
from common.data.corpus import Portion
from common.data.decontaminate import gate, guard_of
from common.data.shards import ROWS, write_shard
from common.data.texts import texts_of
from common.errors import ContractError, DataError
from common.stage import StageContext, StageReport
from common.store.artifacts import write_json, write_rows
from common.store.manifest import read_mapping


def run(context: StageContext) -> StageReport:
    """Write the rows that are left. Raises DataError for a source that gives none, ContractError beyond a limit."""
    settings, run_settings = cast(DataSettings, context.settings), context.config.run
    portions = context.corpus.portions(settings.role, hub=True) or []
    counts = {portion.source: portion.count or RowCount(portion.source, settings.role) for portion in portions}
    blocks = chosen(settings.blocks)
    runner = Runner(run_settings.data_executor, run_settings.data_workers, run_settings.data_options)
    guard = guard_of(context.corpus, settings.role, context.benchmarks)
    cleaning = Cleaning(
        context.work / "cleaning", settings.role, blocks, functools.partial(gate, guard), settings.rejects,
        earlier={name.removeprefix(PREFIX): artifact.path for name, artifact in context.inputs.items()},
        scorers=context.scorers, data=context.data, seed=context.config.seed, workers=runner.workers,
    )  # fmt: skip
    read = context.work / "read.json"
    with Workers(cleaning, runner.processes) as workers:
        if not (cleaning.is_cut and read.is_file()):
            cleaning.cut(_rows_of(portions, settings), workers.begin)
            told = {source: list(context.corpus.findings().get(source, ())) for source in counts}
            counted = {source: count.as_dict() for source, count in counts.items()}
            write_json(read, {"counts": counted, "findings": told})
        known = read_mapping(read)
        counts = {source: RowCount(**values) for source, values in known["counts"].items()}
        _check_usable(counts, settings.role)
        run_all(cleaning, runner, workers)
    accounts = cleaning.accounts()
    check_blocks(accounts, cleaning, context.stage)
    folder = context.out / ROWS
    folder.mkdir()
    for number, shard in enumerate(cleaning.results()):
        shutil.copyfile(shard, folder / shard_name(number))
    times = {portion.source: portion.times for portion in portions}
    totals = [_total(count, accounts) for count in counts.values()]
    write_json(context.out / WEIGHTS, times)
    write_json(
        context.out / FACTS,
        {"role": settings.role, "times": times, "sources": [count.as_dict() for count in totals],
         "read": [count.as_dict() for count in counts.values()], "findings": known["findings"],
         **{key: accounts.as_dict()[key] for key in ("blocks", "amounts", "lengths")}},
    )  # fmt: skip
    rejects = ({key: value for key, value in reject.items() if key != "always"} for reject in accounts.rejects)
    write_rows(context.out / REJECTS, rejects)
    write_shard(context.out / SAMPLES, accounts.samples())
    metrics = {
        "rows_in": sum(count.rows_in for count in totals), "rows_out": sum(count.rows_out for count in totals),
        "characters": sum(amount.characters for amount in accounts.amounts[LEFT].values()),
        "tasks": cleaning.tasks,
        "blocks": {
            label: {
                "seen": sum(count.seen for count in sources.values()),
                "dropped": sum(count.num_dropped for count in sources.values()),
                "changed": sum(count.changed.total() for count in sources.values()),
            }
            for label, sources in accounts.blocks.items()
        },
    }  # fmt: skip
    return StageReport(metrics, rows=[count.as_dict() for count in totals], sources=context.corpus.sources())


def _check_usable(counts: Mapping[str, RowCount], role: str) -> None:
    for source, count in counts.items():
        if not count.num_kept:
            raise DataError(
                f"Source '{source}' gives no usable row for {role}: {count.rows_in} read, dropped: "
                f"{count.losses}. {count.remedy('Check its columns, where, skip, weight and heldout')}."
            )


def _rows_of(portions: list[Portion], settings: DataSettings) -> Iterator[Row]:
    """Yield the raw rows of all sources; of one on the Hub no more than its limit of characters."""
    for portion in portions:
        rows: Iterator[Row] = portion.rows
        if portion.far and settings.hub_characters is not None:
            rows = _up_to(rows, settings.hub_characters)
        yield from rows


def _up_to(rows: Iterator[Row], characters: int) -> Iterator[Row]:
    read = 0
    for row in rows:
        yield row
        read += sum(map(len, texts_of(row)))
        if read >= characters:
            return


def _total(count: RowCount, accounts: TaskAccounts) -> RowCount:
    """Return the account of a source over reading and all blocks; rows that are made of several records as those."""
    total = RowCount(count.source, count.role, count.rows_in, dict(count.dropped), dict(count.changed))
    for label, sources in accounts.blocks.items():
        if (found := sources.get(count.source)) is None:
            continue
        for reason, number in found.dropped.items():
            total.drop(named(label, reason), number=round(number * count.records_each))
        for what, number in found.changed.items():
            total.change(what, number)
    total.rows_out = accounts.rows[count.source]
    total.joined = round(total.rows_out * (count.records_each - 1))
    return total


def named(label: str, reason: str) -> str:
    """Return a reason as the accounts of rows have it: with the block that gave it, but for the exam's own."""
    return reason if label == GATE else f"{BY_BLOCK}{label.split(' ', 1)[1]}: {reason}"


def check_blocks(accounts: TaskAccounts, cleaning: Cleaning, stage: str) -> None:
    """Stop where a block drops more than its limit, or a source has no row left.

    Raises ContractError with the block, its main reason and the key to change.
    """
    for place, (name, settings) in enumerate(cleaning.blocks):
        found = accounts.blocks.get(cleaning.label(place), {}).values()
        seen, dropped = sum(count.seen for count in found), sum(count.num_dropped for count in found)
        if seen and dropped / seen > settings.most:
            raise ContractError(
                f"Stage {stage}: the block {name} drops {dropped:,} of {seen:,} rows ({dropped / seen:.1%}); its limit "
                f"`most` is {settings.most:.1%}. Look at them with `just data`; raise `most`, or change the block."
            )
    for source in {source for found in accounts.blocks.values() for source in found}:
        if accounts.rows[source]:
            continue
        drops = {label: found[source].num_dropped for label, found in accounts.blocks.items() if source in found}
        worst = max(drops, key=lambda label: drops[label])
        reason, number = accounts.blocks[worst][source].dropped.most_common(1)[0]
        block = "the exam" if worst == GATE else f"the block {worst.split(' ', 1)[1]}"
        raise ContractError(
            f"Stage {stage}: source '{source}' has no row left. Most were dropped by {block}, for '{reason}' "
            f"({number:,} rows). Loosen that block, name other sources in its `sources`, or disable this one."
        )


KIND = Kind(
    name="clean", settings=DataSettings, run=run, makes="rows", on_gpu=False, seconds=2.0,
    phrase="cleaning of the data",
)  # fmt: skip
