"""A domain outside the package with a reward of its own, whose code leaves a mark where it runs.

Usage: `check_settings(resolved(mine, **ALLOW)); assert not ran(mine)`.
"""

from __future__ import annotations

from pathlib import Path

from common.config.domain_code import read_code
from common.config.resolve import Resolved, resolve
from common.system import outside_code
from tests.conftest import REPOSITORY

REWARDS = """
import os
from common.rewards.verifiers import Answer

open(os.environ["RAN"], "w").close()


def even(answer: Answer, *, most: int = 1) -> float:
    return float(len(answer.text) % 2 < most)
"""
ALLOW = {"run.allow_code": "mine"}


def forget() -> None:
    outside_code._allowed.clear()


def ran(mine: Path) -> bool:
    return (mine.parent / "ran").exists()


def digest_of_domain(folder: Path) -> str:
    return outside_code.digest_of(outside_code.digests_of(read_code(folder).code))


def resolved(folder: Path, **overrides: str) -> Resolved:
    given = {"domain": str(folder), "pipeline": "on-policy", "out": str(folder.parent / "store"), **overrides}
    return resolve(given, REPOSITORY)
