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


@pytest.mark.parametrize(
    ("key", "value"),
    [("schema", 99), ("stages", 7), ("stages", {}), ("stages", None), ("data_root", 7), ("pipeline", [])],
)
def test_a_plan_with_a_wrong_part_is_refused(key: str, value: Any, run: Resolved) -> None:
    path = freeze(run)
    plan = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**plan, key: value}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plan\.json is not a frozen plan"):
        thaw(path, {}, REPOSITORY)
