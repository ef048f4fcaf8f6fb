"""A domain with code of its own, and no consent to run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cli.new_domain import new_domain
from tests.conftest import REPOSITORY
from tests.engine.preflight.own_code import REWARDS, forget


@pytest.fixture
def no_consents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without consents, and leave none in this process."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    forget()
    yield
    forget()


@pytest.fixture
def mine(tmp_path: Path, no_consents: None) -> Path:
    """A domain outside the package, with a reward of its own that leaves a mark where its code runs."""
    new_domain("mine", tmp_path, REPOSITORY)
    folder = tmp_path / "mine"
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    stages = folder / "stages.yaml"
    old = "rewards: {exact: {weight: 1.0}, stopped: {weight: 0.1}}, check: exact"
    text = stages.read_text("utf-8")
    assert old in text
    stages.write_text(text.replace(old, "rewards: {even: {weight: 1.0}}, check: even"), encoding="utf-8")
    return folder
