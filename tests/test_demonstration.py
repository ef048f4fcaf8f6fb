"""The demonstration as shipped, one seed from nothing: every floor of its table. `just bench` runs three seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.console import Console
from common.layers import resolve
from common.run import execute
from tests.bench.demonstration import free_answers, read
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("demonstration")
    execute(resolve({"domain": "medical", "out": str(root)}, REPOSITORY), Console("quiet"))
    return root


def test_the_published_model_answers_in_full_and_stops(run: Path) -> None:
    exact, stopped = free_answers(run, "merge")
    assert exact >= 0.85
    assert stopped == 1.0


def test_the_table_shows_what_each_stage_is_for(run: Path) -> None:
    scores = read(run)
    assert scores["base domain"] <= 0.35
    assert scores["sft-only domain"] <= 0.40
    assert scores["sft domain"] >= 0.90
    assert scores["sft general"] >= scores["base general"] - 0.05
    assert scores["preference"] >= 0.90
    assert scores["dpo domain"] >= scores["sft domain"] - 0.05
    assert scores["merge general"] >= scores["dpo general"]
    assert scores["merge domain"] >= scores["dpo domain"] - 0.05
