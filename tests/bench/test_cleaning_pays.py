"""The bench of cleaning: each kind of dirt is what its block is for, and differences are stated in words."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.blocks import Drop
from tests.bench import cleaning_pays, dirt, paired
from tests.data.blocks.driving import PROSE, applied, one, reason, rows_of

TEXT = PROSE["en"].replace("They were", 'They weren\'t "right", they were')
RNG = random.Random(0)


def test_dirt_has_its_shares_and_is_the_same_for_a_seed() -> None:
    clean = [f"{TEXT} It is the text number {number}." for number in range(100)]
    foreign = [f"{PROSE['sw']} {number}" for number in range(50)]
    found = dirt.soiled(clean, foreign, 1)
    assert found == dirt.soiled(clean, foreign, 1) != dirt.soiled(clean, foreign, 2)
    assert len(found) == 100 + 40 + 40 + 50 + 40 + 100  # of other languages there are no more
    counts = Counter({text: found.count(text) for text in clean})
    assert {20, 21} & set(counts.values())
    assert sum(text in foreign for text in found) == 50
    assert sum("\u00e2\u20ac" in text for text in found) == 30


@pytest.mark.parametrize(
    ("make", "block", "expected"),
    [
        (dirt.mojibake, "unicode", TEXT.translate(dirt._TYPOGRAPHIC)),
        (dirt.with_lines, "boilerplate", TEXT),
        (dirt.repeated, "gopher_repetition", None),
    ],
)  # fmt: skip
def test_dirt_in_a_text_is_what_its_block_takes_out(
    make: Callable[[str, random.Random], str], block: str, expected: str | None, tmp_path: Path
) -> None:
    assert make(TEXT, RNG) != TEXT
    found = one(block, make(TEXT, RNG), tmp_path)
    assert isinstance(found, Drop) if expected is None else found["text"] == expected


def test_personal_data_are_masked(tmp_path: Path) -> None:
    for _ in range(20):
        text = one("pii", dirt.with_person("", RNG), tmp_path)["text"]
        assert not set("@0123456789") & set(text), text


def test_copies_are_what_their_blocks_drop(tmp_path: Path) -> None:
    copies = rows_of([TEXT, dirt.nearly(TEXT, RNG)])
    assert [reason(found) for found in applied("minhash", copies, tmp_path)] == [None, "near duplicate"]
    assert [reason(found) for found in applied("exact", rows_of([TEXT, TEXT]), tmp_path)] == [None, "duplicate"]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([-0.2, -0.21, -0.19], "pays"), ([0.2, 0.21, 0.19], "costs"), ([-0.2, 0.1, 0.0], "no difference shown")],
)
def test_a_difference_in_words(differences: list[float], expected: str) -> None:
    assert cleaning_pays.verdict(*paired.interval(differences)) == expected


def test_one_seed_shows_nothing() -> None:
    assert cleaning_pays.verdict(*paired.interval([-1.0])) == "no difference shown"


def test_the_table_pairs_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    def run(bits: float) -> dict[str, float]:
        return {"bits": bits, "rows": 10, "characters": 1000, "seconds": 1}

    cleaning_pays.show({"dirty": [run(3.0), run(2.0)], "exact": [run(2.9), run(1.9)], "pii": [run(3.1), run(1.9)]})
    lines = capsys.readouterr().out.splitlines()
    assert "-0.1000 \u00b1 0.0000  pays" in lines[2]
    assert "no difference shown" in lines[3]


def test_an_unknown_arm_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleaning_pays.main(arms="exat") == 1
    assert "arms=exat: there is no such arm. Known: dirty" in capsys.readouterr().err


@pytest.mark.long
def test_arms_train_on_embedded_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleaning_pays.main(seeds="0", arms="all-blocks", tokens="8192") == 0
    shown = capsys.readouterr().out
    assert "seed 0, dirty" in shown
    assert "seed 0, all-blocks" in shown
