"""One broken file of a folder stops itself alone, and is named in one line."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.pipeline import load_pipelines
from common.config.resolve import resolve
from common.engine.preflight.hardware import runnable
from common.engine.preflight.settings import check_sharding
from common.errors import RecipeError
from tests.conftest import REPOSITORY

BROKEN: dict[str, Callable[[Path], object]] = {
    "syntax": lambda path: path.write_text("a: [1\n b: }", encoding="utf-8"),
    "keys": lambda path: path.write_text("zzz: 5\nstages: 3\nneeds: {gpus: many}\n", encoding="utf-8"),
    "no keys": lambda path: path.write_text("- 1\n", encoding="utf-8"),
    "empty": lambda path: path.touch(),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00a: 1"),
    "tag": lambda path: path.write_text("a: !!python/object/apply:os.system [x]\n", encoding="utf-8"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    (tmp_path / "domains").symlink_to(REPOSITORY / "domains")
    return tmp_path


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_pipeline_stops_itself_alone(how: str, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = repository / "pipelines" / "aa.yaml"
    BROKEN[how](path)
    check_sharding(resolve({"domain": "medical"}, repository))
    [record] = caplog.records
    assert record.getMessage().startswith(f"left out: {path}")
    assert "\n" not in record.getMessage()
    assert load_pipelines(path.parent).keys() == {p.stem for p in REPOSITORY.glob("pipelines/*.yaml")}
    assert len(caplog.records) == 1, "it is said once"
    with pytest.raises(RecipeError, match=r"aa\.yaml"):
        resolve({"domain": "medical", "pipeline": "aa"}, repository)


@pytest.mark.parametrize("how", [how for how in BROKEN if how != "empty"])
def test_a_broken_profile_stops_itself_alone(how: str, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = repository / "pipelines" / "profiles" / "aa.yaml"
    BROKEN[how](path)
    found = runnable(resolve({"domain": "medical"}, repository))
    assert "tiny" in found
    assert "aa" not in found
    [record] = caplog.records
    assert record.getMessage().startswith(f"left out: {path}")
    with pytest.raises(RecipeError, match=r"aa(\.yaml)?"):
        resolve({"domain": "medical", "profile": "aa"}, repository)


def test_a_section_of_a_broken_pipelines_stage_is_no_mistake_of_the_domain(repository: Path) -> None:
    (repository / "domains").unlink()
    shutil.copytree(REPOSITORY / "domains" / "medical", repository / "domains" / "medical")
    path = repository / "domains" / "medical" / "stages.yaml"
    path.write_text("profiles: {qwen3-8b: {general-text: {replay: 0.5}}}\n", encoding="utf-8")
    (repository / "pipelines" / "control.yaml").write_text("stages: [", encoding="utf-8")
    resolve({"domain": "medical"}, repository)
