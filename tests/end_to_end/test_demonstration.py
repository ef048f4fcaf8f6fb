"""One demonstration as shipped, one seed from nothing: every floor of its table. `just bench` runs all six, thrice.

The other domains take as long each; their floors are the same, math has a lower one for its written answers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute
from tests.bench.demonstration import floors, read
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("demonstration")
    return root


@pytest.mark.parametrize("domain", ["medical"])
def test_the_table_shows_what_each_stage_is_for(store: Path, domain: str) -> None:
    execute(resolve({"domain": domain, "out": str(store)}, REPOSITORY), Console("quiet"))
    scores = read(store, domain)
    assert [f"{name}: {value:.3f}" for name, held, value in floors(scores) if not held] == []
    assert scores["merge general"] >= scores["base general"] - 0.05
    assert scores["merge exact"] >= (0.75 if scores["chance"] else 0.60)
