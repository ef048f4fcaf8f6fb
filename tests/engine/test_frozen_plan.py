"""A frozen plan that is damaged, or of another form, is written again or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import Resolved, resolve
from common.engine.frozen_plan import freeze, thaw
from common.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.fixture
def run(tmp_path: Path) -> Resolved:
    return resolve({"domain": "medical", "out": str(tmp_path)}, REPOSITORY)


def test_a_plan_cut_short_is_written_again(run: Resolved) -> None:
    path = freeze(run)
    whole = path.read_text("utf-8")
    path.write_text(whole[:7], encoding="utf-8")
    assert freeze(run) == path
    assert path.read_text("utf-8") == whole


def test_a_plan_names_its_run(tmp_path: Path) -> None:
    words = {"domain": "medical", "out": str(tmp_path), "name": "try-1"}
    path = freeze(resolve(words, REPOSITORY))
    assert path == tmp_path / "runs" / "medical" / "tiny" / "try-1" / "plan.json"
    thawed = thaw(path, {}, REPOSITORY)
    assert (thawed.run_name, thawed.out) == ("try-1", tmp_path)


def test_a_plan_of_before_runs_had_names_is_still_one(run: Resolved, tmp_path: Path) -> None:
    plan = json.loads(freeze(run).read_text("utf-8"))
    del plan["name"]
    old = tmp_path / "runs" / "medical" / "tiny" / "plan.json"
    old.write_text(json.dumps(plan), encoding="utf-8")
    thawed = thaw(old, {}, REPOSITORY)
    assert (thawed.run_name, thawed.out) == ("demonstration", tmp_path)


def test_of_a_plan_that_is_missing_those_near_it_are_named(run: Resolved, tmp_path: Path) -> None:
    path = freeze(run)
    for missing in (path.parent.parent / "plan.json", path.parent.parent / "demo" / "plan.json"):
        with pytest.raises(ConfigError, match=rf"There is no plan {missing}\. There is {path}\."):
            thaw(missing, {}, REPOSITORY)
    with pytest.raises(ConfigError, match="`just plan domain=<domain> freeze=true` write one, as runs/<domain>"):
        thaw(tmp_path / "plan.json", {}, REPOSITORY)


def test_a_plan_outside_a_store_needs_its_store(run: Resolved, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.json"
    moved.write_bytes(freeze(run).read_bytes())
    with pytest.raises(ConfigError, match=r"is outside a store's runs/.*; give out=<folder of the store>"):
        thaw(moved, {}, REPOSITORY)
    assert thaw(moved, {"out": str(tmp_path)}, REPOSITORY).out == tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 99),
        ("stages", 7),
        ("stages", {}),
        ("stages", None),
        ("data_root", 7),
        ("pipeline", []),
        ("name", "../up"),
        ("name", 5),
    ],
)
def test_a_plan_with_a_wrong_part_is_refused(key: str, value: Any, run: Resolved) -> None:
    path = freeze(run)
    plan = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**plan, key: value}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plan\.json is not a frozen plan"):
        thaw(path, {}, REPOSITORY)
