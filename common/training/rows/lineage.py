"""Rows of replay that are drawn from everything that the chain has read before a stage.

Usage: `name = replay_of_lineage(context, budget=65536, sequence_length=2048)`, for `open_prepared(context, name)`.

The memory of "Revisiting Replay and Gradient Alignment" (arXiv 2508.01908) holds all past data on the disk and draws
from it uniformly. Here that is what earlier stages have read, as tokens in the store: each stage's part is as large as
the tokens that it read, passes counted. A part is all rows that the stage had prepared, also those that it did not get
to or kept for validation; what this stage keeps for its own validation is left out. Its packed rows are shuffled, and
their documents follow each other. Only the documents of one shard are in memory. Nothing is held against the exam
again: each document was, by the stage that read it first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from common.data.accounting import RowCount
from common.errors import DataError
from common.stage import StageContext
from common.store.artifacts import fingerprint_of, write_json
from common.store.lineage import Entry, lineage_of, lineage_today, tokens_read
from common.training.rows.prepared import FACTS, KIND, ROWS, SAMPLES, SCHEMA
from common.training.rows.shards import TokenRow, TokenShards

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

LINEAGE = "lineage"  # value of `replay_from`, and the name of what was made where there is no shared store
MODULE = "common.training.rows.lineage"
NOTHING: Mapping[str, Any] = MappingProxyType({})


def has_lineage(context: StageContext) -> bool:
    """Whether an earlier stage of the chain has read rows."""
    return context.parent in context.inputs and bool(lineage_of(context.parent_artifact))


def replay_of_lineage(
    context: StageContext, kept: Mapping[str, np.ndarray] = NOTHING, *, budget: int, sequence_length: int
) -> str:  # fmt: skip
    """Make the rows of replay where nobody has yet, and return their name.

    `kept` are places of rows that are not drawn, by the name of the part: those that this stage keeps for validation.
    Raises DataError where what was read is gone. A plan has checked that it is known, and has the model's tokens
    (`common.store.lineage.require_drawable`).
    """
    shared = context.shared
    assert shared is not None, "a lineage is in a store"
    entries = lineage_today(context.parent_artifact, shared.store)
    weights = tokens_read(entries)
    kept = {name: places for name, places in kept.items() if name in weights}
    options = {"budget": budget, "sequence_length": sequence_length, "seed": context.config.seed}

    def make(work: Path, out: Path) -> dict[str, Any]:
        import numpy as np

        parts: dict[str, Dataset] = {}
        for name in weights:
            rows = _open(context, name)
            left = np.setdiff1d(np.arange(len(rows)), kept[name]) if name in kept else None
            parts[name] = rows if left is None else rows.select(left)
        _make(parts, weights, entries, work, out, **options)
        return {}

    recipe = {
        "schema": SCHEMA, "kind": KIND, "role": LINEAGE, "read": weights, "code": shared.code(MODULE), **options,
        **({"kept": {name: fingerprint_of(places.tolist()) for name, places in kept.items()}} if kept else {}),
    }  # fmt: skip
    return shared.get(KIND, recipe, make).path.name


def _open(context: StageContext, name: str) -> Dataset:
    from datasets import Dataset

    assert context.shared is not None, "a lineage is in a store"
    found = context.shared.find(name)
    if found is None:
        raise DataError(
            f"{context.stage}.replay_from={LINEAGE} needs {name}, rows that an earlier stage has read, and they are "
            f"gone from the store. Make that stage again with `just rerun`, or set {context.stage}.replay_from=role."
        )
    return Dataset.from_file(str(found.path / ROWS))


def _make(
    parts: Mapping[str, Dataset], weights: Mapping[str, int], entries: list[Entry], work: Path, out: Path,
    *, budget: int, sequence_length: int, seed: int,
) -> None:  # fmt: skip
    """Draw documents up to the budget, from each part as many tokens as its weight says, and pack them."""
    shutil.rmtree(work / "shards", ignore_errors=True)  # of an attempt that was killed: drawing is quick
    shards = TokenShards(work / "shards")
    counts: dict[str, RowCount] = {}
    total = sum(weights.values())
    for place, (name, weight) in enumerate(weights.items()):
        label = _label([entry for entry in entries if name in entry["read"]])
        count = counts.setdefault(label, RowCount(label, "replay"))
        left = round(budget * weight / total)
        for document in _drawn(parts[name], seed, place):
            if left <= 0:
                break
            ids = document[:left]
            shards.add(TokenRow(ids, ids))
            left -= len(ids)
            count.rows_in += 1
            count.rows_out += 1
            count.tokens += len(ids)
            if shards.is_full:
                shards.finish({})
    shards.finish({})
    shards.pack(sequence_length, out / ROWS)
    write_json(
        out / FACTS, {"samples": shards.first(SAMPLES), "counts": [count.as_dict() for count in counts.values()]}
    )


def _drawn(rows: Dataset, seed: int, part: int) -> Iterator[Any]:
    """Yield the documents of packed rows in a shuffled order, again and again, each as its tokens."""
    import numpy as np

    rng = np.random.default_rng([seed, 2, part])
    while len(rows):
        for place in rng.permutation(len(rows)).tolist():
            row = rows[place]
            ends = np.cumsum(row["seq_lengths"])
            yield from np.split(np.asarray(row["input_ids"], np.int32), ends[:-1])


def _label(entries: list[Entry]) -> str:
    """Return who has read a part: every stage that did, as the same rows are kept once."""
    readers = (entry["stage"] + (f" ({entry['domain']})" if entry["domain"] else "") for entry in entries)
    return f"read by {', '.join(dict.fromkeys(readers))}"
