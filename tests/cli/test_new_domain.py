"""A new domain's folder: it runs as it is, takes more facts, and bad names are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.cli.new_domain import new_domain
from common.config.resolve import resolve
from common.config.stages import EvaluateSettings
from common.console import Console
from common.data.manifest.manifest import load_manifest
from common.engine.run import execute
from common.errors import ConfigError, DataError
from tests.conftest import QUICK, REPOSITORY, training

pytestmark = pytest.mark.slow

FACTS = """
  - {name: Vanadium, family: transition metals, period: fourth, discovery: nineteenth century}
  - {name: Osmium, family: transition metals, period: sixth, discovery: nineteenth century}
  - {name: Palladium, family: transition metals, period: fifth, discovery: nineteenth century}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with this code and these pipelines, and no domain."""
    root = tmp_path / "repository"
    root.mkdir()
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "common").symlink_to(REPOSITORY / "common")
    return root


@pytest.mark.long  # tests/cli/test_all_domains.py runs new domains as they are in every run
def test_a_new_domain_with_three_more_facts_runs_to_a_card(repository: Path, tmp_path: Path) -> None:
    domain, files = new_domain("chemistry", repository / "domains", repository)
    assert domain == "chemistry"
    folder = repository / "domains" / "chemistry"
    assert {path.relative_to(folder).as_posix() for path in files} == {
        "README.md", "data.yaml", "stages.yaml", "knowledge.yaml", "eval/benchmarks.yaml",
    }  # fmt: skip
    assert not any("{{" in path.read_text(encoding="utf-8") for path in files)
    with (folder / "knowledge.yaml").open("a", encoding="utf-8") as stream:
        stream.write(FACTS)
    words = {"domain": "chemistry", "out": str(tmp_path / "store"), **QUICK}
    outcome = execute(resolve(words, repository), Console("quiet"))
    card = (outcome.artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert "43 entities x 3 attributes" in card
    assert "Not for any use but learning how a domain is made" in card
    view = tmp_path / "store" / "runs" / "chemistry" / "tiny" / "demonstration" / "summary.json"
    assert json.loads(view.read_text(encoding="utf-8"))["domain"] == "chemistry"
    assert [path.name for path in (repository / "domains").iterdir()] == ["chemistry"]


def test_its_manifest_of_hub_data_is_sound(repository: Path) -> None:
    new_domain("chemistry", repository / "domains", repository)
    corpus = load_manifest(repository / "domains" / "chemistry" / "data.yaml", None)
    assert {source["id"] for source in corpus.sources()} == {"wikimedia", "dolly", "commonsense-qa"}


@pytest.mark.parametrize("name", ["Chemistry", "two words", "a/b", "..", "con", "x.", "all", "", "x" * 101])
def test_bad_names_are_refused(repository: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"name='.*': (expected|domain=all|Windows|a name)"):
        new_domain(name, repository / "domains", repository)


def test_a_folder_that_is_there_is_left_alone(repository: Path) -> None:
    new_domain("chemistry", repository / "domains", repository)
    mine = repository / "domains" / "chemistry" / "README.md"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already; nothing was changed"):
        new_domain("chemistry", repository / "domains", repository)
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_folder_with_missing_files_names_them_all(repository: Path) -> None:
    new_domain("chemistry", repository / "domains", repository)
    (repository / "domains" / "chemistry" / "knowledge.yaml").unlink()
    (repository / "domains" / "chemistry" / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"lacks knowledge\.yaml, data\.yaml.*just new-domain"):
        resolve({"domain": "chemistry"}, repository)


@pytest.mark.parametrize("name", ["chemistry", "null"])
def test_it_resolves_with_a_checkpoint(repository: Path, name: str) -> None:
    new_domain(name, repository / "domains", repository)
    config = resolve({"domain": name, "model.path": "/tmp", "data": "hub"}, repository).config
    cpt, exam = training(config, "cpt"), config.stages["exam-sft"]
    assert (cpt.tokens, cpt.epochs) == (None, 2)
    assert isinstance(exam, EvaluateSettings)
    assert exam.tasks == (f"{name}_benchmarks", "general_benchmarks")
