"""`domain=` takes a shipped name or the path of a folder; nothing else, and no name leads out of its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from common.cli.new_domain import new_domain
from common.config.folders import find_domain
from common.config.resolve import resolve
from common.engine.frozen_plan import freeze, thaw
from common.engine.plan import make_plan
from common.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    new_domain("mine", tmp_path, REPOSITORY, command="domain-recipes")
    return tmp_path / "mine"


def test_a_folder_is_found_by_any_path_to_it(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    for given in ("./mine", "mine/", str(mine), "mine/../mine"):
        assert find_domain(given, REPOSITORY) == mine
    monkeypatch.chdir(mine)
    assert find_domain(".", REPOSITORY) == mine


def test_a_shipped_domain_is_the_same_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for given in ("medical", "domains/medical", "./domains/medical/"):
        assert find_domain(given, REPOSITORY) == REPOSITORY / "domains" / "medical"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "No domain is given. Set domain=<name>. Known: cybersecurity"),
        ("medicl", "There is no domain 'medicl'. Did you mean 'medical'?"),
        ("mine", "There is no domain 'mine'. For the folder of that name here, use domain=./mine."),
        ("./there", "domain=./there: there is no such folder. `just new-domain name=<name>` makes one."),
        ("./Mine", "named after its folder, 'Mine': expected small letters; mine would do. Rename the folder."),
        ("./medical", "the name 'medical' is taken by a shipped domain. Rename the folder, such as my-medical."),
        ("./all", "'all': domain=all means every domain; choose another. Rename the folder."),
        ("..", "'Above_it': expected small letters; above_it would do."),
    ],
)
def test_mistakes(given: str, expected: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mine.parent / "Above_it" / "here"
    shutil.copytree(mine, here / "mine")
    for name in ("Mine", "medical", "all"):
        (here / name).mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(ConfigError) as caught:
        find_domain(given, REPOSITORY)
    assert expected in str(caught.value)


def test_a_run_reads_that_folder_and_plans_keep_it(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = resolve({"domain": "./mine"}, REPOSITORY, tmp_path / "results")
    assert (resolved.config.domain, resolved.domain_folder, resolved.shipped) == ("mine", mine, False)
    assert resolved.out == tmp_path / "results"
    assert resolved.origins["card.limits_of_use"] == "domain ./mine"
    assert make_plan(resolved).corpus.domain_title == "Chemical elements"
    path = freeze(resolved)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    thawed = thaw(path, {}, REPOSITORY)
    assert (thawed.domain_folder, thawed.out) == (mine, tmp_path / "results")
    recipes = [{step.node.name: step.fingerprint for step in make_plan(run).steps} for run in (resolved, thawed)]
    assert recipes[0] == recipes[1]

    plan = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**plan, "domain_folder": os.fspath(tmp_path / "elsewhere")}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"its domain is 'mine', but its domain_folder is .*elsewhere\. Plan it ag"):
        thaw(path, {}, REPOSITORY)
    for key in ("domain", "profile"):
        path.write_text(json.dumps({**plan, "config": {**plan["config"], key: "../elsewhere"}}), encoding="utf-8")
        with pytest.raises(
            ConfigError, match=rf"plan\.json: config\.{key}: expected letters, .* got '\.\./elsewhere'\."
        ):
            thaw(path, {}, REPOSITORY)


def test_a_plan_of_a_shipped_domain_names_no_folder(tmp_path: Path) -> None:
    resolved = resolve({"domain": "medical"}, REPOSITORY, tmp_path)
    assert "domain_folder" not in json.loads(freeze(resolved).read_text("utf-8"))


def test_a_mistake_in_its_settings_names_its_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mine / "stages.yaml"
    path.write_text(path.read_text("utf-8").replace("all:\n", "all:\n  cpt: {tokns: 5}\n", 1), encoding="utf-8")
    monkeypatch.chdir(mine.parent)
    with pytest.raises(ConfigError, match=r"cpt\.tokns \(domain \./mine; \./mine/stages\.yaml\): unknown key\."):
        resolve({"domain": "./mine"}, REPOSITORY)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "-x", ".hidden", "a b", "a\n", "ä", "x" * 101])
def test_a_malformed_name_of_a_run_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"name=.*: expected letters, digits, '\.', '_' and '-', a letter or digit"):
        resolve({"domain": "medical", "name": name}, REPOSITORY)


def test_the_name_of_a_pipeline_is_for_its_own_runs() -> None:
    assert resolve({"domain": "medical", "name": "try_2.b-C"}, REPOSITORY).run_name == "try_2.b-C"
    assert resolve({"domain": "medical", "name": "full", "pipeline": "full"}, REPOSITORY).run_name == "full"
    assert resolve({"domain": "medical", "pipeline": "full"}, REPOSITORY).run_name == "full"
    with pytest.raises(ConfigError, match=r"name=full: runs of the pipeline full have that name, .* such as my-full"):
        resolve({"domain": "medical", "name": "full", "pipeline": "sft-only"}, REPOSITORY)
