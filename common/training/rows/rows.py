"""Build a stage's training rows: read, keep the exam out, tokenise, pack, mix with replay, count every row.

Usage: `rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)`; `rows.dataset` is in final order.

Sources are shuffled together, read until the token budget is reached, and repeated in fresh shuffles where they are
shorter.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Sized
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from common.config.stages import TrainingSettings
from common.data.accounting import RowCount, check_limits
from common.errors import DataError
from common.stage import StageContext
from common.store.artifacts import flush, write_json
from common.store.manifest import read_mapping
from common.training.distributed import ranks
from common.training.options import steps_for
from common.training.rows.packing import TokenRow, interleave, pack, packed_file, tokenise
from common.training.rows.reader import Reader, origin, shuffled
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

SAMPLES = 64  # rows kept as tokenised, for the contracts
ROWS = "rows"  # the folder of the rows in a stage's scratch
ORDER, KEPT, MADE = "order.npy", "validation.npy", "rows.json"  # its files; the last is written last


@dataclass
class TrainingRows:
    """Rows ready for the trainer, in the order in which it must take them."""

    dataset: Dataset  # columns input_ids, labels; seq_lengths, unless packing: trl
    steps: int
    counts: list[RowCount]
    samples: list[TokenRow] = field(default_factory=list)  # a few rows as tokenised, for the contracts
    validation: Dataset | None = None  # rows that never train


def build_rows(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, *, role: str, assistant_only: bool,
    witness: Witness = NOBODY,
) -> TrainingRows:  # fmt: skip
    """Return the stage's rows. Raises DataError for a role without rows, ContractError beyond the limits.

    `assistant_only` masks all but the assistant's tokens; replay is then conversations alone. With `replay: 1` there
    is nothing but replay. The first process builds the rows in the stage's scratch, where the other processes find
    them, and so does the same stage after it was killed. `witness` hears of every row that is read for it.
    """
    settings = cast(TrainingSettings, context.settings)
    if settings.packing == "trl":
        return _rows_for_trl(context, tokenizer, role=role, chat_only=assistant_only, witness=witness)
    asked = {
        "role": role, "assistant_only": assistant_only, "seed": context.config.seed,
        **settings.model_dump(mode="json", include={"tokens", "epochs", "batch_tokens", "sequence_length", "replay"}),
        "validation": settings.validation.share,
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
    """Read, tokenise, pack and order the rows. The file that describes them is written last."""
    import numpy as np

    settings = cast(TrainingSettings, context.settings)
    assistant_only = bool(asked["assistant_only"])
    folder, length, seed = context.work / ROWS, settings.sequence_length, context.config.seed
    shutil.rmtree(folder, ignore_errors=True)
    budget = settings.tokens
    readers, share = readers_of(context, tokenizer, asked["role"], chat_only=assistant_only, witness=witness)
    own_budget = None if budget is None else round(budget * (1 - share))
    stream = readers[0].tokens(assistant_only=assistant_only, sequence_length=length, budget=own_budget)
    samples = list(itertools.islice(stream, SAMPLES))
    packed = pack(itertools.chain(samples, stream), length, folder, readers[0].role)
    require_rows(packed, readers[0])
    steps = steps_for(settings, len(packed) - _num_kept(len(packed), settings.validation.share), context.stage)
    total = steps * (settings.batch_tokens // length)
    parts = [packed]
    for replay in readers[1:]:
        wanted = round(total * length * share)
        stream = replay.tokens(assistant_only=assistant_only, sequence_length=length, budget=wanted)
        parts.append(pack(stream, length, folder, "replay"))
        require_rows(parts[1], replay)
    training, kept = _split(len(packed), settings.validation.share, seed)
    num_replay = sum(map(len, parts[1:]))
    drawn = interleave(len(training), num_replay, total=total, replay=share, seed=seed)
    order = np.concatenate([training, len(packed) + np.arange(num_replay)])[drawn]
    np.save(folder / ORDER, order, allow_pickle=False)
    np.save(folder / KEPT, kept, allow_pickle=False)
    num_drawn = np.bincount(order >= len(packed), minlength=2).tolist()  # of both sides
    made = {
        "asked": asked, "parts": [reader.role for reader in readers], "steps": steps,
        "samples": [asdict(row) for row in samples],
        "counts": [
            count.as_dict()
            for reader, part, number in zip(readers, parts, num_drawn, strict=False)
            for count in reader.finish(number / len(part))
        ],
    }  # fmt: skip
    for path in folder.iterdir():
        flush(path)
    write_json(folder / MADE, made)


def readers_of(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, *, chat_only: bool,
    witness: Witness = NOBODY,
) -> tuple[list[Reader], float]:  # fmt: skip
    """Return the readers of a stage's role and of its replay, and the share of replay; with 1 it is the role itself.

    `chat_only` says that of replay only conversations are read.
    """
    share = cast(TrainingSettings, context.settings).replay
    replay = Reader(context, tokenizer, "replay", chat_only=chat_only, witness=witness)
    if share == 1:
        return [replay], 0.0
    own = Reader(context, tokenizer, role, chat_only=False, witness=witness)
    return [own, *([replay] if share else [])], share


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


def _num_kept(number: int, share: float) -> int:
    """Return how many of some rows never train: at least one, and never all."""
    return min(number - 1, max(1, round(share * number))) if share else 0


def _split(number: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows that train and of those that never do."""
    import numpy as np

    kept = np.sort(np.random.default_rng([seed, 1]).permutation(number)[: _num_kept(number, share)])
    return np.setdiff1d(np.arange(number), kept), kept


def _read(context: StageContext, asked: dict[str, Any]) -> TrainingRows | None:
    """Return the rows in the stage's scratch, or None where there are none, or others."""
    import numpy as np
    from datasets import Dataset, concatenate_datasets

    folder = context.work / ROWS
    made = read_mapping(folder / MADE)
    if made.get("asked") != asked:
        return None
    parts = [Dataset.from_file(str(packed_file(folder, name))) for name in made["parts"]]
    order = np.load(folder / ORDER, allow_pickle=False)
    kept = np.load(folder / KEPT, allow_pickle=False)
    return TrainingRows(
        concatenate_datasets(parts).select(order), made["steps"], [RowCount(**count) for count in made["counts"]],
        [TokenRow(**row) for row in made["samples"]], parts[0].select(kept) if len(kept) else None,
    )  # fmt: skip


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
    rows = list(shuffled(map(asdict, itertools.chain(*made)), f"{context.config.seed}/mix"))
    num_tokens = sum(len(row["input_ids"]) for row in rows)
    num_rows = round(num_tokens / settings.sequence_length) if settings.train.get("packing") else len(rows)
    steps = steps_for(settings, max(1, num_rows), context.stage)
    counts = [count for reader in readers for count in reader.finish(steps * settings.batch_tokens / num_tokens)]
    check_limits(counts, settings.limits, context.stage)
    return TrainingRows(Dataset.from_list(rows), steps, counts, [TokenRow(**row) for row in rows[:SAMPLES]])
