"""What a teacher has kept of rows, on the disk and in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from common.training.methods.top_k import kept_in
from common.training.rows.packing import RowCollator
from common.training.rows.taught import PLACE, TopK, TopKStore, learned_in, with_places


def rows_of(number: int, length: int = 6) -> Dataset:
    """Rows of two documents, the second of which is learned from its third token on."""
    ids = [[10 * row + token for token in range(length)] for row in range(number)]
    labels = [[*row[:3], -100, *row[4:]] for row in ids]
    return Dataset.from_dict({"input_ids": ids, "labels": labels, "seq_lengths": [[2, length - 2]] * number})


def test_what_is_kept_reaches_the_positions_that_it_is_of(tmp_path: Path) -> None:
    rows = with_places(rows_of(7)).select([5, 1, 5, 6])  # in any order, and twice
    collator = RowCollator(0, 8)
    plain = collator([rows[0]])
    store = TopKStore(tmp_path / "kept", np.array([1, 5, 6]), 8, 2)
    rng = np.random.default_rng(0)
    learned = learned_in(plain["labels"].numpy())[0]
    assert learned.tolist() == [True, False, False, True, True, False, False, False]
    for number in range(store.shards):
        assert not store.is_done(number)
        parts = [
            TopK(np.full((3, 2), place), rng.random((3, 2), np.float32), np.arange(3, dtype=np.float32))
            for place in store.places_of(number)
        ]
        store.write(number, parts)
        assert store.is_done(number)
    assert not TopKStore(store.folder, store.places, 8, 3).is_done(0)  # of another k
    collator.kept = store
    columns = collator(list(rows))
    kept = kept_in(columns)
    assert kept.ids_BTK.shape == kept.log_probs_BTK.shape == (4, 8, 2)
    for number, place in enumerate([5, 1, 5, 6]):
        assert kept.ids_BTK[number][learned].unique().tolist() == [place]
        assert kept.rest_BT[number][learned].tolist() == [0, 1, 2]
        assert not kept.log_probs_BTK[number][~torch.from_numpy(learned)].any()
    assert PLACE not in columns
    assert collator([rows_of(1)[0]]).keys() == plain.keys()  # rows that never train


def test_shards_of_few_rows_are_small_and_the_last_one_is_filled_up(tmp_path: Path) -> None:
    store = TopKStore(tmp_path, np.arange(100, 233), 128, 4)
    assert (store.rows_each, store.shards) == (5, 27)
    assert store.places_of(26).tolist() == [230, 231, 232, 100, 101]
    assert TopKStore(tmp_path, np.arange(10**6), 2048, 4).rows_each == 128


def test_a_shard_that_was_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    store = TopKStore(tmp_path, np.arange(1), 8, 1)
    store.write(0, [TopK(np.zeros((2, 1)), np.zeros((2, 1), np.float32), np.zeros(2, np.float32))])
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-4])
    assert not store.is_done(0)
