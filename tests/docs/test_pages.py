"""What the documents say in tables and lists is what the files say: the tree, profiles, pipelines, rewards, domains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from common.config.folders import names_in
from common.config.kinds import kinds
from common.config.resolve import resolve
from common.config.schema import Needs
from common.config.trl_options import OLDER, options_of
from common.config.yaml import read_yaml
from common.cost.hardware import TABLE
from common.errors import ConfigError
from common.rewards.verifiers import VERIFIERS
from tests.bench.tables import SENTENCES
from tests.conftest import REPOSITORY
from tests.docs.checks import recipes

DOCS = REPOSITORY / "docs"
PIPELINES = REPOSITORY / "pipelines"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def rows_of(text: str, header: str) -> dict[str, list[str]]:
    """Return the rows of the table with that first cell: the code of each row's first cell, and its other cells."""
    table = text.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_the_tree_is_the_tree() -> None:
    tree = read(DOCS / "README.md").split("## The tree")[1].split("```")[1]
    rooms = {path.name for path in (REPOSITORY / "common").iterdir() if (path / "__init__.py").is_file()}
    assert rooms == set(re.findall(r"^  (\w+)/", tree, re.M))
    for name in re.findall(r"(?<![\w`])([\w]+(?:\.py|\.yaml|/))", tree):
        assert any(REPOSITORY.glob(f"[!.]*/**/{name}")) or (REPOSITORY / name).exists(), name
    for folder in ("common", "domains", "pipelines", "docs", "tests"):
        assert f"\n{folder}/" in tree


def test_the_index_names_every_page() -> None:
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", read(DOCS / "README.md")))


def test_every_command_is_in_the_quick_start() -> None:
    hidden = {"default", "setup", "check", "bench", "hooks"}
    assert set(recipes()) - hidden <= set(re.findall(r"`just ([\w-]+)", read(DOCS / "quick-start.md")))


def test_every_domain_has_its_files_and_a_row() -> None:
    linked = set(re.findall(r"\]\(domains/(\w+)/README\.md\)", read(REPOSITORY / "README.md")))
    assert linked == set(names_in(REPOSITORY / "domains", ""))
    for name in linked:
        for file in ("README.md", "knowledge.yaml", "data.yaml", "stages.yaml"):
            assert (REPOSITORY / "domains" / name / file).is_file(), (name, file)


def test_the_table_of_profiles_says_what_each_profile_needs() -> None:
    rows = rows_of(read(DOCS / "gpus-and-clusters.md"), "`profile=`")
    assert set(rows) == set(names_in(PIPELINES / "profiles"))
    for name, (model, *cells, _, licence) in rows.items():
        values = read_yaml(PIPELINES / "profiles" / f"{name}.yaml")
        needs = Needs.model_validate(values.get("needs", {}))
        gpus = f"{needs.machines} x {needs.gpus}" if needs.machines > 1 else f"{needs.gpus}"
        memory = [needs.gpu_memory_gb, needs.host_memory_gb, needs.disk_gb]
        assert cells == [gpus if needs.gpus else "-", *(f"{size:g} GiB" if size else "-" for size in memory)], name
        if path := values["model"].get("path"):
            assert model == path
            assert licence.startswith(values["model"]["facts"]["licence"])


def test_a_profile_names_the_gpus_that_it_needs() -> None:
    for name in names_in(PIPELINES / "profiles"):
        values = read_yaml(PIPELINES / "profiles" / f"{name}.yaml")
        needs = Needs.model_validate(values.get("needs", {}))
        sold = re.findall(r"GPUs? of (\d+) GB", values["description"])
        if needs.device == "cuda":
            (size,) = sold  # what a card is sold as: up to a tenth above what it shows
            assert needs.gpu_memory_gb < int(size) <= 1.1 * needs.gpu_memory_gb, name


def test_every_pipeline_kind_and_reward_has_a_row() -> None:
    page = read(DOCS / "recipes-and-pipelines.md")
    assert set(rows_of(page, "`pipeline=`")) == set(names_in(PIPELINES))
    assert set(rows_of(page, "kind")) == set(kinds()) - {"clean", "evaluate", "card", "publish"}
    assert set(VERIFIERS) <= set(rows_of(page, "reward"))


