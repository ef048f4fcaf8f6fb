"""The settings reference and the JSON schemas: up to date, complete, and true of every shipped file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from referencing import Registry, Resource

from common.config.base import Frozen
from common.config.kinds import kinds
from common.config.reference import describe
from common.config.schema import SCALARS, SECTIONS
from common.config.yaml import read_yaml
from common.data.schemas import DOCS, reference_files
from common.errors import ConfigError
from tests.conftest import REPOSITORY

HEADER = "# yaml-language-server: $schema="
SHIPPED = {
    "stages": [*(REPOSITORY / "domains").glob("*/stages.yaml")],
    "data": [*(REPOSITORY / "domains").glob("*/data.yaml")],
    "knowledge": [*(REPOSITORY / "domains").glob("*/knowledge*.yaml")],
    "pipeline": [*(REPOSITORY / "pipelines").glob("*.yaml")],
    "profile": [*(REPOSITORY / "pipelines" / "profiles").glob("*.yaml")],
}
FILES = [(name, path) for name, paths in SHIPPED.items() for path in sorted(paths)]


@cache
def validator(name: str) -> Any:
    schemas = {path.name: json.loads(path.read_text("utf-8")) for path in (DOCS / "schemas").glob("*.json")}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    registry: Any = Registry().with_resources((key, Resource.from_contents(value)) for key, value in schemas.items())
    return Draft202012Validator(schemas[f"{name}.json"], registry=registry)


def problems(name: str, values: Any) -> list[str]:
    return [error.message for error in validator(name).iter_errors(values)]


def all_settings(base: type[BaseModel] = Frozen) -> set[type[BaseModel]]:
    return {base}.union(*(all_settings(cls) for cls in base.__subclasses__()))


@pytest.mark.parametrize("name", sorted(reference_files()))
def test_generated_files_are_up_to_date(name: str) -> None:
    expected = reference_files()[name]
    assert (DOCS / name).read_text("utf-8") == expected, "run `python -m common.data.schemas`"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), FILES, ids=[str(path.relative_to(REPOSITORY)) for _, path in FILES])
def test_every_shipped_file_fits_its_schema(name: str, path: Path) -> None:
    # Through JSON, as editors see it: no tuples, and keys are text.
    assert problems(name, json.loads(json.dumps(read_yaml(path)))) == []


@pytest.mark.parametrize(("name", "path"), [pair for pair in FILES if pair[0] != "knowledge"])
def test_every_shipped_file_names_its_schema(name: str, path: Path) -> None:
    """Those of knowledge do not: their bytes are part of fingerprints."""
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith(HEADER)
    assert (path.parent / first.removeprefix(HEADER)).resolve() == DOCS / "schemas" / f"{name}.json"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("stages", {"all": {"cpt": {"tokns": 5}}}),
        ("stages", {"checkpoint": {"cpt": {"schedule": {"kind": "polynomial"}}}}),
        ("stages", {"profiles": {"tiny": {"sft": {"train": {"learning_rat": 1e-5}}}}}),
        ("stages", {"all": {"sft": {"adapter": {"train": {"max_stps": 5}}}}}),
        ("profile", {"run": {"processes": 0}}),
        ("pipeline", {"description": "x", "stages": {"base": {"kind": "bas"}}, "exam": [], "publish": "base"}),
        ("data", {"title": "x", "sources": [{"id": "a", "role": "cpt", "licens": "mit"}]}),
    ],
)
def test_a_mistake_is_marked(name: str, values: dict[str, Any]) -> None:
    assert problems(name, values)


def test_a_layer_takes_parts_of_sections_and_stages_of_any_name() -> None:
    assert problems("stages", {"all": {"model": {"dtype": "bfloat16"}, "my-arm": {"tokens": 5}, "seed": 3}}) == []


def test_every_setting_has_a_description() -> None:
    """Classes of results, which a run writes, are no settings; nor are those that tests make."""
    classes = [cls for cls in all_settings() if cls.__module__.startswith(("common.config", "common.data"))]
    assert len(classes) > 40
    missing = [f"{c.__name__}.{name}" for c in classes for name, f in c.model_fields.items() if not f.description]
    assert missing == []


def test_the_page_has_every_section_and_stage_kind() -> None:
    page = reference_files()["settings.md"]
    for name in SECTIONS:
        assert f"\n## {name}\n" in page
    for kind, cls in ((name, kind.settings) for name, kind in kinds().items()):
        assert f"\n## Stage kind {kind}\n" in page
        assert all(f"`{kind}.{key}" in page for key in cls.model_fields)


@pytest.mark.parametrize("key", [*SECTIONS, *SCALARS, *kinds()])
def test_all_of_it_can_be_described(key: str) -> None:
    assert describe(key)[0].startswith(key)


def test_a_setting_is_described_with_type_default_and_meaning() -> None:
    assert describe("cpt.schedule.warmup") == [
        "cpt.schedule.warmup (number, at least 0; default: 0.02): share of all steps spent warming up; from 1 on, a "
        "number of steps"
    ]
    assert describe("cpt.schedule")[0] == "cpt.schedule: learning rate over the steps"
    assert len(describe("cpt.schedule")) == 5
    [option] = describe("dpo.train.beta")
    assert option == "dpo.train.beta (float): option of TRL's DPOConfig; its documentation says what it does."
    assert "default: 3.0" in describe("cpt.guard.spike")[0]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("cptt.tokens", "cptt.tokens: no section or stage kind of that name. Did you mean 'cpt'?"),
        ("cpt.schedul", "cpt.schedul: unknown key. Did you mean 'schedule'?"),
        ("cpt.schedule.warmpu", "cpt.schedule.warmpu: unknown key. Did you mean 'warmup'?"),
        ("cpt.train.learning_rat", "SFTConfig of TRL has no option 'learning_rat'. Did you mean 'learning_rate'?"),
        ("cpt.tokens.more", "cpt.tokens.more: cpt.tokens has no keys that are known here; see cpt.tokens."),
    ],
)
def test_a_key_that_is_none_gets_the_nearest(key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(key)
    assert expected in str(caught.value)
