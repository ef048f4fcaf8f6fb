"""Build a stage's training rows: read, keep the exam out, tokenise, pack, mix with replay, count every row.

Usage: `rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)`; `rows.dataset` is in final order.

Tokens are shared by stages and runs (`common.training.rows.prepared`); the order of rows is the stage's own. Sources
are shuffled together, read until the token budget is reached, and repeated in fresh shuffles where they are shorter.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from common.config.batches import own_share
from common.config.cleaning import from_lineage
from common.config.continued import continues
from common.config.methods import keeps
from common.config.mixture import LENGTH
from common.config.stages import TrainingSettings
from common.data.accounting import RowCount, check_limits
from common.stage import StageContext
from common.store.artifacts import flush, write_json
from common.store.manifest import read_mapping
from common.training.distributed import ranks
from common.training.methods.ordered import (
    change_rows,
    orders,
    parts_by_step,
    reordered,
    scores_of,
    selects,
    sorted_by,
)
from common.training.options import steps_for
from common.training.rows.course import course
from common.training.rows.lineage import LINEAGE, has_lineage, replay_of_lineage
from common.training.rows.mixture import mixed_order, replay_by_phase, with_replay
from common.training.rows.packing import PARTS, interleave, tokenise
from common.training.rows.parts import Parts, counts_of
from common.training.rows.prepared import SAMPLES, Prepared, open_prepared
from common.training.rows.reader import Reader, require_rows
from common.training.rows.shards import TokenRow
from common.training.rows.shuffling import shuffled
from common.training.rows.taught import with_places
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ROWS = "rows"  # the folder of the order in a stage's scratch
ORDER, KEPT, MADE = "order.npy", "validation.npy", "rows.json"  # its files; the last is written last


@dataclass
class TrainingRows:
    """Rows ready for the trainer, in the order in which it must take them."""

    dataset: Dataset  # columns input_ids, labels; seq_lengths, unless packing: trl
    steps: int
    counts: list[RowCount]
    samples: list[TokenRow] = field(default_factory=list)  # a few rows as tokenised, for the contracts
    validation: Dataset | None = None  # rows that never train
    mixture: dict[str, Any] | None = None  # source -> asked and real share, and passes, where a mixture is asked for
    methods: dict[str, Any] | None = None  # method -> what its order of the rows is like
    course: list[dict[str, Any]] = field(default_factory=list)  # what a mixture reads in each tenth of the steps
    read: dict[str, int] = field(default_factory=dict)  # shared result that holds rows -> tokens read of it
    continued: dict[str, Any] = field(default_factory=dict)  # role -> tokens passed over, and the share read again


def build_rows(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, *, role: str, assistant_only: bool,
    witness: Witness = NOBODY,
) -> TrainingRows:  # fmt: skip
    """Return the stage's rows. Raises DataError for a role without rows, ContractError beyond the limits.

    `assistant_only` masks all but the assistant's tokens; replay is then conversations alone. With `replay: 1` there
    is nothing but replay. The first process prepares the rows, and notes in the stage's scratch which they are, where
    the other processes find it, and so does the same stage after it was killed. `witness` hears of every row that is
    read for it.
    """
    settings = cast(TrainingSettings, context.settings)
    if settings.packing == "trl":
        return _rows_for_trl(context, tokenizer, role=role, chat_only=assistant_only, witness=witness)
    asked = {
        "role": role, "assistant_only": assistant_only, "seed": context.config.seed,
        **settings.model_dump(mode="json", include={"tokens", "epochs", "batch_tokens", "sequence_length", "replay"}),
        "validation": settings.validation.share,
        **({"mixture": settings.mixture.model_dump(mode="json")} if settings.mixture.asks else {}),
        **({"methods": ordering} if (ordering := orders(settings)) else {}),
        **({"replay_from": LINEAGE} if from_lineage(settings) else {}),
        **({"scores": sorted(scores)} if (scores := scores_of(settings)) else {}),
        **({"behind": {name: list(read) for name, read in context.behind.items()}} if continues(settings) else {}),
    }  # fmt: skip
    if ranks.is_main_process() and _read(context, asked) is None:
        _prepare(context, tokenizer, asked, witness)
    ranks.barrier()
    rows = _read(context, asked)
    assert rows is not None, "the first process has made them"
    check_limits(rows.counts, settings.limits, context.stage)
    logger.info("%s: %d steps, %d rows", context.stage, rows.steps, len(rows.dataset))
    return rows


def _prepare(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, asked: dict[str, Any], witness: Witness
) -> None:
    """Prepare the rows of each part, and order them. The file that describes the order is written last."""
    import numpy as np
    from datasets import concatenate_datasets

    settings = cast(TrainingSettings, context.settings)
    folder, length, seed = context.work / ROWS, settings.sequence_length, context.config.seed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    budget = settings.tokens
    chat_only = asked["assistant_only"]
    readers, share = readers_of(context, tokenizer, asked["role"], chat_only=chat_only, witness=witness)
    order_of_own, scores = sorted_by(settings), scores_of(settings)
    if order_of_own is not None and order_of_own.by != LENGTH:
        scores = {order_of_own.by: "mixture.curriculum.by", **scores}
    parts = Parts(context, {"assistant_only": chat_only, "sequence_length": length})
    own = _by_source(readers[0]) if settings.mixture.asks else [readers[0]]
    own_budget = None if budget is None or selects(settings) else round(budget * (1 - share))
    whole = settings.mixture.by_size(str(reader.source) for reader in own)
    sizes: dict[str, int] = {}
    for reader in own:
        change_rows(reader)
        most = None if reader.source in whole else own_budget
        sizes[str(reader.source)] = parts.add(reader, most, order=order_of_own, scores=scores)
    own_counts = list(parts.counts)
    number = sum(sizes.values())
    num_own = number - _num_kept(number, settings.validation.share)
    steps = steps_for(settings, num_own / own_share(settings), context.stage)
    total = steps * (settings.batch_tokens // length)
    for replay in readers[1:]:
        parts.add(replay, round(total * length * share))
    training, kept = _split(number, settings.validation.share, seed)
    if share and len(readers) == 1:
        places = _cut(kept, np.cumsum(list(sizes.values())))
        kept_of = {name: own_kept for name, own_kept in zip(parts.names, places, strict=True) if len(own_kept)}
        drawn_of = round(total * length * share)
        parts.append(replay_of_lineage(context, kept_of, budget=drawn_of, sequence_length=length))
    rows, bounds = concatenate_datasets(parts.rows), np.cumsum([len(part) for part in parts.rows])
    num_replay, mixture = len(rows) - number, None
    if settings.mixture.asks:
        order, mixture = _mixed(context, sizes, training, num_replay, total)
        for name in {count.source for count in parts.counts if count.cut_short} & mixture.keys():
            mixture[name]["cut_short"] = True
    else:
        drawn = interleave(len(training), num_replay, total=total, replay=share, seed=seed)
        order = np.concatenate([training, number + np.arange(num_replay)])[drawn]
    order, methods = reordered(context, rows, order, training, own_counts)
    np.save(folder / ORDER, order, allow_pickle=False)
    np.save(folder / KEPT, kept, allow_pickle=False)
    num_drawn = np.bincount(np.searchsorted(bounds, order, side="right"), minlength=len(bounds)).tolist()
    for path in folder.iterdir():
        flush(path)
    made = {
        "asked": asked, "parts": parts.names, "steps": steps, "drawn": num_drawn, "mixture": mixture,
        "methods": methods, "again": parts.again, "continued": parts.continued,
    }  # fmt: skip
    if mixture is not None:
        by = order_of_own.by if order_of_own is not None else None
        made["course"] = course(order, sizes, rows, steps=steps, by=by)
    write_json(folder / MADE, made)
    parts.tell()


def _mixed(
    context: StageContext, sizes: Mapping[str, int], training: np.ndarray, num_replay: int, total: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the order of rows from several sources and of replay, as a stage's mixture says, and its facts.

    `sizes` are the rows of each source; `training` are the places of those that may train.
    """
    import numpy as np

    settings = cast(TrainingSettings, context.settings)
    mixture, seed = settings.mixture, context.config.seed
    ends = np.cumsum(list(sizes.values()))
    left = np.bincount(np.searchsorted(ends, training, side="right"), minlength=len(sizes)).tolist()
    phases = replay_by_phase(mixture, total) if num_replay else []
    own = [rows - replayed for rows, replayed in phases]
    num_own = sum(own) if phases else total - (round(total * settings.replay) if num_replay else 0)
    mixed, facts = mixed_order(
        dict(zip(sizes, left, strict=True)), total=num_own, settings=mixture, seed=seed, stage=context.stage,
        ends=list(itertools.accumulate(own)),
    )  # fmt: skip
    order = with_replay(training[mixed], int(ends[-1]), num_replay, total=total, seed=seed, phases=phases)
    return order, facts