def test_every_gpu_that_a_plan_knows_is_named() -> None:
    page = read(DOCS / "gpus-and-clusters.md")
    assert all(f"`{name}`" in page for name, hardware in TABLE.items() if hardware.device == "cuda")


def test_the_readme_has_the_marks_that_the_program_fills() -> None:
    text = read(REPOSITORY / "README.md")
    assert re.search(r"```\nstage  .*?\nmerge .*?\n```", text, re.DOTALL)
    assert re.search(r"<!-- all -->\n```\n.*?```\n<!-- end of all -->", text, re.DOTALL)
    assert len(text.splitlines()) <= 95, "a screen and a half"


def test_the_readmes_have_what_the_program_of_their_tables_looks_for() -> None:
    for name in names_in(REPOSITORY / "domains", ""):
        text = read(REPOSITORY / "domains" / name / "README.md")
        assert re.search(r"^\| base \|.*?\n(?!\|)", text, re.MULTILINE | re.DOTALL), name
        for pattern, _ in SENTENCES.get(name, ()):
            assert re.search(pattern, text), (name, pattern)


DESCRIBED = {  # what the pages describe -> where it is
    "`KIND`": ("docs/extending.md", "common/stages/cpt.py", "KIND"),
    "`domain-recipes`": ("docs/quick-start.md", "pyproject.toml", "[project.scripts]"),
    "`rewards.py`": ("docs/extending.md", "common", '"rewards.py"'),
    "`just config describe=cpt.schedule`": ("docs/configuration.md", "common", '"describe"'),
    "`just test fast=true`": ("CONTRIBUTING.md", "Justfile", "fast"),
    "pre-commit install": ("CONTRIBUTING.md", ".pre-commit-config.yaml", "ruff"),
    "(settings.md)": ("docs/README.md", "docs/settings.md", "cpt"),
}


@pytest.mark.parametrize("phrase", DESCRIBED)
def test_what_a_page_describes_is_there(phrase: str) -> None:
    page, place, mark = DESCRIBED[phrase]
    assert phrase in read(REPOSITORY / page), phrase
    path = REPOSITORY / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.is_file() else []
    assert any(mark in read(file) for file in files), f"{place} has no {mark!r}"


def test_what_an_option_of_trl_becomes_is_what_the_page_says() -> None:
    """Each row of the table is resolved in both forms, and the options that the page lists are what it says."""
    page = read(DOCS / "coming-from-trl.md")
    table = page.split("| in TRL's words | here |")[1].split("\n\n")[0].splitlines()[2:]
    for row in table:
        theirs, ours = (re.findall(r"`([^`]+)`", cell)[0] for cell in row.strip("|").split(" | "))
        stage = theirs.partition(".")[0]
        words = {"pipeline": "full" if stage in ("sft", "dpo") else stage, "domain": "medical"}
        found = [
            resolve(words | dict(word.split("=", 1) for word in shlex.split(text)), REPOSITORY).config
            for text in (theirs, ours)
        ]
        assert found[0] == found[1], row
    for start, asked, effect in (
        ("These have no effect", "no effect", True),
        ("These are refused", "", False),
    ):
        listed = page.split(start)[1].split(": ", 1)[1].split("So is a value")[0].split("\n\n")[0]
        for name in re.findall(r"`(\w+)`", listed):
            value = SAMPLE_VALUES.get(
                name, "true" if OLDER.get(name, options_of("SFTConfig").get(name)) == "bool" else "x"
            )
            if effect:
                origins = resolve({"domain": "medical", f"sft.train.{name}": value}, REPOSITORY).origins
                assert asked in origins[f"sft.train.{name}"], name
            else:
                with pytest.raises(ConfigError, match=rf"sft(-only)?\.train\.{name} "):
                    resolve({"domain": "medical", f"sft.train.{name}": value}, REPOSITORY)


SAMPLE_VALUES = {  # of options that take neither text nor true
    "save_steps": "5", "eval_steps": "5", "per_device_eval_batch_size": "5", "dataset_num_proc": "5", "lora_r": "5",
    "model_init_kwargs": "{dtype: float32}", "hub_private_repo": "true",
}  # fmt: skip
