"""What is read in each tenth of the steps: counted from the rows themselves, for staged mixtures and curricula."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import CptSettings
from common.models.tokenizer import train_tokenizer
from common.report.chain import Chain
from common.report.tables import course_tables
from common.training.rows import shards
from common.training.rows.course import course, means_of_rows
from tests.conftest import REPOSITORY
from tests.training.methods.scored import Scored, built, context

CAREBOT = [{"until": 0.8, "replay": 0.95}, {"until": 1, "replay": 0.5}]


class Ranked(Scored):
    """Two sources of texts and replay; own texts have a perplexity of their own, in no order."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        if role == "replay":
            yield from ({"text": "plain words", "source": "old"} for _ in range(50))
            return
        for place in range(600):
            number = place * 149 % 600
            source = "web" if place % 3 else "book"
            yield {"text": f"{source} number {number}", "source": source, "scores": {"perplexity": float(number)}}

    def conversations(self, role: str) -> dict[str, bool]:
        return {"book": False, "web": False} if role == "cpt" else {"old": False}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["web book number plain words"] * 20, 300, 256)


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


def first_words(rows: Any, tokenizer: Any) -> list[str]:
    """Return the source of each packed row, by the word that its texts begin with."""
    return [tokenizer.decode(row["input_ids"]).split()[0] for row in rows]


def test_shares_by_hand() -> None:
    order = np.array([0, 9, 9, 9, 1, 9, 4, 4])  # two rows a step; 0 to 3 are of a, 4 to 8 of b, then replay
    found = course(order, {"a": 4, "b": 5}, None, steps=4)
    assert [(line["first"], line["last"]) for line in found] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [line["shares"] for line in found] == [
        {"a": 0.5, "b": 0.0}, {"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.0}, {"a": 0.0, "b": 1.0}
    ]  # fmt: skip
    assert [line["replay"] for line in found] == [0.5, 1.0, 0.5, 0.0]
    assert sum(line["last"] - line["first"] + 1 for line in course(np.zeros(46, int), {"a": 1}, None, steps=23)) == 23


def test_means_of_rows_weigh_scores_by_tokens_and_lengths_by_documents() -> None:
    rows = Dataset.from_dict({"score/x": [[1.0, 4.0], [2.0], None], "seq_lengths": [[3, 1], [7], [5]]})
    assert means_of_rows(rows, 2, "x").tolist() == [1.75, 2.0]
    assert means_of_rows(rows, 2, "length").tolist() == [2.0, 7.0]
    assert means_of_rows(rows.select([1, 0]), 2, "x").tolist() == [2.0, 1.75]


def test_carebots_mixture_does_what_it_says(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    settings = {"tokens": 64_000, "epochs": None, "mixture": {"phases": CAREBOT}}
    rows = built(context(tmp_path / "a", config, {}, Ranked(), **settings), tokenizer)
    words = first_words(rows.dataset, tokenizer)
    assert len(words) == 1000
    assert sum(word == "plain" for word in words[:800]) == 760  # general to domain 19:1
    assert sum(word == "plain" for word in words[800:]) == 100  # and then 1:1
    assert [line["last"] for line in rows.course] == list(range(50, 501, 50))
    for line in rows.course:
        part = words[2 * (line["first"] - 1) : 2 * line["last"]]
        assert line["replay"] == pytest.approx(part.count("plain") / len(part), abs=1e-4)
        assert line["shares"] == pytest.approx(
            {name: part.count(name) / len(part) for name in ("book", "web")}, abs=1e-4
        )


@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_the_order_by_perplexity_does_what_it_says(
    direction: str, tokenizer: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SynE's curriculum: from the lowest perplexity to the highest; the shares of sources hold at every point."""
    monkeypatch.setattr(shards, "WINDOW_ROWS", 4)
    curriculum = {"by": "perplexity", "direction": direction}
    given = context(tmp_path / "a", config, {}, Ranked(), mixture={"shares": {"web": 0.5}, "curriculum": curriculum})
    rows = built(given, tokenizer)
    means = [line["mean"] for line in rows.course]
    assert len(means) == 10
    first = means[:5] if direction == "ascending" else means[4::-1]  # within the first pass over the shorter source
    assert all(one < two for one, two in itertools.pairwise(first))
    assert all(line["shares"]["web"] == pytest.approx(0.5, abs=0.11) for line in rows.course)
    metrics = {"mixture_course": rows.course}
    settings = CptSettings.model_validate(given.settings.model_dump()).model_dump(mode="json")
    (table,) = course_tables(Chain((), "cpt", {"cpt": {"kind": "cpt", "metrics": metrics, "settings": settings}}))
    assert "Mean `perplexity`" in table
    assert "`book`" in table
    assert table.count("\n") == 11
    assert course_tables(Chain((), "cpt", {"cpt": {"kind": "cpt", "metrics": {}}})) == []
