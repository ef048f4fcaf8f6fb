"""No manifest may train on its exam, or on what another source holds out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.manifest.manifests import CPT, EXAM, HUB, load, problems, write_rows


def test_an_exam_is_not_trained_on(folder: Path) -> None:
    train = CPT | {"path": "exam.jsonl", "columns": {"text": "question"}}
    message = "source 'texts': trains on exam.jsonl, which source 'exam' uses as an exam. Give one of them another file"
    assert message in problems(folder, train, EXAM)
    load(folder, train, EXAM | {"enabled": False})
    shutil.copy(folder / "exam.jsonl", folder / "copy.jsonl")
    assert "trains on copy.jsonl (a copy of exam.jsonl)" in problems(folder, train | {"path": "copy.jsonl"}, EXAM)


@pytest.mark.parametrize(
    ("train", "exam", "leaks"),
    [
        ({"split": "test"}, {"split": "test"}, True),
        ({"split": "validation", "config": "a"}, {"split": "validation", "config": "b"}, True),
        ({"split": "test[:10]"}, {"split": "test"}, True),
        ({"split": "train"}, {"split": "train"}, True),
        ({"split": "train", "data_files": "a"}, {"split": "train"}, True),
        ({"split": "train", "data_files": "a"}, {"split": "train", "data_files": "b"}, False),
        ({"split": "train", "config": "a"}, {"split": "train", "config": "b"}, False),
        ({"split": "train"}, {"split": "test"}, False),
        ({"split": "test"}, {"split": "test", "hub": "o/other"}, False),
    ],
)
def test_an_exam_of_the_hub_is_not_trained_on(folder: Path, train: Any, exam: Any, leaks: bool) -> None:
    sources = (HUB | train, EXAM | {"path": None, "hub": "o/n"} | exam)
    if leaks:
        assert "of o/n, which source 'exam' uses as an exam" in problems(folder, *sources)
    else:
        load(folder, *sources)


def test_held_out_rows_are_not_trained_on_elsewhere(folder: Path) -> None:
    held, replay = CPT | {"heldout": 0.2}, CPT | {"id": "again", "role": "replay"}
    message = "source 'again': trains on texts.jsonl, of which source 'texts' holds rows out. Give both the same"
    assert message in problems(folder, held, replay)
    load(folder, held, replay | {"heldout": 0.2})
    assert "holds rows out" in problems(folder, held, replay | {"heldout": 0.2, "columns": {"text": "body"}})


def test_prompts_are_kept_from_the_exam_like_all_training(folder: Path) -> None:
    columns = {"question": "question", "answer": "answer"}
    train = CPT | {"role": "prompts", "path": "exam.jsonl", "columns": columns}
    assert "source 'texts': trains on exam.jsonl, which source 'exam' uses as an exam" in problems(folder, train, EXAM)


@pytest.mark.parametrize(
    ("train", "exam", "leaks"),
    [
        ({"where": {"kind": "a"}}, {"where": {"kind": ["b", "c"]}}, False),
        ({"where": {"kind": ["a", "b"]}}, {"where": {"kind": "b"}}, True),
        ({"where": {"kind": "a"}}, {"where": {"other": "b"}}, True),
        ({"where": {"kind": "a"}}, {}, True),
        ({"skip": 3}, {"take": 3}, False),
        ({"take": 2}, {"skip": 2}, False),
        ({"skip": 1, "take": 1}, {"skip": 2}, False),
        ({"skip": 2}, {"take": 3}, True),
        ({"skip": 3}, {}, True),
    ],
)
@pytest.mark.parametrize("on_hub", [False, True])
def test_parts_of_one_file_are_told_apart(folder: Path, train: Any, exam: Any, leaks: bool, on_hub: bool) -> None:
    rows = [{"question": f"Is it {i}?", "answer": "no", "kind": "ab"[i % 2], "other": "b"} for i in range(6)]
    write_rows(folder / "exam.jsonl", [*rows, rows[0] | {"kind": "c"}])
    place = {"path": None, "hub": "o/n", "split": "test"} if on_hub else {"path": "exam.jsonl"}
    sources = (CPT | place | {"columns": {"text": "question"}} | train, EXAM | place | exam)
    if leaks:
        assert "uses as an exam" in problems(folder, *sources)
    else:
        load(folder, *sources)


def test_places_are_compared_within_the_same_files_of_the_hub_only(folder: Path) -> None:
    train = HUB | {"split": "test", "config": "a", "skip": 3}
    exam = EXAM | {"path": None, "hub": "o/n", "split": "test", "config": "b", "take": 3}
    assert "split 'test' of o/n, which source 'exam' uses as an exam" in problems(folder, train, exam)


def test_a_part_is_not_held_out_by_another(folder: Path) -> None:
    load(folder, CPT | {"heldout": 0.2, "take": 10}, CPT | {"id": "again", "role": "replay", "skip": 10})


TABLE = "kind,text\n" + "".join(f"{'ab'[i % 2]},Text {i}\n" for i in range(6))
NAMED = {"path": "t.csv", "columns": {"text": "text"}}


@pytest.mark.parametrize(
    ("train", "exam", "leaks"),
    [
        ({"path": "t.txt", "unit": "line", "take": 3}, {"path": "t.txt", "unit": "line", "skip": 3}, False),
        ({"path": "t.txt", "unit": "paragraph", "take": 3}, {"path": "t.txt", "unit": "line", "skip": 3}, True),
        ({"path": "t.md", "unit": "line", "take": 3}, {"path": "t.txt", "unit": "line", "skip": 3}, True),
        (NAMED | {"take": 3}, NAMED | {"skip": 3}, False),
        (NAMED | {"take": 3, "header": ["kind", "text"]}, NAMED | {"skip": 3}, True),
        (NAMED | {"where": {"kind": "a"}}, NAMED | {"where": {"kind": "b"}}, False),
        (NAMED | {"where": {"kind": "a"}}, NAMED | {"where": {"kind": "Text 1"}, "header": ["text", "kind"]}, True),
        # These choose among records that are already counted, or take them apart.
        (NAMED | {"take": 3, "where": {"kind": "a"}}, NAMED | {"skip": 3}, False),
        (NAMED | {"take": 3, "cut": "line"}, NAMED | {"skip": 3}, False),
    ],
)
def test_places_are_compared_only_where_records_are_counted_alike(
    folder: Path, train: Any, exam: Any, leaks: bool
) -> None:
    for name in ("t.txt", "t.md", "t.csv"):
        (folder / name).write_text(TABLE)
    held = {"id": "exam", "role": "eval", "side": "domain", "licence": "mit"}
    if leaks:
        assert "which source 'exam' uses as an exam" in problems(folder, CPT | train, held | exam)
        return
    corpus = load(folder, CPT | train, held | exam)
    rows = [{row["text"] for row in corpus.rows(role)} for role in ("cpt", "text_domain")]
    assert all(rows)
    assert not rows[0] & rows[1]


def test_places_are_compared_whatever_list_is_taken_apart(folder: Path) -> None:
    write_rows(folder / "lists.jsonl", [{"texts": [f"{i} a", f"{i} b"], "name": f"Name {i}"} for i in range(6)])
    train = CPT | {"path": "lists.jsonl", "each": "texts", "columns": {"text": "texts"}, "take": 3}
    exam = {"id": "exam", "role": "eval", "side": "domain", "licence": "mit", "path": "lists.jsonl", "skip": 3}
    corpus = load(folder, train, exam | {"columns": {"text": ["name", "texts"]}})
    assert [row["text"] for row in corpus.rows("cpt")][-1] == "2 b"
    assert next(corpus.rows("text_domain"))["text"].startswith("Name 3")
