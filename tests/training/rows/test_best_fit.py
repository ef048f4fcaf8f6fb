"""Best fit over lengths alone gives the rows of TRL, which holds the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.training.rows import shards
from common.training.rows.best_fit import best_fit, split
from common.training.rows.packing import IGNORED
from common.training.rows.shards import TokenRow, TokenShards
from tests.training.rows.packed import pack


def documents(number: int, mean: float, seed: int) -> list[TokenRow]:
    """Return documents of random lengths, some of them masked in part, as a conversation is."""
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.exponential(mean, number).astype(int).tolist():
        ids = rng.integers(0, 30_000, length).tolist()
        found.append(TokenRow(ids, [IGNORED if n % 3 else token for n, token in enumerate(ids)] if length % 2 else ids))
    return found


@pytest.mark.parametrize(("most", "mean"), [(64, 20), (64, 200), (1, 3), (100, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_trl(
    most: int, mean: float, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from trl import pack_dataset

    monkeypatch.setattr(shards, "SHARD", 250)
    monkeypatch.setattr(shards, "WINDOW", 130)
    monkeypatch.setattr(shards, "TOKENS", 700)
    rows = documents(300, mean, seed)
    ours = pack(rows, most, tmp_path, "a")
    assert len(list((tmp_path / "a.tokens").glob("*.tokens"))) > 2
    theirs = pack_dataset(
        Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows]),
        most,
        "bfd_split",
        {"batch_size": 130},
    )
    for column in ("input_ids", "labels", "seq_lengths"):
        assert ours[column][:] == theirs[column][:]


def test_parts_are_all_of_a_document_in_order() -> None:
    parts = split(np.array([0, 5, 8]), np.array([5, 3, 9]), 4)
    assert parts.starts.tolist() == [0, 4, 5, 8, 12, 16]
    assert parts.lengths.tolist() == [4, 1, 3, 4, 4, 1]


def test_a_part_goes_where_it_leaves_the_least_room() -> None:
    order, sizes = best_fit(np.array([6, 7, 3, 2, 10]), 10)
    assert order.tolist() == [4, 1, 2, 0, 3]
    assert sizes.tolist() == [1, 2, 2]


def test_a_shard_that_lost_its_tokens_and_those_behind_it_do_not_count(tmp_path: Path) -> None:
    written = TokenShards(tmp_path)
    for number in range(3):
        written.add(TokenRow([number] * 5, [number] * 5))
        written.finish({"rows": number + 1})
    assert TokenShards(tmp_path).state == {"rows": 3}
    with (tmp_path / "00001.tokens").open("r+b") as stream:
        stream.truncate(8)
    assert TokenShards(tmp_path).state == {"rows": 1}
    (tmp_path / "00000.tokens").unlink()
    assert TokenShards(tmp_path).state is None
