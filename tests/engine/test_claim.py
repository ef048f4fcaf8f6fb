"""What a run that is under way claims in its store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute
from common.store.artifacts import Store
from common.store.collection import collect
from tests.conftest import QUICK, REPOSITORY


class Reached(Exception):
    """Training was about to begin."""


@pytest.mark.slow
def test_nothing_that_a_run_under_way_reads_is_removed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(copy)
    shutil.rmtree(store.runs)  # no link is left
    kept: set[str] = set()

    def train(self: Any, *args: Any, **kwargs: Any) -> None:
        collect(store, dry=False)
        kept.update(path.name.rpartition("-")[0] for path in store.artifacts.glob("*-*"))
        raise Reached

    monkeypatch.setattr(transformers.Trainer, "train", train)
    words = {**QUICK, "domain": "medical", "out": str(copy), "dpo.train.beta": "0.3"}
    with pytest.raises(Reached):
        execute(resolve(words, REPOSITORY), Console("quiet"))
    assert kept == {"base", "cpt", "sft", "sft-only", *(f"exam-{name}" for name in ("base", "sft-only", "cpt", "sft"))}
