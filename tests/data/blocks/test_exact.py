"""Tests of the block that leaves out rows whose text came before."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import Drop
from common.data.duplicates import records
from common.errors import DataError
from tests.data.blocks.repeats import SCRIPTS, dealt, made, run_block


def text_row(text: str, source: str = "web") -> dict[str, Any]:
    return {"source": source, "text": text}


def kept(found: list[list[Any]]) -> list[list[bool]]:
    return [[not isinstance(one, Drop) for one in rows] for rows in found]


def test_planted_copies_go_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows: list[tuple[dict[str, Any], bool]] = []
    copies = []
    for script in SCRIPTS:
        for _ in range(60):
            text = made(rng, script, rng.randint(3, 60))
            rows.append((text_row(text), False))
            if rng.random() < 0.5:
                copies.append((text_row(f"  {unicodedata.normalize('NFD', text)}\n\n", "other"), True))
    tasks = dealt(rows + copies, 7)
    found = run_block("exact", {}, [[row for row, _ in task] for task in tasks], tmp_path)
    assert kept(found) == [[not planted for _, planted in task] for task in tasks]


def test_the_first_by_task_and_place_is_kept_and_named(tmp_path: Path) -> None:
    same = text_row("The same text, in every task, and longer than what is shown of it here.")
    found = run_block("exact", {}, [[text_row("a"), same, same], [], [same | {"source": "faq"}]], tmp_path)
    assert kept(found) == [[True, True, False], [], [False]]
    drop = Drop("duplicate", "web: The same text, in every task, and longer than what is shown")
    assert (found[0][2], found[2][0]) == (drop, drop)


@pytest.mark.parametrize(
    ("ignore", "same"),
    [([], 0), (["blanks"], 1), (["case"], 1), (["unicode"], 1), (["blanks", "case", "unicode"], 3)],
)
def test_only_what_is_ignored_may_differ(tmp_path: Path, ignore: list[str], same: int) -> None:
    texts = ["Caf\u00e9 au lait", "Caf\u00e9  au lait ", "caf\u00e9 au lait", "Cafe\u0301 au lait", "Cafe au lait"]
    found = run_block("exact", {"ignore": ignore}, [[text_row(text) for text in texts]], tmp_path)
    assert kept(found)[0].count(False) == same


def test_rows_of_every_kind_are_compared_by_all_their_texts(tmp_path: Path) -> None:
    def chat(*texts: str, **more: Any) -> dict[str, Any]:
        return {"source": "s", "messages": [{"role": "user", "content": text} for text in texts], **more}

    prompt = {"source": "s", "prompt": [{"role": "user", "content": "2 + 2?"}]}
    rows = [
        chat("ab", "c"), chat("a", "bc"), chat("ab", "c", source="t"),
        prompt | {"answer": "4"}, prompt | {"answer": "5"}, prompt | {"answer": "4", "language": "en"},
    ]  # fmt: skip
    assert kept(run_block("exact", {}, [rows], tmp_path)) == [[True, True, False, True, True, False]]


def test_rows_of_earlier_stages_count_as_seen(tmp_path: Path) -> None:
    earlier = {
        "cpt": [
            [text_row("one"), {"source": "s", "messages": [{"role": "user", "content": "chat"}]}],
            [],
            [text_row("two")],
        ],
        "replay": [[text_row("three")]],
    }
    tasks = [[text_row("two"), text_row("four")], [text_row("three"), text_row("one"), text_row("four")]]
    found = run_block("exact", {"against": ["cpt"]}, tasks, tmp_path, earlier=earlier)
    assert kept(found) == [[False, True], [True, False, False]]
    assert found[0][0] == Drop("duplicate of an earlier stage", "cpt, web: two")


def test_a_role_without_an_earlier_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no stage before this one has cleaned rows of 'cpt'; those that have: none"):
        run_block("exact", {"against": ["cpt"]}, [[text_row("a")]], tmp_path)


@pytest.mark.parametrize("tasks", [[], [[]], [[], []], [[{"source": "s", "text": ""}]], [[text_row("a")]]])
def test_few_rows_or_none(tmp_path: Path, tasks: list[list[dict[str, Any]]]) -> None:
    for name in ("exact", "minhash", "sentences"):
        (tmp_path / name).mkdir()
        assert run_block(name, {}, tasks, tmp_path / name) == tasks


def test_all_rows_equal_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records.in_key_order, "__defaults__", (7,))
    tasks = dealt([text_row("same")] * 60 + [text_row(str(number)) for number in range(40)], 6)
    found = [one for task in kept(run_block("exact", {}, tasks, tmp_path)) for one in task]
    assert found == [True] + [False] * 59 + [True] * 40


def test_order_of_tasks_and_what_a_kill_left_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(2)
    texts = [made(rng, "latin", 40) for _ in range(30)]
    tasks = dealt([text_row(rng.choice(texts)) for _ in range(90)], 5)
    for name in ("exact", "minhash", "sentences"):
        whole = run_block(name, {"least": 0} if name == "sentences" else {}, tasks, tmp_path / "a")
        left = tmp_path / "b" / "block" / ".task-00003.fresh"
        left.mkdir(parents=True)
        (left / "excerpts").write_bytes(b"half")
        (left.parent / ".decided.fresh").mkdir()
        values = {"least": 0} if name == "sentences" else {}
        assert run_block(name, values, tasks, tmp_path / "b", order=[4, 3, 0, 2, 1, 3]) == whole
        assert not left.exists()
        for folder in ("a", "b"):
            (tmp_path / folder).rename(tmp_path / f"{folder}-{name}")
