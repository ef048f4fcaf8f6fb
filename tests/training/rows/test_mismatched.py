"""The reference point of KTO is estimated from answers to other prompts."""

from __future__ import annotations

import random

import pytest

from common.training.rows.mismatched import mismatched


def rows_of(kind: str, number: int) -> list[str]:
    """Return the prompts of rows: pairs side by side, single answers, both, or several answers to some prompts."""
    rng, made = random.Random(number), []
    for place in range(number):
        size = {"pairs": 2, "singles": 1, "both": rng.choice((1, 2)), "many": rng.choice((1, 2, 2, 6))}[kind]
        made += [f"{place}"] * size
    return made


@pytest.mark.parametrize("batch_size", [2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["pairs", "singles", "both", "many"])
def test_every_answer_is_taken_once_and_by_another_prompt(kind: str, batch_size: int) -> None:
    for number in (2, 3, 7, 32):
        prompts = rows_of(kind, number)
        sources = mismatched(prompts, batch_size)
        assert sorted(sources) == list(range(len(prompts)))
        most = max(map(prompts.count, prompts))
        wrong = sum(prompts[row] == prompts[source] for row, source in enumerate(sources))
        assert wrong == max(0, 2 * most - len(prompts))  # where one prompt has most of the rows


def test_answers_come_from_the_same_micro_batch_where_it_has_enough_others() -> None:
    prompts = rows_of("pairs", 16)
    for batch_size, window in ((2, 4), (4, 4), (8, 8)):
        assert all(row // window == source // window for row, source in enumerate(mismatched(prompts, batch_size)))
    # A pair takes its wanted and its unwanted answer from another pair.
    assert all((row - source) % 2 == 0 for row, source in enumerate(mismatched(prompts, 4)))


def test_one_prompt_alone_keeps_its_answers() -> None:
    assert sorted(mismatched(["a"] * 5, 2)) == list(range(5))
    assert mismatched([], 2) == []
