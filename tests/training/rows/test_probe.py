"""Batches of general text: rows of about one length together, padded where nothing is learned."""

from __future__ import annotations

import pytest

from common.training.rows.probe import ROWS, batches_of, cut
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


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(100, [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2]]), (8, [[1, 2, 3, 4], [5, 6, 7, 8]]), (5, [[1, 2, 3, 4], [5, 6, 7, 8]])],
)
def test_a_text_is_cut_to_the_length_and_the_rest_is_read_too(tokens: int, expected: list[list[int]]) -> None:
    """The last part of the first text is one token, of which nothing is learned; so is a masked row."""
    rows = [TokenRow(list(range(1, 10)), list(range(1, 10))), TokenRow([5, 6], [-100] * 2), TokenRow([1, 2], [1, 2])]
    assert [row.input_ids for row in cut(rows, 4, tokens)] == expected
    assert all(row.input_ids == row.labels for row in cut(rows, 4, tokens))
