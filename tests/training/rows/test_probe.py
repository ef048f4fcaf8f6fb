"""Batches of general text: rows of about one length together, padded where nothing is learned."""

from __future__ import annotations

from common.training.rows.probe import ROWS, batches_of
from common.training.rows.shards import TokenRow


def test_rows_are_padded_on_the_right_and_none_is_lost() -> None:
    rows = [TokenRow(list(range(1, length + 1)), list(range(1, length + 1))) for length in (5, 2, 9, 3, 7, 4, 8, 6, 1)]
    batches = batches_of(rows, pad_id=0)
    assert [len(ids) for ids, _ in batches] == [ROWS, 1]
    assert sum(int((labels != -100).sum()) for _, labels in batches) == sum(range(1, 10))
    ids, labels = batches[0]
    assert ids.shape == labels.shape == (ROWS, 8)
    assert ids[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert labels[1].tolist() == [1, 2, *[-100] * 6]
