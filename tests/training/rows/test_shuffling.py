"""The order of shuffled rows is bounded in what it holds, and the same wherever rows wait."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.training.rows import shuffling
from common.training.rows.shuffling import shuffled


def test_the_buffer_of_the_shuffle_is_bounded_in_rows_and_in_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "x" * 10, "number": number} for number in range(500)]
    everything = [row["number"] for row in shuffled(rows, "k")]
    assert sorted(everything) == list(range(500))
    monkeypatch.setattr(shuffling, "BUFFER", 50)
    bounded = [row["number"] for row in shuffled(rows, "k")]
    assert max(number - place for place, number in enumerate(bounded)) <= 50
    monkeypatch.setattr(shuffling, "BUFFER", 100_000)
    monkeypatch.setattr(shuffling, "CHARACTERS", 500)
    read: list[int] = []

    def watched() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows):
            read.append(number)
            yield row

    mixed = shuffled(watched(), "k")
    next(mixed)
    assert len(read) == 51
    assert len(list(mixed)) == 499
    assert [row["number"] for row in shuffled(rows, "k")] == bounded  # the same draws, whichever bound it is
    long = [{"text": "x" * 10_000, "number": number} for number in range(3)]
    assert sorted(row["number"] for row in shuffled(long, "k")) == [0, 1, 2]


@pytest.mark.parametrize(("buffer", "characters"), [(100_000, 2**28), (60, 2**28), (100_000, 2000)])
def test_rows_that_wait_on_the_disk_come_in_the_same_order(
    buffer: int, characters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffling, "BUFFER", buffer)
    monkeypatch.setattr(shuffling, "CHARACTERS", characters)
    monkeypatch.setattr(shuffling, "HELD", 300)
    monkeypatch.setattr(shuffling, "FILE", 900)
    rng = random.Random(0)
    rows = [{"text": "x" * rng.randrange(100), "source": ("s", number)} for number in range(500)]
    assert list(shuffled(rows, "k", tmp_path)) == list(shuffled(rows, "k"))
    assert not list(tmp_path.iterdir())


def test_little_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "HELD", 10_000)
    many, few = ([f"{place:010}" * 1000 for place in range(number)] for number in (2000, 200))
    assert _peak(many, tmp_path) - _peak(few, tmp_path) < 1_000_000  # of eighteen million characters


def test_short_rows_do_not_gather_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "HELD", 6000)
    monkeypatch.setattr(shuffling, "BUFFER", 300)
    long, mixed = ["x" * 1000] * 1500, ["x" * (1000, 1)[place % 2] for place in range(1500)]
    assert _peak(mixed, tmp_path) < 1.2 * _peak(long, tmp_path)  # where they did, 1.5 times


def _peak(texts: list[str], folder: Path) -> int:
    """Return the most memory (bytes) that shuffling some texts takes."""
    rows = ({"text": text, "source": ["s"]} for text in texts)
    tracemalloc.start()
    assert sum(1 for _ in shuffled(rows, "k", folder)) == len(texts)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found
