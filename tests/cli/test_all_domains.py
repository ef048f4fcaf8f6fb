"""domain=all: the base is made once, a broken domain stops no other, and the table says how each ended."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from common.cli.all_domains import plan_all, run_all, show_runs
from common.cli.new_domain import new_domain
from common.console import Console
from common.errors import ConfigError
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two domains that run, one whose knowledge is broken, and one that fails while it runs."""
    root: Path = tmp_path_factory.mktemp("repository")
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "common").symlink_to(REPOSITORY / "common")
    for name in ("alchemy", "botany", "cookery", "dowsing"):
        new_domain(name, root / "domains", root)
    broken = root / "domains" / "cookery" / "knowledge.yaml"
    broken.write_text(
        broken.read_text(encoding="utf-8").replace("period: sixth", "periode: sixth", 1), encoding="utf-8"
    )
    strict = root / "domains" / "dowsing" / "stages.yaml"
    # Together they make weights a hundred times larger at each step.
    wild = "all:\n  cpt: {train: {learning_rate: 10.0, weight_decay: 10.0}}\n"
    text = strict.read_text(encoding="utf-8").replace("all:\n", wild, 1)
    strict.write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"out": str(tmp_path_factory.mktemp("store")), **QUICK}


def test_all_run_but_the_broken_ones_and_a_second_run_does_nothing(repository: Path, words: dict[str, str]) -> None:
    stream = io.StringIO()
    runs = {run.domain: run for run in run_all(words, repository, Console(stream=stream), frozenset())}
    assert list(runs) == ["alchemy", "botany", "cookery", "dowsing"]
    assert not runs["alchemy"].problem
    assert "entity Caesium: unknown attribute 'periode'" in runs["cookery"].problem
    assert "Stage cpt: the gradient became NaN or infinite" in runs["dowsing"].problem
    assert not runs["botany"].problem
    store = Path(words["out"])
    assert len(list((store / "artifacts").glob("base-*"))) == 1
    assert len(list((store / "artifacts").glob("cpt-*"))) == 1  # their facts are equal; what broke left nothing
    assert runs["alchemy"].outcome is not None
    assert runs["botany"].outcome is not None
    assert "base" in runs["alchemy"].outcome.made
    assert "base" not in runs["botany"].outcome.made
    assert "cookery cannot run" in stream.getvalue()
    assert "dowsing failed" in stream.getvalue()

    again = run_all(words, repository, Console("quiet"), frozenset())
    assert [run.outcome.made for run in again if run.outcome is not None] == [[], []]
    stream = io.StringIO()
    show_runs(again, Console(stream=stream))
    lines = stream.getvalue().splitlines()
    assert lines[1].split()[:3] == ["domain", "exam", "base"]
    assert [line.split()[0] for line in lines[2:6]] == ["alchemy", "botany", "cookery", "dowsing"]
    assert lines[2].endswith("up to date")
    assert "failed: " in lines[4]


def test_plans_come_with_the_problems_of_the_others(repository: Path, words: dict[str, str]) -> None:
    plans, failed = plan_all(words, repository)
    assert [plan.resolved.config.domain for plan in plans] == ["alchemy", "botany", "dowsing"]
    assert [run.domain for run in failed] == ["cookery"]


def test_a_manifest_belongs_to_one_domain(repository: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to one domain"):
        plan_all({"data": "my.yaml"}, repository)


def test_what_stops_every_domain_is_said_once(repository: Path, words: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tokens'") as caught:
        run_all({**words, "cpt.tokns": "5"}, repository, Console("quiet"), frozenset())
    assert str(caught.value).count("tokns") == 1


def test_a_forced_stage_must_exist(repository: Path, words: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"has a stage 'sftt'\. Did you mean 'sft'"):
        run_all(words, repository, Console("quiet"), frozenset({"sftt"}))
