"""The rows of a manifest: parts, weights, limits, counts and identity."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from common.data.corpus import CORPUS_ROLES, Corpus
from common.errors import DataError
from tests.data.manifest.manifests import CPT, load, write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "texts.jsonl", [{"text": f"Text {i}."} for i in range(200)])
    return tmp_path


def numbers(corpus: Corpus, role: str = "cpt") -> list[int]:
    return [int(row["text"].split()[1].rstrip(".")) for row in corpus.rows(role)]


def test_rows_and_their_source(folder: Path) -> None:
    corpus = load(folder, CPT)
    assert next(corpus.rows("cpt")) == {"text": "Text 0.", "source": "texts"}
    assert numbers(corpus) == numbers(corpus) == list(range(200))


@pytest.mark.parametrize(
    ("weight", "limit", "expected"),
    [
        (2, 3, [0, 1, 2, 0, 1, 2]),
        (0.5, 6, [1, 3, 5]),
        (1.5, 4, [0, 1, 2, 3, 1, 3]),
        (0.1, 30, [9, 19, 29]),
    ],
)
def test_weight_and_limit(folder: Path, weight: float, limit: int, expected: list[int]) -> None:
    corpus = load(folder, CPT | {"weight": weight, "limit": limit})
    assert numbers(corpus) == expected
    count = corpus.counts("cpt")["texts"]
    assert (count.rows_in, count.rows_out) == (len(expected), len(expected))


def test_heldout_is_a_stable_share_that_training_never_sees(folder: Path) -> None:
    corpus = load(
        folder,
        CPT | {"heldout": 0.2, "weight": 2, "limit": 150},
        CPT | {"id": "base", "role": "pretrain", "heldout": 0.2},
        CPT | {"id": "again", "role": "replay", "heldout": 0.2},
    )
    held = numbers(corpus, "text_domain")
    assert 15 <= len(held) <= 45
    assert sorted(held + numbers(corpus)[: 150 - len(held)]) == list(range(150))
    general = numbers(corpus, "text_general")  # held out by two sources, given once
    assert len(general) == len(set(general))
    assert set(held) <= set(general)
    for role in ("cpt", "pretrain", "replay"):
        assert not set(general) & set(numbers(corpus, role))
    again = corpus.counts("text_general")["again"]
    assert (again.rows_out, again.dropped) == (0, {"duplicate": len(general)})


def test_held_out_documents_are_whole(tmp_path: Path) -> None:
    write_rows(tmp_path / "texts.jsonl", [{"text": f"Text {i}.\n" * 400} for i in range(40)])
    corpus = load(tmp_path, CPT | {"cut": "line", "heldout": 0.2})
    train, held = set(numbers(corpus)), set(numbers(corpus, "text_domain"))
    assert len(train) + len(held) == 40
    assert train
    assert held
    assert len(numbers(corpus)) > len(train)


def test_heldout_preferences_keep_one_prompt_on_one_side(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [{"p": f"Q{i // 2}?", "c": f"c{i}", "r": f"r{i}"} for i in range(200)])
    columns = {"prompt": "p", "chosen": "c", "rejected": "r"}
    facts = {"id": "p", "role": "preference", "path": "p.jsonl", "columns": columns, "licence": "mit", "heldout": 0.2}
    corpus = load(tmp_path, facts)
    roles = ("preference", "preference_heldout")
    train, held = ([row["prompt"][0]["content"] for row in corpus.rows(role)] for role in roles)
    assert len(train) + len(held) == 200
    assert 20 <= len(held) <= 60
    assert not set(train) & set(held)


def test_eval_sources_serve_their_side(folder: Path) -> None:
    write_rows(folder / "exam.jsonl", [{"q": "Is it?", "a": "no"}])
    write_rows(folder / "pairs.jsonl", [{"p": "a?", "c": "b", "r": "c"}])
    (folder / "held.txt").write_text("One.")
    exam = {"role": "eval", "licence": "mit"}
    asked = {"path": "exam.jsonl", "columns": {"question": "q", "answer": "a"}, "choices": ["yes", "no"]}
    corpus = load(
        folder,
        CPT,
        exam | asked | {"id": "e", "side": "domain"},
        exam | {"id": "t", "side": "general", "path": "held.txt"},
        exam | {"id": "p", "path": "pairs.jsonl", "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}},
    )
    roles = set(CORPUS_ROLES) - {"pretrain", "sft", "preference"}
    sizes = {role: len(list(corpus.rows(role))) for role in roles}
    expected = {"cpt": 200, "questions_domain": 1, "text_general": 1, "preference_heldout": 1}
    assert {role: size for role, size in sizes.items() if size} == expected


def test_prompts_and_written_exams_in_a_language(folder: Path) -> None:
    (folder / "exam.tsv").write_text("Ngapi?\t18\nNgapi tena?\tkumi\n")
    write_rows(folder / "train.jsonl", [{"q": "How many?", "a": "3 * 6 #### 18"}])
    prompts = {"path": "train.jsonl", "columns": {"question": "q", "answer": "a"}, "final": "####"}
    asked = {"path": "exam.tsv", "header": ["question", "answer"], "match": "number", "language": "sw"}
    columns = {"question": "question", "answer": "answer"}
    exam = {"id": "e", "role": "eval", "side": "domain", "licence": "mit", "columns": columns}
    corpus = load(folder, CPT, CPT | prompts | {"id": "p", "role": "prompts"}, exam | asked)
    assert list(corpus.rows("prompts")) == [
        {"prompt": [{"role": "user", "content": "How many?"}], "answer": "18", "source": "p"}
    ]
    assert list(corpus.rows("questions_domain")) == [
        {
            "id": "e:1", "question": "Ngapi?", "answers": ["18"], "match": "number", "final": None,
            "language": "sw", "source": "e",
        }
    ]  # fmt: skip
    assert corpus.counts("questions_domain")["e"].dropped == {"no number in answer": 1}
    assert list(load(folder, CPT).rows("prompts")) == []


def test_replay_mixes_text_and_chat(folder: Path) -> None:
    write_rows(folder / "chat.jsonl", [{"q": "a?", "a": "b"}])
    chat = {"path": "chat.jsonl", "columns": {"question": "q", "answer": "a"}}
    corpus = load(folder, CPT | {"role": "replay", "limit": 1}, CPT | chat | {"id": "chat", "role": "replay"})
    assert [row.keys() - {"source"} for row in corpus.rows("replay")] == [{"text"}, {"messages"}]
    assert corpus.conversations("replay") == {"texts": False, "chat": True}


def test_unusable_rows_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_rows(folder / "texts.jsonl", [{"text": "a"}, {"text": ""}, {"text": 5}, {"other": 1}, {"text": "b"}])
    corpus = load(folder, CPT)
    with caplog.at_level(logging.INFO):
        assert len(list(corpus.rows("cpt"))) == 2
    count = corpus.counts("cpt")["texts"]
    assert (count.rows_in, count.rows_out, count.dropped) == (5, 2, {"empty text": 2, "text is no text": 1})
    assert "source texts: 2 rows for cpt; dropped: empty text 2, text is no text 1" in caplog.text


@pytest.mark.parametrize(("weight", "dropped"), [(1, 2), (2, 4), (0.5, 1)])
def test_a_weight_keeps_the_share_of_rows_dropped(folder: Path, weight: float, dropped: int) -> None:
    write_rows(folder / "texts.jsonl", [{"text": text} for text in ("a", "", "b", "", "c", "d")])
    corpus = load(folder, CPT | {"weight": weight})
    assert len(list(corpus.rows("cpt"))) == 4 * weight
    count = corpus.counts("cpt")["texts"]
    assert (count.rows_in, count.rows_out, count.num_dropped) == (6 * weight, 4 * weight, dropped)


def test_a_source_without_a_usable_row(folder: Path) -> None:
    write_rows(folder / "texts.jsonl", [{"text": ""}])
    with pytest.raises(DataError, match=r"Source 'texts' gives no usable row for cpt: 1 read, dropped: empty text 1"):
        list(load(folder, CPT).rows("cpt"))


def test_a_heldout_share_that_keeps_nothing_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not list(load(folder, CPT | {"heldout": 1e-9}).rows("text_domain"))
    assert "source texts: heldout 1e-09 keeps no row" in caplog.text


def test_roles_that_are_not_there(folder: Path) -> None:
    corpus = load(folder, CPT)
    with pytest.raises(DataError, match=r"'T' has no enabled source with rows for sft.*role: sft"):
        corpus.rows("sft")
    with pytest.raises(DataError, match=r"no rows for 'questions_domian'. Did you mean 'questions_domain'"):
        corpus.rows("questions_domian")
    assert list(corpus.rows("replay")) == []


def test_identity_tells_what_changes_the_rows_and_no_paths(folder: Path) -> None:
    first = load(folder, CPT).identity(["cpt"])
    assert json.loads(json.dumps(first)) == first
    assert str(folder) not in json.dumps(first)
    assert "texts.jsonl" not in json.dumps(first)
    assert load(folder, CPT | {"licence": "apache-2.0", "note": "n"}).identity(["cpt"]) == first
    assert load(folder, CPT).identity(["replay"]) == []
    for change in ({"weight": 2}, {"limit": 9}, {"heldout": 0.1}, {"unit": "line"}):
        assert load(folder, CPT | change).identity(["cpt"]) != first
    os.rename(folder / "texts.jsonl", folder / "moved.jsonl")
    moved = CPT | {"path": "moved.jsonl"}
    assert load(folder, moved).identity(["cpt"]) == first
    with (folder / "moved.jsonl").open("a") as stream:
        stream.write('{"text": "one more"}\n')
    assert load(folder, moved).identity(["cpt"]) != first


@pytest.mark.parametrize(
    "change",
    [
        {"skip": 1}, {"take": 9}, {"every": 2}, {"where": {"text": "a"}}, {"each": "text"}, {"cut": "line"},
        {"longest": 9}, {"language": "de"}, {"columns": {"text": ["text"]}}, {"header": ["text"]},
    ],
)  # fmt: skip
def test_identity_holds_each_key_that_changes_rows(folder: Path, change: dict[str, Any]) -> None:
    (folder / "texts.csv").write_text("text\na\n")
    write_rows(folder / "texts.jsonl", [{"text": ["a"] if "each" in change else "a"}] * 5)
    source = CPT | ({"path": "texts.csv"} if "header" in change else {})
    before, after = (load(folder, source | more).identity(["cpt"])[0] for more in ({}, change))
    assert before != after
    # Defaults are left out, so that a new key changes no fingerprint.
    assert set(before) == {"id", "role", "columns", "files", "rows", "part"}


def test_identity_of_an_exam_with_written_answers(folder: Path) -> None:
    write_rows(folder / "exam.jsonl", [{"q": "?", "a": "1 #### 2"}])
    columns = {"context": "q", "answer": "a"}
    exam = {"id": "e", "role": "eval", "side": "domain", "path": "exam.jsonl", "columns": columns, "licence": "mit"}
    exam |= {"match": "number", "question": "How many?", "final": "####"}
    (facts,) = load(folder, CPT, exam).identity(["questions_domain"])
    assert facts.items() >= {"match": "number", "question": "How many?", "final": "####"}.items()


def test_identity_of_a_hub_source(folder: Path) -> None:
    hub = {"id": "h", "role": "cpt", "hub": "o/n", "split": "train", "revision": "abc", "licence": "mit"}
    (facts,) = load(folder, hub).identity(["cpt"])
    expected = {"hub": "o/n", "split": "train", "revision": "abc", "columns": {"text": "text"}}
    assert facts.items() >= expected.items()
    assert load(folder, hub).sources() == [
        {"id": "h", "role": "cpt", "title": "o/n", "licence": "mit", "revision": "abc", "rows": None}
    ]


def test_sources_for_the_card(folder: Path) -> None:
    corpus = load(folder, CPT | {"weight": 2}, CPT | {"id": "off", "enabled": False})
    (before,) = corpus.sources()
    assert before["rows"] is None
    list(corpus.rows("cpt"))
    (after,) = corpus.sources()
    assert (after["id"], after["rows"], len(after["digest"])) == ("texts", 200, 64)


def test_columns_of_a_hub_source_are_checked_at_its_first_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = folder / "repository"
    repository.mkdir()
    write_rows(repository / "train.jsonl", [{"body": "x"}])
    hub = {"id": "h", "role": "cpt", "hub": str(repository), "split": "train", "licence": "mit"}
    with pytest.raises(DataError, match=r"Source 'h': .*repository has no column 'txt' \(for text\)\. It has: body"):
        list(load(folder, hub | {"columns": {"text": "txt"}}).rows("cpt"))
    assert list(load(folder, hub | {"columns": {"text": "body"}}).rows("cpt")) == [{"text": "x", "source": "h"}]


def test_changes_of_rows_are_counted(folder: Path) -> None:
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
    write_rows(folder / "texts.jsonl", [{"m": turns}, {"m": [*turns, turns[0]]}, {"m": turns[:1]}])
    chats = CPT | {"role": "sft", "columns": {"messages": "m"}}
    strict, fixed = load(folder, chats), load(folder, chats | {"turns": "fix"})
    assert [row["messages"] for row in strict.rows("sft")] == [turns]
    assert strict.counts("sft")["texts"].dropped == {"ends in a user turn": 2}
    assert [row["messages"] for row in fixed.rows("sft")] == [turns, turns]
    count = fixed.counts("sft")["texts"]
    assert count.changed == {"turns after the last answer left out": 1}
    assert count.dropped == {"ends in a user turn": 1}
    assert strict.identity(["sft"]) != fixed.identity(["sft"])


def test_conversations_out_of_order_alone_say_what_to_do(folder: Path) -> None:
    write_rows(folder / "texts.jsonl", [{"m": [{"role": "user", "content": "Hi?"}]}])
    message = r"1 read, dropped: ends in a user turn 1\. Repair the conversations, or set turns: fix in the source\."
    with pytest.raises(DataError, match=message):
        load(folder, CPT | {"role": "sft", "columns": {"messages": "m"}}).check_rows(["sft"])


def test_a_row_that_cannot_be_used_is_counted_once_where_rows_are_held_out(folder: Path) -> None:
    """Nothing tells whether it would be held out; as one of both parts it filled the smaller one's limit."""
    write_rows(folder / "texts.jsonl", [{"text": f"Text {i}." if i % 10 else 5} for i in range(200)])
    corpus = load(folder, CPT | {"heldout": 0.1})
    train, held = len(numbers(corpus)), len(numbers(corpus, "text_domain"))
    assert train + held == 180
    counts = [corpus.counts(role)["texts"] for role in ("cpt", "text_domain")]
    assert [(count.rows_in, count.num_dropped) for count in counts] == [(train + 20, 20), (held, 0)]
