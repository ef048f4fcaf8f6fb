"""Every domain as it lies in its folder: files, exam, manifest, settings, and a quick run to a card of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from common.config.files import DOMAIN_FILES
from common.config.folders import names_in
from common.config.resolve import resolve
from common.config.stages import CardSettings, EvaluateSettings
from common.console import Console
from common.data.decontaminate import Decontaminator
from common.data.manifest.manifest import load_manifest
from common.engine.corpora import open_corpus
from common.engine.preflight.settings import check_settings
from common.engine.run import execute
from common.errors import ConfigError
from common.evaluation.tasks import check_questions
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow

FOUND = names_in(REPOSITORY / "domains", "")  # a reader's own domains are among them
SHIPPED = ("cybersecurity", "finance", "legal", "math", "medical", "multilingual")
DOMAINS = [name for name in FOUND if name in SHIPPED]


@pytest.fixture(scope="module")
def store(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all, with the base of a finished run."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("domains") / "store", symlinks=True))


@pytest.mark.parametrize("domain", FOUND)
def test_it_has_its_files(domain: str) -> None:
    folder = REPOSITORY / "domains" / domain
    for name in (*DOMAIN_FILES, "README.md", "eval/benchmarks.yaml"):
        assert (folder / name).is_file(), name


@pytest.mark.parametrize("domain", DOMAINS)
def test_its_hub_manifest_is_sound_and_keeps_what_is_gated_or_non_commercial_off(domain: str) -> None:
    corpus = load_manifest(REPOSITORY / "domains" / domain / "data.yaml", None)
    roles = {source.role for source in corpus.manifest.sources if source.enabled}
    assert {"cpt", "replay", "sft", "eval"} <= roles
    assert roles & {"preference", "prompts"}
    for source in corpus.manifest.sources:
        assert source.evidence, source.id
        assert not (source.enabled and source.gated), source.id
        assert not (source.enabled and "-nc" in source.licence.lower()), source.id
        assert "wmdp" not in f"{source.hub}" or not source.enabled


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_checkpoint_is_asked_its_benchmarks_and_writes_no_choices(domain: str) -> None:
    words = {"domain": domain, "model.path": "owner/name", "model.revision": "0" * 40, "data": "hub"}
    exam = resolve(words, REPOSITORY).config.stages["exam-sft"]
    assert isinstance(exam, EvaluateSettings)
    assert exam.tasks == (f"{domain}_benchmarks", "general_benchmarks")
    assert not exam.written
    assert exam.answer_tokens > 96


def test_a_group_of_benchmarks_that_is_gone_is_named_before_anything_is_spent(tmp_path: Path) -> None:
    for name in ("common", "pipelines"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "domains" / "finance", tmp_path / "domains" / "finance")
    shutil.rmtree(tmp_path / "domains" / "finance" / "eval")
    words = {"domain": "finance", "model.path": "owner/name", "model.revision": "0" * 40, "data": "hub"}
    with pytest.raises(ConfigError, match=r"asks for finance_benchmarks, but .*benchmarks.yaml is missing"):
        check_settings(resolve(words, tmp_path))


@pytest.mark.parametrize("domain", DOMAINS)
def test_its_exam_is_sound_and_no_training_row_repeats_it(domain: str) -> None:
    corpus = open_corpus(resolve({"domain": domain, **QUICK}, REPOSITORY))
    questions = list(corpus.rows("questions_domain"))
    check_questions(domain, [row for row in questions if "choices" in row])
    assert len({row["id"] for row in questions}) == len(questions) >= 120
    guard = Decontaminator((row["question"] for row in questions), n=40)  # whole questions
    for role in ("sft", "preference"):
        for row in corpus.rows(role):
            asked = (row.get("messages") or row["prompt"])[0]["content"]
            assert guard.hit(asked) is None, asked


# The demonstration's test makes all of medical, with its whole budgets. That nothing is medical's own is shown by new
# domains in tests/cli/test_all_domains.py.
@pytest.mark.long
@pytest.mark.parametrize("domain", FOUND)
def test_it_runs_to_a_card_with_its_own_limits(domain: str, store: Path) -> None:
    resolved = resolve({"domain": domain, "out": str(store), **QUICK}, REPOSITORY)
    outcome = execute(resolved, Console("quiet"))
    assert len(list((store / "artifacts").glob("base-*"))) == 1
    settings = resolved.config.stages["card"]
    assert isinstance(settings, CardSettings)
    card = (outcome.artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert settings.limits_of_use.strip() in card
    assert "### Written answers" in card
    summary = json.loads(
        (store / "runs" / domain / "tiny" / "demonstration" / "summary.json").read_text(encoding="utf-8")
    )
    assert all(point["exam"]["domain"]["n"] > 0 for point in summary["checkpoints"])


def test_each_field_has_limits_of_its_own() -> None:
    files = [yaml.safe_load((REPOSITORY / "domains" / d / "stages.yaml").read_text(encoding="utf-8")) for d in DOMAINS]
    assert len({file["all"]["card"]["limits_of_use"] for file in files}) == len(SHIPPED)
