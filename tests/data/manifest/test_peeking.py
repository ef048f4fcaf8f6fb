"""Columns that a manifest leaves out are recognised by the first records of its files, or asked for in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.peeking import MOST_CHARACTERS, MOST_RECORDS, peek
from common.data.manifest.readers import Record, SourceFile
from common.data.manifest.revisions import Revisions
from common.data.manifest.schema import Source
from common.errors import ConfigError, DataError
from tests.data.manifest.manifests import CPT, EXAM, load, problems, write_rows
from tests.data.manifest.recognised import ASKED, FIRST, LAST, OPENAI, SHAREGPT, source


def test_what_is_recognised_is_the_same_as_what_is_named(folder: Path) -> None:
    write_rows(folder / "chats.jsonl", [{"conversations": SHAREGPT, "id": number} for number in range(3)])
    chats = {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"}
    found = load(folder, CPT, chats)
    named = load(folder, CPT | {"columns": {"text": "text"}}, chats | {"columns": {"messages": "conversations"}})
    for role in ("cpt", "sft"):
        assert found.identity([role]) == named.identity([role])
    assert found.identity(["sft"])[0]["columns"] == {"messages": "conversations"}
    assert [row["messages"] for row in found.rows("sft")] == [[FIRST, LAST]] * 3
    assert found.shapes() == {
        "texts": "text (text); not read: body",
        "chats": "ShareGPT conversations (messages: conversations); not read: id",
    }
    assert found.conversations("sft") == {"chats": True}


def test_what_fits_nothing_is_one_line(folder: Path) -> None:
    write_rows(folder / "chats.jsonl", [{"title": "x", "note": "y"}])
    text = problems(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"})
    assert text.endswith(
        "source 'chats': chats.jsonl: what role sft needs is not clear from its columns (title, note): none is the "
        "question. Write columns: {messages: …} or columns: {question: …, answer: …}."
    )
    assert len(text.splitlines()) == 1


def test_what_is_rare_is_looked_for_in_more_than_one_record(folder: Path) -> None:
    plain = {"instruction": "Why?", "output": "So."}
    write_rows(folder / "chats.jsonl", [plain] * 40 + [plain | {"system": "Be brief."}])
    corpus = load(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"})
    assert corpus.identity(["sft"])[0]["columns"]["system"] == "system"
    assert len(list(corpus.rows("sft"))) == 41


def test_columns_that_the_first_hundred_records_lack_are_read(folder: Path) -> None:
    plain = {"instruction": "Why?", "output": "So."}
    late = {"instruction": "Why?", "input": "It rains.", "system": "Be brief.", "output": "So.", "history": []}
    write_rows(folder / "chats.jsonl", [plain] * 200 + [late, plain | {"context_2": "Lost."}])
    chats = {"id": "chats", "role": "sft", "path": "chats.jsonl", "licence": "mit"}
    corpus = load(folder, CPT, chats)
    messages = [row["messages"] for row in corpus.rows("sft")][200]
    assert [turn["content"] for turn in messages] == ["Be brief.", "Why?\n\nIt rains.", "So."]
    assert corpus.counts("sft")["chats"].changed == {"'context_2' not read, a column that the first rows lack": 1}
    columns = corpus.identity(["sft"])[0]["columns"]
    told = "context: input, system, history"
    assert told in corpus.shapes()["chats"]
    # What is printed may be written out.
    assert load(folder, CPT, chats | {"columns": columns}).identity(["sft"]) == corpus.identity(["sft"])


def test_a_fifth_choice_that_the_first_hundred_records_lack(folder: Path) -> None:
    asked = {"question": "Which?", "A": "a", "B": "b1", "C": "c1", "D": "d1", "answer": "B"}
    write_rows(
        folder / "exam.jsonl",
        [asked | {"answer": "ABCD"[n % 4]} for n in range(120)] + [asked | {"E": "e1", "answer": "E"}],
    )
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    corpus = load(folder, CPT, exam)
    last = list(corpus.rows("questions_domain"))[-1]
    assert (last["choices"][-1], last["answer"]) == ("e1", 4)
    named = load(folder, CPT, exam | {"columns": corpus.identity(["questions_domain"])[0]["columns"]})
    assert named.identity(["questions_domain"]) == corpus.identity(["questions_domain"])


def test_a_table_without_a_header_is_told(folder: Path) -> None:
    (folder / "exam.csv").write_text("What is one and one?,0,1,2,3,C\nWhat is two and two?,1,2,3,4,D\n")
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.csv", "licence": "mit"}
    hint = "Its first line looks like a row: name the columns with header: [question, A, B, …]"
    columns = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": "k"}
    assert hint in problems(folder, CPT, exam)
    assert hint in problems(folder, CPT, exam | {"columns": columns})
    (folder / "exam.csv").write_text("What is one and one?,2,2,3,4,A\n" * 3)
    assert "if it is a row, name the columns with header:" in problems(folder, CPT, exam)
    named = exam | {"header": ["question", "A", "B", "C", "D", "answer"]}
    (folder / "exam.csv").write_text("What is one and one?,0,1,2,3,C\nWhat is two and two?,1,2,3,4,D\n")
    assert [row["answer"] for row in load(folder, CPT, named).rows("questions_domain")] == [2, 3]


def test_a_header_with_abbreviations_is_no_row(folder: Path) -> None:
    source = {"id": "qa", "role": "cpt", "path": "qa.csv", "licence": "mit", "form": "qa"}
    (folder / "qa.csv").write_text("Lfd. Nr.;Frage;Antwort;Länge (m)\n1;Wie lang?;Sehr.;12\n", "utf-8")
    text = problems(folder, CPT, source)
    assert "(Lfd. Nr., Frage, Antwort, Länge (m))" in text
    assert "looks like a row" not in text
    (folder / "qa.csv").write_text("Eins;Die Brücke ist sehr lang.\nZwei;Der Steg ist kurz.\n", "utf-8")
    assert "looks like a row" in problems(folder, CPT, source)


@pytest.mark.parametrize("title", ["Questions of 2024,,\n", "Questions of 2024\n", "Questions of 2024,\n"])
def test_a_title_above_the_header_is_told(folder: Path, title: str) -> None:
    rows = ["question,answer\nWhy?,So.\n", "question,answer,id\nWhy?,So.,1\n"][title.count(",") != 1]
    (folder / "chats.csv").write_text(title + rows)
    text = problems(folder, CPT, {"id": "chats", "role": "sft", "path": "chats.csv", "licence": "mit"})
    assert "title" in text
    assert "above the header" in text


def test_a_pair_whose_input_comes_late(folder: Path) -> None:
    pair = {"instruction": "Why?", "chosen": "So.", "rejected": "No."}
    write_rows(folder / "pairs.jsonl", [pair] * 120 + [pair | {"input": "It rains."}])
    corpus = load(folder, CPT, {"id": "pairs", "role": "preference", "path": "pairs.jsonl", "licence": "mit"})
    assert list(corpus.rows("preference"))[-1]["prompt"][0]["content"] == "Why?\n\nIt rains."


def test_few_conversations_are_looked_at_where_they_are_long(folder: Path) -> None:
    long = {"messages": [{"role": "user", "content": "Why? " * 10_000}, OPENAI[1]]}
    write_rows(folder / "chats.jsonl", [long] * MOST_RECORDS)
    read_so_far: list[float] = []
    file = SourceFile(folder / "chats.jsonl", "chats.jsonl", read_so_far.append)
    assert peek(source("sft", path="chats.jsonl"), [file]).source.columns == {"messages": "messages"}
    assert len(read_so_far) < MOST_RECORDS - 10
    assert read_so_far[-1] == pytest.approx(MOST_CHARACTERS, rel=0.05)


def test_a_recognised_exam_needs_its_side(folder: Path) -> None:
    exam = {key: value for key, value in EXAM.items() if key not in ("side", "columns", "choices")}
    write_rows(folder / "exam.jsonl", [ASKED, ASKED | {"answer": 0}])
    assert "taken for columns: {choices: choices, question: question, answer: answer}; but role eval needs side" in (
        problems(folder, CPT, exam)
    )


def test_a_misspelt_name_on_our_side(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown column name 'mesages' on our side\. Did you mean 'messages'"):
        load(folder, CPT | {"role": "sft", "columns": {"mesages": "m"}})


def test_a_data_set_of_the_hub_is_asked_only_where_columns_are_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(given: Source) -> Any:
        asked.append((given.id, given.revision))
        yield Record("o/n[train], row 1", {"conversations": SHAREGPT})

    monkeypatch.setattr("common.data.manifest.manifest.read_hub", read)
    monkeypatch.setattr(
        "common.data.manifest.manifest.Revisions.pin", lambda self, s: s.model_copy(update={"revision": "c"})
    )
    hub = {"id": "hub", "role": "sft", "hub": "o/n", "split": "train", "licence": "mit"}
    corpus = load(folder, CPT, hub, hub | {"id": "named", "split": "other", "columns": {"messages": "m"}})
    assert asked == [("hub", "c")]
    assert corpus.shapes()["hub"] == "ShareGPT conversations (messages: conversations)"
    assert corpus.shapes()["named"] == "chat conversations (messages: m)"


def test_a_data_set_of_the_hub_that_cannot_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(given: Source) -> Any:
        raise DataError(f"Source '{given.id}': the Hub could not be reached.")

    monkeypatch.setattr("common.data.manifest.manifest.read_hub", read)
    monkeypatch.setattr(Revisions, "pin", lambda self, given: given)
    hub = {"id": "hub", "role": "sft", "hub": "o/n", "split": "train", "licence": "mit"}
    text = problems(folder, CPT, hub)
    assert "source 'hub': the Hub could not be reached; with columns named, it is not asked before a run." in text


def test_a_text_file_without_text_gives_no_row_among_others(folder: Path) -> None:
    """Of other formats an empty file is a problem, as a shard that was not copied to its end."""
    for name, text in {"a.txt": "One.\n", "b.txt": "", "c.txt": " \n\n", "d.md": "Two.\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    texts = {"id": "files", "role": "cpt", "path": ["*.txt", "*.md"], "licence": "mit"}
    corpus = load(folder, texts)
    assert [row["text"] for row in corpus.rows("cpt")] == ["One.", "Two."]
    assert corpus.findings()["files"] == [f"{name}.txt has no text, and gives no row" for name in "bc"]
    assert "b.txt is empty. Fill it, copy it again, or leave it out of path" in problems(
        folder, texts | {"path": "b.txt"}
    )
    (folder / "e.jsonl").write_text("", encoding="utf-8")
    assert "e.jsonl is empty." in problems(folder, CPT | {"path": ["texts.jsonl", "e.jsonl"]})
