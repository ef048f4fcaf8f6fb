"""The chaos bench: what it counts as equal, and twelve kills with all other faults in the slow tier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.chaos import chain, report
from tests.bench.chaos.faults import Outcome
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("| 3.114 [2.9, 3.3] | 4,096 | 20.8 s | 886 |", "| 3.114 [2.9, 3.3] | 4,096 | 9.1 s | 1,886 |", True),
        ("| 3.114 [2.9, 3.3] | 4,096 | 20.8 s | 886 |", "| 3.115 [2.9, 3.3] | 4,096 | 20.8 s | 886 |", False),
        ("It took 46.2 s.", "It took 1 min 46 s.", True),
    ],
)  # fmt: skip
def test_cards_are_compared_without_their_times(first: str, second: str, equal: bool) -> None:
    assert (chain.prose_without_times(first) == chain.prose_without_times(second)) is equal


def test_what_differs_is_shown_where_it_does() -> None:
    (line,) = chain.compare({"cpt": "abc", "sft": "x"}, {"cpt": "abd", "sft": "x"})
    assert line == "cpt: 'abd', undisturbed 'abc'"
    assert chain.compare({"cpt": "abc"}, {}) == ["cpt: 'nothing', undisturbed 'abc'"]


def test_the_table_shows_faults_phases_and_what_was_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome("SIGKILL", runs=2, equal=1, faults=3, wrong=["cpt differs"])
    outcome.phases["cpt: saving"] = 3
    report.show([outcome, Outcome("disk full", skipped="no mount here")])
    shown = capsys.readouterr().out
    assert "SIGKILL: cpt: saving 3" in shown
    assert "cpt differs" in shown
    assert "skipped: no mount here" in shown


def test_an_unknown_fault_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(faults="kills,flood") == 1
    assert "faults=flood: expected some of kills, power" in capsys.readouterr().err


@pytest.mark.long
def test_the_chain_ends_equal_under_every_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "chaos", "kills=12", f"folder={tmp_path}"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
