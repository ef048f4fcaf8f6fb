"""Every kind of stage is one declared object, and a new one is one file."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import common.stages
from common.config.kinds import STAGES, Kind, kinds
from common.config.resolve import resolve
from common.console import Console
from common.data.corpus import CORPUS_ROLES
from common.engine.plan import make_plan
from common.engine.run import execute
from common.errors import ConfigError
from tests.conftest import QUICK, REPOSITORY
from tests.imports import imported

pytestmark = pytest.mark.slow

STAGE = '''
"""Weights a little nearer to zero.

Usage: named by a pipeline as `shrunk: {kind: shrink, from: base}`.
"""

from __future__ import annotations

from pydantic import Field

from common.config.base import StageSettings
from common.config.kinds import Kind
from common.errors import ConfigError
from common.models import checkpoint
from common.stage import StageContext, StageReport
from common.training.fit import TrainResult, check_and_save


class ShrinkSettings(StageSettings):
    factor: float = Field(0.99, ge=0, le=1, description="what every weight is multiplied with")


def run(context: StageContext) -> StageReport:
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    for parameter in model.parameters():
        parameter.data *= context.settings.factor
    trained = TrainResult(model)
    measured = check_and_save(context, trained, tokenizer, probe=[1, 2, 3])
    return StageReport(metrics={"factor": context.settings.factor, **measured})


def check(node, settings, resolved):
    if not settings.factor:
        raise ConfigError(f"{node.name}.factor is 0, which leaves nothing of the weights.")


KIND = Kind(name="shrink", settings=ShrinkSettings, run=run, check=check, phrase="weights that were shrunk")
'''
PIPELINE = """
description: A base, and the same one shrunk.
stages:
  base: {kind: base}
  shrunk: {kind: shrink, from: base}
exam: [base, shrunk]
publish: shrunk
"""
WORDS = {key: value for key, value in QUICK.items() if key.split(".")[0] in ("embedded", "evaluate", "run")} | {
    "domain": "medical",
    "pipeline": "shrunk",
    "base.tokens": "4096",
    "evaluate.limit": "8",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A clone with one more stage file and a pipeline that names it; nothing else is edited."""
    for folder in ("common", "domains", "pipelines"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "common" / "stages" / "shrink.py").write_text(STAGE.lstrip(), encoding="utf-8")
    (tmp_path / "pipelines" / "shrunk.yaml").write_text(PIPELINE.lstrip(), encoding="utf-8")
    monkeypatch.setattr(common.stages, "__path__", [*common.stages.__path__, str(tmp_path / "common" / "stages")])
    yield tmp_path
    sys.modules.pop(f"{STAGES}.shrink", None)


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_it_is_declared_in_its_own_module(kind: Kind) -> None:
    assert importlib.import_module(f"{STAGES}.{kind.name}").KIND is kind
    assert set(kind.roles) <= set(CORPUS_ROLES)
    assert kind.phrase or kind.makes != "language model"
    assert kind.defaults == {} or kind.settings.trainer


def test_importing_all_of_them_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "transformers", "trl", "datasets")
    assert imported("from common.config.kinds import kinds; kinds()", *heavy) == []


def test_a_kind_that_does_not_exist_is_refused_by_name(repository: Path) -> None:
    path = repository / "pipelines" / "shrunk.yaml"
    path.write_text(PIPELINE.replace("kind: shrink", "kind: shrunken"), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"stages\.shrunk\.kind: expected base, .*, sft, tokenizer or shrink; got 'shrunken'\."
    ):
        resolve(WORDS, repository)


def test_a_new_file_is_planned_run_and_shown_on_the_card(repository: Path) -> None:
    words = WORDS | {"out": str(repository / "store")}
    with pytest.raises(ConfigError, match=r"shrunk\.factor is 0, which leaves nothing of the weights\."):
        make_plan(resolve(words | {"shrunk.factor": "0"}, repository))
    with pytest.raises(ConfigError, match=r"shrunk\.faktor.*Did you mean 'factor'\?"):
        resolve(words | {"shrunk.faktor": "0.5"}, repository)

    resolved = resolve(words | {"shrunk.factor": "0.5"}, repository)
    states = {step.node.name: step.state for step in make_plan(resolved).steps}
    assert (states["base"], states["shrunk"]) == ("missing", "waits")

    artifacts = execute(resolved, Console("quiet")).artifacts
    made = artifacts["shrunk"].manifest
    assert made["kind"] == "shrink"
    assert made["metrics"]["factor"] == 0.5
    assert made["recipe"]["settings"] == {"factor": 0.5}
    assert "common/stages/shrink.py" in made["code"]["files"]
    card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert "weights that were shrunk (`shrunk`)" in card
    summary = json.loads((artifacts["card"].path / "summary.json").read_text(encoding="utf-8"))
    assert [point["name"] for point in summary["checkpoints"]] == ["base", "shrunk"]
    assert {step.state for step in make_plan(resolved).steps} == {"cached"}
