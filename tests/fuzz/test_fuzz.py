"""Hostile input of every kind ends in a result or in one sentence: no traceback, hang or crash, no write elsewhere."""

from __future__ import annotations

import itertools
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.campaign import SHARES, campaign, shares, table
from tests.fuzz.sandbox import FAILURES, LONGEST, Case, Hang, judge, lay, limited, listing, watcher
from tests.fuzz.strategies import KINDS, drawn

FAST, MANY = 200, 2000


def failed(found: list[dict[str, Any]], kind: str) -> str:
    """Return what the failures of a kind are, the first five in full."""
    bad = [each for each in found if each["kind"] == kind and each["result"] in FAILURES]
    lines = [f"{kind}-{each['number']}: {each['result']}\n{each['detail'][-1500:]}" for each in bad]
    return "\n".join([*lines[:5], *([f"and {len(lines) - 5} more"] if lines[5:] else [])])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return campaign(shares(FAST), tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_input_ends_in_a_result_or_a_sentence(kind: str, found: list[dict[str, Any]]) -> None:
    assert len([each for each in found if each["kind"] == kind]) == shares(FAST)[kind]
    assert not failed(found, kind), failed(found, kind)


@pytest.mark.long
def test_ten_times_as_much_of_it_does_too(tmp_path: Path) -> None:
    found = campaign(shares(MANY), tmp_path)
    bad = "\n".join(filter(None, (failed(found, kind) for kind in KINDS)))
    assert not bad, f"{table(found)}\n{bad}"


def test_the_kinds_make_as_many_cases_as_are_asked_for() -> None:
    assert SHARES.keys() == KINDS.keys()
    assert sum(shares(FAST).values()) == FAST
    assert sum(shares(MANY).values()) == MANY


def test_the_cases_of_a_number_are_always_the_same() -> None:
    cases = drawn("manifest text", 4)
    assert len(cases) == 4
    assert cases == drawn("manifest text", 4)


@pytest.mark.parametrize(
    ("code", "out", "err", "result"),
    [
        (0, "fine", "", "clean"),
        (1, "", "error: no such file.\n", "error"),
        (1, "", "", "traceback"),
        (2, "", "error: no such file.\n", "traceback"),
        (1, "", "error: one\nTraceback (most recent call last):\n", "traceback"),
        (1, "", "error: \x1b[31mred\n", "output"),
        (1, "", f"error: {'a' * LONGEST}\n", "output"),
    ],
)
def test_the_end_of_a_case_is_judged(code: int, out: str, err: str, result: str, tmp_path: Path) -> None:
    lay(Case("rows", ()), tmp_path / "case")
    assert judge(tmp_path / "case", listing(tmp_path / "case"), [], code, out, err).result == result


def test_what_a_case_writes_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "case"
    lay(Case("rows", (), {"data/rows.jsonl": b"{}"}), root)
    before, watch = listing(root), watcher()

    def ended() -> str:
        return judge(root, before, watch.paths, 0, "", "").result

    watch.paths.clear()
    watch.on = True
    (root / "out" / "plan.json").write_text("{}")
    (root / "data" / "rows.jsonl").read_text()
    watch.on = False
    assert ended() == "clean"
    watch.on = True
    (tmp_path / "elsewhere").write_text("")
    watch.on = False
    assert ended() == "outside"  # by the hook: no listing has the folder above
    watch.paths.clear()
    subprocess.run(["touch", root / "data" / "rows.jsonl"], check=True)
    assert ended() == "outside"  # by the listing: another program's writes pass no hook
    before = listing(root)
    (root / "out" / "a\nb").write_text("")
    assert ended() == "name"


def test_waiting_is_a_hang_and_so_is_working_without_end() -> None:
    with pytest.raises(Hang), limited(1):
        time.sleep(5)
    with pytest.raises(Hang), limited(1):
        sum(number for number in itertools.count())