def _by_source(reader: Reader) -> list[Reader]:
    """Return a reader for each source of a role that has rows; those without are passed over."""
    context, role = reader.context, reader.role
    return [
        Reader(context, reader.tokenizer, role, chat_only=reader.chat_only, witness=reader.witness, source=name)
        for name in context.corpus.conversations(role)
    ]


def readers_of(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, *, chat_only: bool,
    witness: Witness = NOBODY,
) -> tuple[list[Reader], float]:  # fmt: skip
    """Return the readers of a stage's role and of its replay, and the share of replay; with 1 it is the role itself.

    Replay of the chain's lineage has no reader.
    `chat_only` says that of replay only conversations are read.
    """
    share = cast(TrainingSettings, context.settings).replay
    if from_lineage(context.settings):  # drawn from the store, where the chain has read anything before
        own = Reader(context, tokenizer, role, chat_only=False, witness=witness)
        return [own], share if has_lineage(context) else 0.0
    replay = Reader(context, tokenizer, "replay", chat_only=chat_only, witness=witness)
    if share == 1:
        return [replay], 0.0
    own = Reader(context, tokenizer, role, chat_only=False, witness=witness)
    return [own, *([replay] if share else [])], share


def _num_kept(number: int, share: float) -> int:
    """Return how many of some rows never train: at least one, and never all."""
    return min(number - 1, max(1, round(share * number))) if share else 0


