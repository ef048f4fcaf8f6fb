"""What the documents name exists: links, files, commands and domains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from common.cli.main import COMMANDS
from common.config.files import names_in
from common.config.resolve import resolve
from common.engine.preflight.settings import check_settings
from common.rewards.verifiers import VERIFIERS
from tests.conftest import REPOSITORY

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), REPOSITORY / "pipelines" / "README.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_just_commands_exist(path: Path) -> None:
    recipes = set(re.findall(r"^(\w[\w-]*)(?: \*words)?:", (REPOSITORY / "Justfile").read_text(encoding="utf-8"), re.M))
    for name in re.findall(r"`just (\w[\w-]*)", path.read_text(encoding="utf-8")):
        assert name in recipes, name
    assert set(COMMANDS) <= recipes


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("```")[1]
    for name in re.findall(r"\b([\w/]+(?:\.py|\.yaml|/))", tree):
        found = list(REPOSITORY.glob(name)) or list((REPOSITORY / "common").glob(name)) or list(REPOSITORY.rglob(name))
        assert found, name


def test_every_domain_has_its_files() -> None:
    for name in names_in(REPOSITORY / "domains", ""):
        for file in ("knowledge.yaml", "data.yaml", "stages.yaml"):
            assert (REPOSITORY / "domains" / name / file).is_file(), (name, file)


def test_the_pipelines_readme_names_every_reward_and_shows_a_pipeline_that_runs(tmp_path: Path) -> None:
    text = (REPOSITORY / "pipelines" / "README.md").read_text(encoding="utf-8")
    table = text.split("| reward | 1 when |")[1].split("\n\n")[0]
    assert set(VERIFIERS) <= set(re.findall(r"`(\w+)`", table))
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    shutil.copytree(REPOSITORY / "domains", tmp_path / "domains")
    shutil.copytree(REPOSITORY / "common" / "evaluation" / "benchmarks", tmp_path / "common/evaluation/benchmarks")
    example = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "pipelines" / "mine.yaml").write_text(example, encoding="utf-8")
    check_settings(resolve({"domain": "medical", "pipeline": "mine"}, tmp_path))
