"""Rows are labelled with topics that are found or given, the same for any number of tasks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import BlockContext, Row, checked
from common.data.blocks.topic import BLOCK, TopicSettings
from common.errors import ConfigError
from tests.data.blocks.passes import through

WORDS = {
    "law": ["court", "judge", "statute", "appeal", "verdict", "plaintiff", "tribunal", "evidence", "clause", "treaty"],
    "food": ["bread", "butter", "oven", "flour", "recipe", "salt", "soup", "onion", "kitchen", "pepper"],
    "医": list("医院病人药物治疗手术检查健康护士"),
}
COMMON = ["the", "of", "and", "is", "to", "in", "a", "that", "was", "for"]


def rows(count: int = 240) -> list[Row]:
    """Return texts of three topics, with words that all of them share."""
    rng = random.Random(5)
    found = []
    for number in range(count):
        truth = list(WORDS)[number % 3]
        words = rng.choices(WORDS[truth], k=12) + rng.choices(COMMON, k=12)
        rng.shuffle(words)
        found.append({"source": "web", "text": " ".join(words), "truth": truth})
    return found


def labelled(folder: Path, tasks: int = 1, seed: int = 0, **settings: Any) -> list[Row]:
    folder.mkdir()
    context = BlockContext(folder=folder, role="cpt", seed=seed)
    return through(BLOCK, TopicSettings(**settings), context, rows(), tasks)[0]


def test_clusters_are_the_topics_that_are_there(tmp_path: Path) -> None:
    found = labelled(tmp_path / "a", clusters=3)
    pairs = {(row["truth"], row["topic"]) for row in found}
    assert len(pairs) == 3
    assert all(set(topic.split("-")) <= set(WORDS[truth]) for truth, topic in pairs)  # named by their words


def test_tasks_change_nothing_and_the_seed_is_used(tmp_path: Path) -> None:
    first = labelled(tmp_path / "a", clusters=4, sample=100)
    assert first == labelled(tmp_path / "b", tasks=5, clusters=4, sample=100)
    assert first != labelled(tmp_path / "c", seed=3, clusters=4, sample=100)


def test_given_topics_keep_and_drop(tmp_path: Path) -> None:
    topics = {"law": ["court judge appeal verdict"], "food": ["bread butter", "soup onion salt"]}
    found = labelled(tmp_path / "a", topics=topics, drop=["food"], least=0.1)
    assert {(row["truth"], row["topic"]) for row in found} == {("law", "law"), ("医", "other")}
    assert {row["truth"] for row in labelled(tmp_path / "b", topics=topics, keep=["law"])} == {"law"}


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names politics, which was not found in the rows\. Topics are "):
        labelled(tmp_path / "a", clusters=3, keep=["politics"])
    for given, expected in (
        ({}, "set either clusters"),
        ({"clusters": 3, "topics": {"a": ["x"], "b": ["y"]}}, "set either clusters"),
        ({"topics": {"a": ["x"]}}, "two or more"),
        ({"topics": {"a": ["x"], "b": ["y"]}, "keep": ["c"]}, "names c, which is not among topics"),
    ):
        with pytest.raises(ValueError, match=expected):
            checked([{"topic": given}])
