"""Columns that a manifest leaves out are recognised by the first records, where names and values leave one reading."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.data.manifest.fields import Fields, Unclear
from tests.data.manifest.recognised import ASKED, FIRST, LAST, OPENAI, SHAREGPT, row_of, told


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"id": 1, "conversations": SHAREGPT, "system": "", "tools": "[]"}, {"messages": "conversations"}),
        ({"messages": OPENAI, "tools": []}, {"messages": "messages"}),
        ({"prompt": "Why?", "messages": OPENAI, "chosen": OPENAI, "rejected": OPENAI}, {"messages": "messages"}),
        ({"history_of_talk": OPENAI}, {"messages": "history_of_talk"}),
        ({"conversation": [{"human": "Why?", "assistant": "So."}]}, {"messages": "conversation"}),
        ({"conversation": [{"input": "Why?", "output": "So."}]}, {"messages": "conversation"}),
        ({"messages": json.dumps(OPENAI)}, {"messages": "messages"}),
        ({"messages": str(OPENAI)}, {"messages": "messages"}),  # as pandas writes lists into a csv file
        ({"prompt": [FIRST], "completion": [LAST]}, {"prompt": "prompt", "completion": "completion"}),
        ({"prompt": "Why?", "completion": "So."}, {"prompt": "prompt", "completion": "completion"}),
        ({"question": "Why?", "answer": "So.", "id": 5}, {"question": "question", "answer": "answer"}),
        ({"q": "Why?", "a": "So."}, {"question": "q", "answer": "a"}),
        ({"Question": "Why?", "Response": "So."}, {"question": "Question", "answer": "Response"}),
        ({"input": "Why?", "output": "So."}, {"question": "input", "answer": "output"}),
    ],
)
def test_conversations(record: dict[str, Any], columns: dict[str, str]) -> None:
    assert told("sft", record) == columns
    assert row_of("sft", record)["messages"] == [FIRST, LAST]
    assert told("replay", record) == columns


def test_alpaca_with_its_input_system_text_and_history() -> None:
    plain = {"instruction": "Why?", "input": "", "output": "So."}
    whole = {**plain, "input": "It rains.", "system": "Be brief.", "history": [["Hi?", "Yes."]]}
    assert told("sft", plain) == {"question": "instruction", "context": "input", "answer": "output"}
    assert row_of("sft", plain)["messages"] == [FIRST, LAST]
    assert told("sft", plain, whole).keys() == {"question", "context", "answer", "system", "history"}
    roles = ("system", "user", "assistant", "user", "assistant")
    contents = ("Be brief.", "Hi?", "Yes.", "Why?\n\nIt rains.", "So.")
    expected = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    assert row_of("sft", whole)["messages"] == expected


def test_dolly_and_orca() -> None:
    dolly = {"instruction": "Why?", "context": "It rains.", "response": "So.", "category": "qa"}
    assert told("sft", dolly) == {"question": "instruction", "context": "context", "answer": "response"}
    orca = {"id": "1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."}
    assert told("sft", orca) == {"question": "question", "answer": "response", "system": "system_prompt"}


@pytest.mark.parametrize(
    ("record", "doubt"),
    [
        ({"problem": "1+1", "solution": "It is 2.", "answer": "2"}, "'answer' and 'solution' could be the answer"),
        (
            {"question": "Why?", "prompt": "Answer: Why?", "answer": "So."},
            "'question' and 'prompt' could be the question",
        ),
        ({"one": OPENAI, "two": OPENAI}, "'one' and 'two' hold conversations"),
        ({"question": "Why?", "note": "x"}, "none is the answer"),
        ({"title": "x"}, "none is the question"),
        ({"instruction": "Why?", "instances": [{"input": "", "output": "So."}]}, "none is the answer"),
    ],
)
def test_what_has_two_readings_is_asked(record: dict[str, Any], doubt: str) -> None:
    with pytest.raises(Unclear, match=doubt):
        told("sft", record)


def test_columns_that_are_given_stay() -> None:
    record = {"problem": "1+1", "solution": "It is 2.", "answer": "2", "system": "Be brief."}
    assert told("sft", record, columns={"answer": "solution"}) == {
        "question": "problem", "answer": "solution", "system": "system",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"text": "x", "url": "y"}, {"text": "text"}),
        ({"content": "x", "url": "y"}, {"text": "content"}),
        ({"sentences": "x"}, {"text": "sentences"}),
    ],
)
def test_texts(record: dict[str, Any], columns: dict[str, str]) -> None:
    for role in ("cpt", "pretrain", "replay", "eval"):
        assert told(role, record) == columns, role


def test_texts_that_are_not_clear() -> None:
    with pytest.raises(Unclear, match="'content' and 'body' could be the text"):
        told("cpt", {"content": "x", "body": "y"})
    assert told("replay", {"text": "<|user|>", "messages": OPENAI}) == {"messages": "messages"}


def test_prompts() -> None:
    assert told("prompts", {"prompt": "1+1?", "ground_truth": 2}) == {"question": "prompt", "answer": "ground_truth"}
    assert told("prompts", {"question": "1+1?", "answer": "So it is.\n#### 2"}) == {
        "columns": {"question": "question", "answer": "answer"}, "final": "####",
    }  # fmt: skip
    assert row_of("prompts", {"prompt": [FIRST], "solution": "So."}) == {"prompt": [FIRST], "answer": "So."}
    assert told("prompts", {"instruction": "Write.", "other": 1}) == {"question": "instruction"}
    with pytest.raises(Unclear, match="'answer' and 'solution' could be the answer"):
        told("prompts", {"problem": "1+1?", "answer": "2", "solution": "It is 2."})


def test_an_answer_may_be_json_as_text() -> None:
    record = {"instruction": "Which?", "input": '{"b": 2}', "output": '{"a": 1}'}
    assert told("sft", record) == {"question": "instruction", "context": "input", "answer": "output"}
    assert row_of("sft", record)["messages"][1]["content"] == '{"a": 1}'
    completed = {"prompt": "Which?", "completion": '{"a": 1}'}
    assert told("sft", completed) == {name: name for name in completed}
    labelled = completed | {"label": True}
    assert told("preference", labelled) == {name: name for name in labelled}
    with pytest.raises(Unclear, match="none is the question"):  # messages are no text
        told("sft", {"prompt": json.dumps([FIRST]), "response": "So."})


def test_all_that_a_question_is_about_is_read() -> None:
    record = {"instruction": "Why?", "input": "It rains.", "context": "In May.", "output": "So."}
    assert told("sft", record)["context"] == ("input", "context")
    assert row_of("sft", record)["messages"][0]["content"] == "Why?\n\nIt rains.\n\nIn May."
    exam = ASKED | {"article": "It rains.", "passage": "In May.", "answer": 0}
    assert told("eval", exam)["context"] == ("passage", "article")


def test_an_input_beside_a_prompt_is_asked_about() -> None:
    with pytest.raises(Unclear, match="'prompt' and 'input' could be the question"):
        told("prompts", {"prompt": "Why?", "input": "It rains.", "source": "x"})


def test_chat_and_prompts_with_choices() -> None:
    asked = "Which?\nA. one\nB. two\nC. three"
    assert row_of("sft", ASKED, ASKED | {"answer": 0})["messages"][0]["content"] == asked
    assert row_of("prompts", ASKED, ASKED | {"answer": 0})["answer"] == "B. two"


def test_items_of_a_list() -> None:
    record = {"title": "x", "qas": [{"question": "Why?", "answer": "So."}]}
    item = record | {"qas": record["qas"][0]}
    assert told("sft", item, each="qas") == {"question": "qas.question", "answer": "qas.answer"}


def test_a_column_of_json_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def parse(value: Any) -> Any:
        asked.append(value)
        return json.loads(value)

    monkeypatch.setattr("common.data.manifest.fields.parsed", parse)
    fields = Fields([{"a": "[1]"}, {"a": "[2]"}])
    assert fields.holds("a", list)
    assert fields.without(["b"]).rows("a") == [[1], [2]]
    assert asked == ["[1]", "[2]"]


SIDES = {"source": "Hi.", "target": "Jambo."}
WOVEN = {"interlinear": {"languages": ["en", "sw"]}}


@pytest.mark.parametrize(
    ("form", "record", "columns"),
    [
        ("qa", {"question": "Why?", "answer": "So."}, {"question": "question", "answer": "answer"}),
        ("qa", {"conversations": SHAREGPT}, {"messages": "conversations"}),
        (
            "qa", {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
            {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        (WOVEN, SIDES, {"source": "source", "target": "target"}),
        (WOVEN, {"src": "Hi.", "tgt": "Jambo."}, {"source": "src", "target": "tgt"}),
        (WOVEN, {"sw": "Jambo.", "en": "Hi.", "de": "Hallo."}, {"source": "en", "target": "sw"}),
        (
            WOVEN, {"translation": {"sw": "Jambo.", "en": "Hi."}, "id": 1},
            {"source": "translation.en", "target": "translation.sw"},
        ),
    ],
)  # fmt: skip
def test_a_form_says_what_is_looked_for(form: Any, record: dict[str, Any], columns: dict[str, str]) -> None:
    assert told("cpt", record, form=form) == columns
    text = row_of("cpt", record, form=form)["text"]
    assert text == ("Why?\n\nSo." if form == "qa" else "<en-sw> Hi.\nJambo.")


def test_translations_that_are_not_there() -> None:
    with pytest.raises(Unclear, match="'translation' holds en, de, and the form asks for en and sw"):
        told("cpt", {"translation": {"en": "Hi.", "de": "Hallo."}}, form=WOVEN)
    with pytest.raises(Unclear, match="none are a text and its translation"):
        told("cpt", {"text": "Hi."}, form=WOVEN)
