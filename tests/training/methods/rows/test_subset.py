"""A part of the rows for several passes: how large it is, how often each row comes, and what stays in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.methods import PackedRows
from common.config.resolve import resolve
from common.config.schema import Config
from common.errors import ConfigError
from common.training.methods.rows.subset import SubsetSettings, order
from common.training.rows import shards
from tests.conftest import REPOSITORY
from tests.training.methods.scored import Scored, built, context


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


class Rising(Scored):
    """Texts whose score rises with the number in them, in no order."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        for place in range(400 if role == "cpt" else 40):
            number = place * 149 % 400
            text = f"number {number} words" if role == "cpt" else "plain words"
            yield {"text": text, "source": "book" if role == "cpt" else "old", "scores": {"odd": float(number)}}


@pytest.mark.parametrize("replay", [0.0, 0.25])
def test_the_rows_of_the_lowest_score_come_again_and_again(
    replay: float, tokenizer: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 400 texts are read though the budget is less, and a fifth of the budget is chosen: the lowest ones."""
    monkeypatch.setattr(shards, "WINDOW_ROWS", 2)
    asked = {"share": 0.2, "by": "odd"}
    given = context(tmp_path / "a", config, {"subset": asked}, Rising(), tokens=1280, epochs=None, replay=replay)
    rows = built(given, tokenizer)
    words = [tokenizer.decode(row["input_ids"]) for row in rows.dataset]
    numbers = [int(found) for text in words for found in re.findall(r"number (\d+)", text)]
    assert rows.methods is not None
    facts = rows.methods["subset"]
    assert len(rows.dataset) == 20
    assert facts["rows"] == round(0.2 * 20 * (1 - replay))
    assert facts["passes"] == 5
    assert facts["mean_score"] < 0.2 * facts["mean_of_all"]
    assert max(numbers) < 80
    counted = Counter(numbers)
    assert all(counted[number] >= 5 for number in range(10))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cpt.methods.subset": "{by: x, redraw: true}"}, "by=x chooses one part, and redraw draws another"),
        (
            {"cpt.methods.subset.by": "x", "cpt.mixture.temperature": "2"},
            r"cpt\.methods\.subset: it takes by=x, the lowest rows of all sources together, and mixture asks",
        ),
        (
            {"cpt.methods.subset": "true", "cpt.mixture.shares.book": "0.5"},
            r"cpt\.methods\.subset: it takes a part drawn from all sources together, and mixture asks for shares",
        ),
    ],
)
def test_what_a_part_of_the_rows_excludes(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"domain": "medical", **words}, REPOSITORY)
