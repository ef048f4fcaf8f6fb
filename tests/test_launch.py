"""Processes that torchrun started are set up as those of `accelerate launch`."""

from __future__ import annotations

import os

import pytest

from common.config import RunSettings
from common.errors import ConfigError
from common.launch import SET_BY_ACCELERATE, configure
from tests.conftest import REPOSITORY


@pytest.fixture
def by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "FSDP_"))}
    monkeypatch.setattr(os, "environ", {**before, "RANK": "1", "WORLD_SIZE": "4"})


@pytest.mark.usefixtures("by_torchrun")
def test_shards_are_those_of_the_file() -> None:
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert os.environ["FSDP_VERSION"] == "2"
    assert os.environ["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    assert os.environ["RANK"] == "1"


@pytest.mark.usefixtures("by_torchrun")
def test_whole_models_need_no_more() -> None:
    configure(REPOSITORY, RunSettings(processes=4))
    assert SET_BY_ACCELERATE in os.environ
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.usefixtures("by_torchrun")
def test_what_a_launcher_has_set_stays_and_deepspeed_needs_it() -> None:
    with pytest.raises(ConfigError, match=r"zero3: start the processes with `accelerate launch --config_file .+zero3"):
        configure(REPOSITORY, RunSettings(processes=4, parallelism="zero3"))
    os.environ[SET_BY_ACCELERATE] = "no"
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert "ACCELERATE_USE_FSDP" not in os.environ
