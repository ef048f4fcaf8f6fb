"""One pattern for every name: what it takes and refuses, and that each place where a name is given uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from common.config.folders import find_domain, is_path, names_in
from common.config.names import NonEmpty, check_name, domain_flaw, flaw, is_name, twins
from common.config.pipeline import Pipeline, StageSpec, load_pipeline
from common.config.resolve import resolve
from common.config.schema import Config, ModelSettings, RunSettings
from common.config.stages import MergeSettings, PublishSettings
from common.data.manifest.manifest import load_manifest
from common.engine.frozen_plan import PlanFile
from common.errors import ConfigError
from common.stages.publish import hub_repository
from tests.conftest import REPOSITORY

PATTERN = [
    "", " ", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "-x", "_x", ".x", "a b", "a\n", "\na", "a\x00b", "\x1b[3m",
    "~", "$(x)", "*", "\xe4", "\u0455ft", "\uff53ft", "x" * 101,
]  # fmt: skip
WINDOWS = ["con", "NUL", "nul.txt", "Com1", "lpt9.a.b"]
STORE = ["plan.json", "Summary.JSON", "manifest.json", "published.json"]
PIPELINE = """description: for a test
stages:
  base: {kind: base}
  NAME: {kind: sft, from: base}
exam: [base]
publish: NAME
"""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (PATTERN, "expected letters, digits, '.', '_' and '-', a letter or digit first, and at most 100 of them"),
        (["x.", "x.."], "a name does not end in a dot"),
        (WINDOWS, "Windows keeps this name for a device"),
        (STORE, "the store writes a file of this name"),
        ([None, 5, True, ["a"]], "expected letters, digits"),
    ],
)
def test_what_is_no_name(names: list[object], expected: str) -> None:
    for name in names:
        assert expected in (flaw(name) or ""), name
        with pytest.raises(ConfigError, match="key="):
            check_name("key", name)


def test_text_that_has_to_say_something(tmp_path: Path) -> None:
    text = TypeAdapter(NonEmpty)
    assert text.validate_python(" a ") == " a "
    for empty in ("", " \t"):
        with pytest.raises(ValidationError, match="expected text that is not empty"):
            text.validate_python(empty)
    for key, value in {"card.tags": "['']", "publish.to": "''", "merge.base": "''", "run.hardware": "' '"}.items():
        with pytest.raises(ConfigError, match=rf"{key}.* \(command line\): expected text that is not empty; got '"):
            resolve({"domain": "medical", key: value}, REPOSITORY)


def test_no_text_of_a_file_that_has_to_say_something_is_undeclared() -> None:
    """Free text may be empty; every other text of a settings class is a name, a choice, or NonEmpty."""
    classes = (Config, ModelSettings, RunSettings, PublishSettings, MergeSettings, Pipeline, StageSpec, PlanFile)
    plain = {
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, field in cls.model_fields.items()
        if field.annotation in (str, str | None, tuple[str, ...]) and not field.metadata
    }
    assert plain == set()


def test_names() -> None:
    for name in ("a", "7b", "qwen2.5-72b", "try_2.b-C", "exam-sft", "latest", "com", "console", "x" * 100):
        assert is_name(name), name
    assert domain_flaw("contract-law_2") is None
    assert domain_flaw("Law") == "expected small letters; law would do"
    assert domain_flaw("all") == "domain=all means every domain; choose another"


def test_names_that_some_disks_take_for_one() -> None:
    assert twins(["sft", "dpo", "SFT"]) == ("sft", "SFT")
    assert twins(["sft", "dpo", "sft"]) is None


@pytest.mark.parametrize("name", [*PATTERN, *WINDOWS, *STORE, "x."])
def test_no_place_takes_what_is_no_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "odd.yaml").write_text(PIPELINE.replace("NAME", json.dumps(name)), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)odd\.yaml.*stages\..*: (expected letters|a name|Windows|the store)"):
        load_pipeline(tmp_path / "pipelines", "odd")
    (tmp_path / "m.json").write_text(
        json.dumps(
            {"title": "t", "sources": [{"id": name, "role": "cpt", "hub": "a/b", "split": "train", "licence": "mit"}]}
        ),
        "utf-8",
    )
    with pytest.raises(ConfigError, match=r"(?s)sources\..*id: (expected letters|a name|Windows|the store)"):
        load_manifest(tmp_path / "m.json", None)
    for key in ("name", "profile", "pipeline"):
        with pytest.raises(ConfigError, match=rf"(?s){key}=.*: (expected letters|a name|Windows|the store)"):
            resolve({"domain": "medical", key: name}, REPOSITORY)
    if not is_path(name):
        with pytest.raises(ConfigError, match=r"(?s)domain=.*: (expected|a name|Windows|the store)|No domain is given"):
            find_domain(name, tmp_path)
    if not name.startswith("_"):  # which the Hub allows
        with pytest.raises(ConfigError, match="expected local, none or hub:<owner>/<name>"):
            hub_repository(f"hub:acme/{name}")


@pytest.mark.parametrize("name", ["card", "Publish", "EVALUATE", "exam-base", "Exam-x"])
def test_names_of_the_pipeline_itself_are_taken_in_capitals_too(name: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(PIPELINE.replace("NAME", name), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"stages\.{name}: this name is taken by the pipeline itself"):
        load_pipeline(tmp_path, "odd")


def test_stages_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(PIPELINE.replace("NAME", "Base"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stages\.Base: only capital letters tell it from the stage 'base'"):
        load_pipeline(tmp_path, "odd")


def test_a_pipeline_cannot_call_itself_something_else(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("name: full\n" + PIPELINE.replace("NAME", "sft"), encoding="utf-8")
    with pytest.raises(ConfigError, match="name: a pipeline is named after its file, odd; leave the key out"):
        load_pipeline(tmp_path, "odd")


def test_a_folder_offers_no_malformed_names(tmp_path: Path) -> None:
    for name in ("ok", "-x", "ä", "a b", "con", "..", "", "x\n"):
        (tmp_path / f"{name}.yaml").touch()
        (tmp_path / "folders" / (name if name.strip(".") else "z.")).mkdir(parents=True, exist_ok=True)
    assert names_in(tmp_path) == ["ok"]
    assert names_in(tmp_path / "folders", "") == ["ok"]


@pytest.mark.parametrize(
    "to", ["hub:acme", "hub:", "hub:/a", "hub:a/b/c", "hub:a/..", "hub:../a", "hub:\xe4/b", "local:x"]
)
def test_where_a_model_cannot_be_published(to: str) -> None:
    with pytest.raises(ConfigError, match="expected local, none or hub:<owner>/<name>"):
        hub_repository(to)


def test_where_a_model_can_be_published() -> None:
    assert hub_repository("hub:acme/med-1b_v2.0") == "acme/med-1b_v2.0"
    assert [hub_repository(to) for to in ("local", "none")] == [None, None]
