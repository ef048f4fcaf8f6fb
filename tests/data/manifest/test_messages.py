"""Messages of any notation become those of our rows; nothing of them is lost without a reason or a count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.data.manifest.messages import is_conversation, read_messages, truth
from common.data.manifest.values import UnusableRow

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Yes."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
RESULT = {"role": "tool", "content": "2"}


def read(*messages: Any) -> list[dict[str, Any]]:
    found, changes = read_counted(*messages)
    assert changes == []
    return found


def read_counted(*messages: Any) -> tuple[list[dict[str, Any]], list[str]]:
    changes: list[str] = []
    return read_messages(list(messages), "messages", changes), changes


@pytest.mark.parametrize("first", ["human", "user", "Human", "prompter"])
@pytest.mark.parametrize("second", ["gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot", "ASSISTANT"])
def test_speakers(first: str, second: str) -> None:
    pairs = [("from", "value"), ("role", "content"), ("role", "value"), ("speaker", "text"), ("from", "content")]
    for who, what in pairs:
        assert read({who: first, what: "Hi?"}, {who: second, what: "Yes."}) == [USER, ANSWER]


def test_speakers_of_langchain_and_of_chatgpt_exports() -> None:
    assert read({"type": "human", "content": "Hi?"}, {"type": "ai", "content": "Yes."}) == [USER, ANSWER]
    exported = [
        {"author": {"role": role, "metadata": {}}, "content": {"content_type": "text", "parts": [text]}, "weight": 1.0,
         "status": "finished_successfully"}
        for role, text in (("user", "Hi?"), ("assistant", "Yes."))
    ]  # fmt: skip
    assert is_conversation(exported)
    assert read(*exported) == [USER, ANSWER]
    assert not is_conversation([{"type": "text", "text": "Hi?"}])  # a part


def test_a_developer_speaks_as_system() -> None:
    found, changes = read_counted({"role": "developer", "content": "Be brief."}, USER, ANSWER)
    assert found[0] == {"role": "system", "content": "Be brief."}
    assert changes == ["developer turns read as system turns"]


def test_question_and_answer_in_one_item() -> None:
    assert read({"human": "Hi?", "assistant": "Yes."}) == [USER, ANSWER]
    system = {"role": "system", "content": "s"}
    assert read({"system": "s", "input": "Hi?", "output": "Yes."}, {"input": "Hi?", "output": "Yes."}) == [
        system, USER, ANSWER, USER, ANSWER,
    ]  # fmt: skip
    (_, answer) = read({"input": "Hi?", "output": "Yes.", "output_with_loss": False})
    assert answer == ANSWER | {"learn": False}


def test_an_instruction_in_one_item_comes_before_its_input() -> None:
    asked = {"role": "user", "content": "Sum.\n\n1 2"}
    assert read({"input": "1 2", "instruction": "Sum.", "output": "Yes."}) == [asked, ANSWER]
    assert read({"input": "", "instruction": "Hi?", "output": "Yes."}) == [USER, ANSWER]


@pytest.mark.parametrize("text", [json.dumps([USER, ANSWER]), str([USER, ANSWER])])
def test_messages_in_a_string(text: str) -> None:
    changes: list[str] = []
    assert read_messages(text, "messages", changes) == [USER, ANSWER]


def test_an_answer_in_json_is_an_answer() -> None:
    assert not is_conversation('{"question": "Who?", "answer": "Ada"}')
    assert not is_conversation('[{"question": "Who?", "answer": "Ada"}]')
    assert not is_conversation('[{"role": "admin", "text": "x"}]')
    assert is_conversation([{"question": "Who?", "answer": "Ada"}])


@pytest.mark.parametrize(
    "calling",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "add", "input": {"a": 1}}]},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"role": "tool_call", "content": '{"name": "add", "arguments": {"a": 1}}'},
    ],
)
@pytest.mark.parametrize(
    "result",
    [
        {"role": "tool", "content": "2"},
        {"role": "function", "content": "2"},
        {"from": "observation", "value": "2"},
        {"from": "function_response", "value": "2"},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "2"}]}]},
    ],
)
def test_tool_calls_and_their_results(calling: dict[str, Any], result: dict[str, Any]) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert read(USER, calling, result, ANSWER) == [USER, called, RESULT, ANSWER]


def test_names_of_calls_and_results_stay() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "c1", "index": 0}]}
    result = {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "2", "id": "m1"}
    called, answered = read(call, result)
    assert called["tool_calls"] == [CALL | {"id": "c1"}]
    assert answered == {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c1"}


def test_a_call_after_text_is_the_same_turn() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    found, changes = read_counted(USER, {"from": "gpt", "value": "Let me see."}, call, call)
    assert found[1] == {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]}
    assert set(changes) == {"calls joined to the turn before them"}


def test_a_call_that_is_joined_keeps_its_reasoning() -> None:
    call = {"role": "tool_call", "content": '{"name": "add", "arguments": {"a": 1}}', "reasoning": "I add."}
    found, _ = read_counted(USER, ANSWER, call)
    assert found[1] == ANSWER | {"tool_calls": [CALL], "reasoning_content": "I add."}
    found, _ = read_counted(USER, ANSWER | {"reasoning": "I add."}, call | {"reasoning": None})
    assert found[1]["reasoning_content"] == "I add."
    with pytest.raises(UnusableRow, match="two different reasonings of one turn"):
        read_counted(USER, ANSWER | {"reasoning": "I say."}, call)


def test_results_that_are_objects_are_written_as_json() -> None:
    found, changes = read_counted({"role": "tool", "content": {"größe": 2}})
    assert found == [{"role": "tool", "content": '{"größe": 2}'}]
    assert changes == ["results of tools written as JSON"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning(key: str) -> None:
    assert read(ANSWER | {key: "So."}) == [ANSWER | {"reasoning_content": "So."}]
    assert read(ANSWER | {key: None}, ANSWER | {key: ""}) == [ANSWER, ANSWER]


def test_reasoning_as_a_part() -> None:
    parts = [{"type": "thinking", "thinking": "So.", "signature": "x"}, {"type": "text", "text": "Yes."}]
    assert read({"role": "assistant", "content": parts}) == [ANSWER | {"reasoning_content": "So."}]


@pytest.mark.parametrize(
    "call", ['{"name": "find", "arguments": {"city": "Ur"}}', {"name": "find", "arguments": {"city": "Ur"}}]
)
def test_parts_whose_text_is_their_value(call: Any) -> None:
    parts = [
        {"type": "reasoning", "value": "So."}, {"type": "text", "value": "Yes."}, {"type": "tool_call", "value": call},
    ]  # fmt: skip
    question = {"role": "user", "content": [{"type": "text", "value": "Is it?"}], "loss_weight": 0.0}
    asked, answer = read_messages(
        [question, {"role": "assistant", "content": parts, "loss_weight": 1.0}], "messages", []
    )
    assert asked == {"role": "user", "content": "Is it?"}
    assert (answer["content"], answer["reasoning_content"]) == ("Yes.", "So.")
    assert answer["tool_calls"][0]["function"] == {"name": "find", "arguments": {"city": "Ur"}}
    assert "learn" not in answer


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    for message in ({"role": "user", "content": parts}, {"role": "user", "parts": ["One.", "Two."]}):
        found, changes = read_counted(message)
        assert found == [{"role": "user", "content": "One.\n\nTwo."}]
        assert changes == ["parts of a turn joined by a blank line"]
    assert read({"role": "user", "parts": [{"text": "One."}, {"text": ""}]}) == [{"role": "user", "content": "One."}]
    thoughts = [{"type": "thinking", "thinking": text} for text in ("So.", "", "Then.")]
    found, changes = read_counted({"role": "assistant", "content": [*thoughts, "Yes."]})
    assert found == [ANSWER | {"reasoning_content": "So.\n\nThen."}]
    assert changes == ["parts of a turn joined by a blank line"]


@pytest.mark.parametrize(
    ("marks", "learned"),
    [
        ({"weight": 0}, False), ({"weight": 1}, True), ({"weight": 0.0}, False), ({"weight": None}, None),
        ({"train": False}, False), ({"train": "true"}, True), ({"masked": True}, False), ({"mask": 0}, True),
        ({"loss": False}, False), ({"learn": False}, False), ({"weight": "0"}, False), ({"trainable": 1}, True),
        ({"loss_weight": 0, "train": False}, False),
    ],
)  # fmt: skip
def test_marks_of_turns_to_learn(marks: dict[str, Any], learned: bool | None) -> None:
    assert read(ANSWER | marks) == [ANSWER | ({"learn": False} if learned is False else {})]
    assert read(USER | marks) == [USER]  # a question is context anyway


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ANSWER | {"weight": 0.5}, "a turn's weight is neither 0 nor 1"),
        (ANSWER | {"weight": 0, "train": True}, "marks of a turn that contradict each other"),
        (ANSWER | {"train_detail": [{"begin_offset": 0}]}, "a turn whose train_detail cannot be obeyed"),
        (ANSWER | {"audio": {"id": "x"}}, "a turn with audio, which is not supported"),
        (ANSWER | {"refusal": "No."}, "a turn with refusal, which is not supported"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, r"no text \(image_url\)"),
        (ANSWER | {"reasoning": {"steps": []}}, "reasoning that is no text"),
        (ANSWER | {"reasoning": "a", "thinking": "b"}, "two different reasonings of one turn"),
        (ANSWER | {"tool_calls": [{"type": "function"}]}, "a tool call without the name of a function"),
        (
            ANSWER | {"tool_calls": [{"name": "f", "arguments": "x"}]},
            "arguments of a tool call that are no JSON object",
        ),
        ({"from": "function_call", "value": "[]"}, "a tool call without the name of a function"),
        (ANSWER | {"tool_calls": [{"name": "f", "arguments": {"a": "\ud800"}}]}, "broken characters in a tool call"),
        ({"role": "user", "content": 5}, "messages is no text"),
        ({"role": "user", "content": "a\ud800"}, "broken characters in messages"),
        ({"role": "critic", "content": "x"}, "messages hold the unknown role 'critic'"),
        ("text", "messages hold something that is no message"),
    ],
)
def test_what_a_row_has_no_place_for(message: Any, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        read_counted(message)


def test_what_is_not_read_is_counted_and_metadata_is_not() -> None:
    _, changes = read_counted(ANSWER | {"mood": "glad", "id": "1", "timestamp": 5, "name": "x", "refusal": None})
    assert changes == ["'mood' of a turn not read"]


@pytest.mark.parametrize(("value", "reason"), [([], "empty messages"), (None, "empty messages"), (5, "are no list of")])
def test_what_is_no_conversation(value: Any, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        read_messages(value, "messages", [])


def test_truth() -> None:
    assert [truth(value) for value in (1, "1.0", True, "YES", 0, False, "no", 0.5, None, "")] == [
        True, True, True, True, False, False, False, None, None, None,
    ]  # fmt: skip


def test_a_call_and_text_that_are_not_learned_alike() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}', "train": False}
    with pytest.raises(UnusableRow, match="a call and the text before it are not learned alike"):
        read(USER, {"from": "gpt", "value": "Let me see.", "train": True}, call)
