"""What the documents name exists: links, files, commands and domains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.cli import COMMANDS
from common.layers import names_in
from tests.conftest import REPOSITORY

DOCUMENTS = sorted(REPOSITORY.glob("*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (REPOSITORY / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
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
