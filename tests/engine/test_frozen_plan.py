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
        thaw(tmp_path / "no" / "such" / "plan.json", {}, REPOSITORY)


def test_a_plan_outside_a_store_needs_its_store(run: Resolved, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.json"
    moved.write_bytes(freeze(run).read_bytes())
    with pytest.raises(ConfigError, match=r"is outside a store's runs/.*; give out=<folder of the store>"):
        thaw(moved, {}, REPOSITORY)
    assert thaw(moved, {"out": str(tmp_path)}, REPOSITORY).out == tmp_path


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("schema", 99, "schema: expected 1; got 99."),
        ("stages", 7, "stages: expected keys below it; got 7."),
        ("stages", {}, "stages.base is missing."),
        ("stages", None, "stages: expected keys below it; got nothing."),
        ("stages.cpt", None, "stages.cpt: expected keys below it; got nothing."),
        ("stages.cpt.tokens", -1, "stages.cpt.tokens: expected more than 0 and at most 1,000,000,000,000,000; got -1."),
        ("stages.cpt.zzz", 1, "stages.cpt.zzz: unknown key."),
        ("config.domain", "../x", "config.domain: expected letters, digits"),
        ("config.run.threads", 0, "config.run.threads: expected at least 1; got 0."),
        ("config.pipeline", "full", "its pipeline is 'demonstration', and its settings are of 'full'."),
        ("data_root", 7, "data_root: expected text; got 7"),
        ("domain_folder", 7, "domain_folder: expected text; got 7"),
        ("origins", [], "origins: expected keys below it; got []."),
        ("hub_revisions", {"a/b@main": 5}, "hub_revisions.a/b@main: expected text; got 5"),
        ("pipeline", [], "pipeline: expected keys below it; got []."),
        ("pipeline.publish", "..", "pipeline: publish: '..' is no stage."),
        ("pipeline.stages.cpt.from", "sfft", "pipeline: stages.cpt: 'sfft' is no stage above it."),
        ("pipeline.stages.cpt.from", None, "pipeline: stages.cpt: a stage of kind cpt needs 'from: <stage>'."),
        ("pipeline.stages./tmp/x", {"kind": "sft", "from": "base"}, "pipeline: stages./tmp/x: expected letters"),
        ("pipeline.stages.plan.json", {"kind": "sft", "from": "base"}, "stages.plan.json: the store writes a file of"),
        ("name", "../up", "name: expected letters, digits"),
        ("name", 5, "name: expected text; got 5"),
    ],
)  # fmt: skip
def test_a_plan_with_a_wrong_part_is_refused(key: str, value: Any, expected: str, run: Resolved) -> None:
    path = freeze(run)
    plan = place = json.loads(path.read_text("utf-8"))
    depth = 2 if key.startswith("pipeline.stages.") and not key.endswith(".from") else key.count(".")
    *above, last = key.split(".", depth)
    for part in above:
        place = place[part]
    place[last] = value
    path.write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        thaw(path, {}, REPOSITORY)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert message.endswith("Undo the edit, or plan it again.")


@pytest.mark.parametrize("text", ["[1]", "", "{", "[" * 100_000, "\udcff"])
def test_what_is_no_plan_at_all_is_refused(text: str, run: Resolved) -> None:
    path = freeze(run)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"plan\.json(: not valid JSON|: byte 0 is not UTF-8|: expected keys)"):
        thaw(path, {}, REPOSITORY)
