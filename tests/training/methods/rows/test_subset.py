"""A part of the rows for several passes: how large it is, how often each row comes, and what stays in its place."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.methods import PackedRows
from common.training.methods.rows.subset import SubsetSettings, order


def packed(own: int, places: int, replay: int) -> PackedRows:
    """Return an order of own rows and some of replay behind them, mixed, where each own row comes about once."""
    rng = np.random.default_rng(1)
    drawn = np.concatenate([np.resize(rng.permutation(own), places), own + np.arange(replay)])
    return PackedRows(rng.permutation(drawn), np.arange(own), None, 4, seed=0)


@pytest.mark.parametrize("redraw", [False, True])
def test_a_fifth_of_the_rows_comes_five_times(redraw: bool) -> None:
    given = packed(own=50, places=100, replay=20)
    found, facts = order(given, SubsetSettings(share=0.2, redraw=redraw))
    own = found[found < 50]
    assert len(found) == 120
    assert facts["rows"] == 20
    assert facts["passes"] == 5
    for number in range(5):  # within a pass none comes twice
        assert len(set(own[number * 20 : (number + 1) * 20].tolist())) == 20
    parts = [set(own[number * 20 : (number + 1) * 20].tolist()) for number in range(5)]
    assert (len(set.union(*parts)) == 20) is not redraw
    assert facts["seen"] == len(set(own.tolist()))


def test_replay_keeps_its_rows_and_its_places() -> None:
    given = packed(own=50, places=100, replay=20)
    found, _ = order(given, SubsetSettings())
    assert np.array_equal(found[given.order >= 50], given.order[given.order >= 50])
    assert np.array_equal(found >= 50, given.order >= 50)


def test_a_part_is_never_more_than_there_is_nor_nothing() -> None:
    assert order(packed(own=5, places=100, replay=0), SubsetSettings(share=1.0))[1]["rows"] == 5
    assert order(packed(own=5, places=5, replay=0), SubsetSettings(share=0.01))[1]["rows"] == 1


def test_only_rows_that_may_train_are_taken() -> None:
    given = packed(own=50, places=100, replay=0)
    some = np.arange(0, 50, 2)
    found, _ = order(PackedRows(some[given.order % 25], some, None, 4, 0), SubsetSettings(redraw=True))
    assert set(found.tolist()) <= set(some.tolist())
