"""Packed rows of a few documents, as a stage's rows are made of shards (`common.training.rows.prepared`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset

from common.training.rows.shards import TokenRow, TokenShards


def pack(rows: Iterable[TokenRow], sequence_length: int, folder: Path, name: str) -> Dataset:
    """Write token rows as shards below `folder`, and pack these into rows of at most `sequence_length` tokens."""
    tokens = folder / f"{name}.tokens"
    shutil.rmtree(tokens, ignore_errors=True)
    shards = TokenShards(tokens)
    for row in rows:
        shards.add(row)
        if shards.is_full:
            shards.finish({})
    shards.finish({})
    shards.pack(sequence_length, folder / f"{name}.packed.arrow")
    return Dataset.from_file(str(folder / f"{name}.packed.arrow"))