def _split(number: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows that train and of those that never do."""
    import numpy as np

    kept = np.sort(np.random.default_rng([seed, 1]).permutation(number)[: _num_kept(number, share)])
    return np.setdiff1d(np.arange(number), kept), kept


def _cut(places: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Return ascending places in parts that stand one behind the other, of each part as places in it."""
    import numpy as np

    cut = np.split(places, np.searchsorted(places, ends[:-1]))
    return [part - start for part, start in zip(cut, [0, *ends[:-1]], strict=True)]


def _read(context: StageContext, asked: dict[str, Any]) -> TrainingRows | None:
    """Return the rows that are noted in the stage's scratch, or None where there are none, or others."""
    import numpy as np
    from datasets import concatenate_datasets

    folder = context.work / ROWS
    made = read_mapping(folder / MADE)
    if made.get("asked") != asked:
        return None
    parts: list[Prepared] = []
    for name in made["parts"]:
        if (found := open_prepared(context, name)) is None:
            return None
        parts.append(found)
    order = np.load(folder / ORDER, allow_pickle=False)
    kept = np.load(folder / KEPT, allow_pickle=False)
    counts = [
        count
        for name, part, number in zip(made["parts"], parts, made["drawn"], strict=True)
        for count in counts_of(part, number, name in made.get("again", ()))
    ]
    everything = concatenate_datasets([part.rows for part in parts])
    cut = parts_by_step(cast(TrainingSettings, context.settings), made["steps"])
    training = with_places(everything) if keeps(context.settings) else everything
    samples = next((part.samples for part in parts if len(part.rows)), [])
    return TrainingRows(
        _read_in_parts(training, order, cut) if cut else training.select(order), made["steps"], counts,
        samples, everything.select(kept) if len(kept) else None, made.get("mixture"), made.get("methods"),
        made.get("course", []), _tokens_of(made, asked["sequence_length"]) if context.shared is not None else {},
        made.get("continued", {}),
    )  # fmt: skip


def _read_in_parts(rows: Dataset, order: np.ndarray, parts: Sequence[int]) -> Dataset:
    """Return packed rows in an order, with a column of the parts that each is cut into: those of the step it is in.

    Behind another stand as many copies of the rows as there are numbers of parts. They take no room, as rows are mapped
    from the disk; of a copy only its column is new.
    """
    import numpy as np
    from datasets import concatenate_datasets

    by_step, num_steps = np.asarray(parts), len(parts)
    numbers, which = np.unique(by_step, return_inverse=True)
    copies = [rows.add_column(PARTS, np.full(len(rows), number)) for number in numbers]
    steps = np.arange(len(order)) // (len(order) // num_steps)
    return concatenate_datasets(copies).select(order + len(rows) * which[steps])


def _tokens_of(made: Mapping[str, Any], length: int) -> dict[str, int]:
    """Return how many tokens of each part a stage reads, passes counted."""
    found: dict[str, int] = {}
    for name, number in zip(made["parts"], made["drawn"], strict=True):
        found[name] = found.get(name, 0) + number * length
    return found


def _rows_for_trl(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, *, role: str, chat_only: bool, witness: Witness
) -> TrainingRows:
    """Return token rows of any length, which TRL packs or cuts; the replay share is then one of rows, not of tokens."""
    from datasets import Dataset

    settings = cast(TrainingSettings, context.settings)
    readers, share = readers_of(context, tokenizer, role, chat_only=chat_only, witness=witness)
    parts = [list(readers[0].raw())]
    for replay in readers[1:]:
        parts.append(list(itertools.islice(replay.raw(), max(1, round(len(parts[0]) * share / (1 - share))))))
    made = [
        list(tokenise(tokenizer, part, reader.accounts, assistant_only=chat_only, witness=witness))
        for reader, part in zip(readers, parts, strict=True)
    ]
    for part, reader in zip(made, readers, strict=True):
        require_rows(part, reader)
    columns = ({"input_ids": row.input_ids, "labels": row.labels} for row in itertools.chain(*made))
    rows = list(shuffled(columns, f"{context.config.seed}/mix"))
    num_tokens = sum(len(row["input_ids"]) for row in rows)
    num_rows = round(num_tokens / settings.sequence_length) if settings.train.get("packing") else len(rows)
    steps = steps_for(settings, max(1, num_rows), context.stage)
    counts = [count for reader in readers for count in reader.finish(steps * settings.batch_tokens / num_tokens)]
    check_limits(counts, settings.limits, context.stage)
    return TrainingRows(Dataset.from_list(rows), steps, counts, [TokenRow(**row) for row in rows[:SAMPLES]])
