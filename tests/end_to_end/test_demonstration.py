"""One demonstration from nothing, one seed: every floor of its table. `just bench` runs all six as shipped, thrice.

The other domains take as long each; their floors are the same, math has a lower one for its written answers. Where the
CPU has no bfloat16 a run as shipped would take a third of all tests, so that a shorter one of half the layers stands
for it there: it learns less, and shows the same of each stage.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.precision import native
from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute
from tests.bench.demonstration import floors, read
from tests.conftest import REPOSITORY, long

pytestmark = pytest.mark.slow

SHORTER = {
    "model.architecture.num_hidden_layers": "2", "base.tokens": "300000", "sft-only.tokens": "40000",
    "cpt.tokens": "320000", "sft.tokens": "100000", "dpo.epochs": "0.4",
}  # fmt: skip
LEARNED = ("sft >= 0.85", "preference >= 0.90")  # floors that need all of a run's tokens
IS_FAST = native({}, {})[0] == "bfloat16"


def scores_of(store: Path, domain: str, words: dict[str, str]) -> dict[str, float]:
    execute(resolve({"domain": domain, "out": str(store), **words}, REPOSITORY), Console("quiet"))
    return read(store, domain)


@pytest.mark.parametrize("domain", ["medical" if IS_FAST else long("medical")])
def test_the_table_shows_what_each_stage_is_for(tmp_path: Path, domain: str) -> None:
    scores = scores_of(tmp_path, domain, {})
    assert [f"{name}: {value:.3f}" for name, held, value in floors(scores) if not held] == []
    assert scores["merge general"] >= scores["base general"] - 0.05
    assert scores["merge exact"] >= (0.75 if scores["chance"] else 0.60)


@pytest.mark.parametrize("domain", [long("medical") if IS_FAST else "medical"])
def test_a_shorter_run_shows_it_too(tmp_path: Path, domain: str) -> None:
    scores = scores_of(tmp_path, domain, SHORTER)
    missed = [f"{name}: {value:.3f}" for name, held, value in floors(scores) if not held and name not in LEARNED]
    assert missed == []
    assert scores["sft domain"] >= scores["base domain"] + 0.30
    assert scores["preference"] >= 0.80
