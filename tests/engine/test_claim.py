"""What a run that is under way claims in its store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.claim import check_folder, claimed
from common.engine.frozen_plan import freeze, thaw
from common.engine.plan import make_plan
from common.engine.run import execute
from common.errors import ConfigError, StoreError
from common.store.artifacts import Store
from common.store.collection import collect
from common.store.runs import run_of
from tests.conftest import QUICK, REPOSITORY
from tests.store.results import commit


class Reached(Exception):
    """Training was about to begin."""


def run(root: Path, **words: str) -> Resolved:
    return resolve({"domain": "medical", "out": str(root), **words}, REPOSITORY)


def test_a_folder_is_not_shared_with_another_pipeline(tmp_path: Path) -> None:
    freeze(run(tmp_path, name="mine"))
    other = run(tmp_path, name="mine", pipeline="sft-only")
    told = r"tiny/mine holds a run of the pipeline demonstration, and this one is of sft-only\. Give it another name"
    with pytest.raises(ConfigError, match=told):
        check_folder(other)
    with pytest.raises(ConfigError, match=told):
        execute(other, Console("quiet"))


def test_two_recipes_at_once_have_two_folders_or_the_second_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path)
    with claimed(make_plan(first), Console("quiet")):
        freeze(first)
        slower = {"sft.train.learning_rate": "1e-4"}
        told = r"A run of tiny/demonstration with other settings is under way \(process \d+ on .*\)\. .* name=<name>"
        with pytest.raises(StoreError, match=told), claimed(make_plan(run(tmp_path, **slower)), Console("quiet")):
            pass
        for beside in (run(tmp_path, name="slow", **slower), run(tmp_path, pipeline="sft-only")):
            with claimed(make_plan(beside), Console("quiet")):
                pass
        for same in (run(tmp_path, **{"run.threads": "1"}), thaw(run_of(first).plan, {}, REPOSITORY)):
            with claimed(make_plan(same), Console("quiet")):  # stages of one plan, on several machines
                pass
    with claimed(make_plan(run(tmp_path, **slower)), Console("quiet")):  # it has ended
        pass


def test_a_run_of_the_old_place_is_moved_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, place = make_plan(run(tmp_path)), tmp_path / "runs" / "medical" / "tiny"
    place.mkdir(parents=True)
    made = commit(Store(tmp_path), "base", "a")
    (place / "base").symlink_to(f"../../../artifacts/{made.path.name}")
    (place / "summary.json").write_text('{"pipeline": "full"}', encoding="utf-8")
    with claimed(plan, Console("quiet")):
        pass
    assert f"The run in {place} is now in {place}/full: each recipe has a folder of its own." in capsys.readouterr().out
    assert (place / "full" / "base" / "manifest.json").is_file()


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
    assert kept == {
        "base",
        "cpt",
        "sft",
        "sft-only",
        "tokens",
        *(f"exam-{name}" for name in ("base", "sft-only", "cpt", "sft")),
    }
