"""Records become rows by the columns that a source names; unusable ones say why."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.values import UnusableRow
from tests.data.manifest.shaping import ANSWER, OTHER, USER, shape


def test_text() -> None:
    assert shape("cpt", {"t": " x "}, {"text": "t"}) == {"text": " x "}
    parts = {"t": "Name", "u": None, "v": [{"w": "One."}, {"w": "Two."}]}
    assert shape("cpt", parts, {"text": ["t", "u", "v.*.w"]}) == {"text": "Name\n\nOne.\n\nTwo."}


def test_a_language_goes_along() -> None:
    assert shape("cpt", {"t": "x"}, {"text": "t"}, language="sw") == {"text": "x", "language": "sw"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty text"),
        (" \n", "empty text"),
        (5, "text is no text"),
        ("a\ud800", "broken characters in text"),
    ],
)
def test_text_that_is_none(value: Any, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        shape("cpt", {"t": value}, {"text": "t"})
    with pytest.raises(UnusableRow, match="empty text"):
        shape("cpt", {}, {"text": "t"})


def test_chat_from_question_and_answer() -> None:
    columns = {"question": "q", "answer": "o.0.a", "context": "c", "system": "s"}
    row = shape("sft", {"q": " Why? ", "o": [{"a": "So."}], "c": "Text.", "s": "Be kind."}, columns)
    assert row["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?\n\nText."},
        {"role": "assistant", "content": "So."},
    ]
    assert shape("sft", {"q": "Why?", "o": [{"a": "So."}], "c": ""}, columns)["messages"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]


def test_chat_answers_that_are_numbers_or_lists() -> None:
    columns = {"question": "q", "answer": "a"}
    for answer, text in ((5, "5"), (-3.5, "-3.5"), (["a", "b"], "a, b")):
        assert shape("sft", {"q": "?", "a": answer}, columns)["messages"][1]["content"] == text


def test_a_fixed_question_comes_after_its_context() -> None:
    facts: dict[str, Any] = {"question": "Which tactic?"}
    columns = {"context": ["n", "t"], "answer": "a"}
    row = shape("sft", {"n": "Name", "t": "Text.", "a": ["x", "y"]}, columns, **facts)
    assert [turn["content"] for turn in row["messages"]] == ["Name\n\nText.\n\nWhich tactic?", "x, y"]
    facts |= {"side": "domain", "choices": ["x", "y"]}
    assert shape("eval", {"n": "Name", "a": ["y"]}, columns, **facts)["question"] == "Name\n\nWhich tactic?"
    with pytest.raises(UnusableRow, match="empty context"):
        shape("sft", {"n": "", "a": "x"}, columns, question="Which tactic?")


def test_prompts_that_only_a_reward_model_can_judge() -> None:
    row = shape(
        "prompts", {"q": "Why?", "c": "Text.", "s": "Be brief."}, {"question": "q", "context": "c", "system": "s"}
    )
    assert row is not None
    assert row.keys() & {"prompt", "answer", "choices"} == {"prompt"}
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]


def test_prompts_whose_answers_can_be_verified() -> None:
    columns = {"question": "q", "answer": "a", "context": "c", "system": "s"}
    row = shape("prompts", {"q": "Why?", "a": 5, "c": "Text.", "s": "Be brief."}, columns)
    system = {"role": "system", "content": "Be brief."}
    assert row == {"prompt": [system, {"role": "user", "content": "Why?\n\nText."}], "answer": "5"}
    row = shape("prompts", {"q": "Why?", "a": "2 * 9\n#### 18"}, {"question": "q", "answer": "a"}, final="####")
    assert row["answer"] == "18"
    row = shape("prompts", {"q": "?", "x": "one", "y": "two", "a": 1}, columns | {"choices": ["x", "y"]})
    assert (row["prompt"][0]["content"], row["answer"]) == ("?\nA. one\nB. two", "B. two")


def test_chat_from_choices() -> None:
    columns = {"question": "q", "answer": "a", "choices": ["x", "y"]}
    row = shape("sft", {"q": "Which?", "x": "one", "y": "two", "a": 1}, columns)
    assert [message["content"] for message in row["messages"]] == ["Which?\nA. one\nB. two", "B. two"]


def test_chat_from_messages_keeps_role_and_content() -> None:
    messages = [{"role": "system", "content": "s"}, USER | {"extra": 1}, ANSWER]
    assert shape("sft", {"m": messages}, {"messages": "m"})["messages"] == [messages[0], USER, ANSWER]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty messages"),
        ("text", "messages are no list of messages"),
        ([USER], "ends in a user turn"),
        ([{"role": "system", "content": "s"}], "a system turn alone"),
        ([USER, USER, ANSWER], "two user turns in a row"),
        ([USER, ANSWER, ANSWER], "two assistant turns in a row"),
        ([ANSWER], "starts with the assistant"),
        ([USER, ANSWER, {"role": "system", "content": "s"}, USER, ANSWER], "a system turn after the start"),
        ([USER, {"role": "critic", "content": "x"}], "messages hold the unknown role 'critic'"),
        ([USER, {"role": "tool", "content": "x"}], "a tool turn without a call"),
        ([USER, {"role": "assistant", "content": ""}], "an empty assistant turn"),
        ([{"role": "user", "content": " "}, ANSWER], "an empty user turn"),
        ([USER, "text"], "messages hold something that is no message"),
    ],
)
def test_messages_that_are_no_conversation(messages: Any, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        shape("sft", {"m": messages}, {"messages": "m"})


PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}


@pytest.mark.parametrize(
    ("value", "with_prompt"),
    [
        ({"p": "Hi?", "c": "Yes.", "r": "No."}, True),
        ({"p": "Hi?", "c": [USER, ANSWER], "r": [USER, OTHER]}, True),
        ({"p": [USER], "c": [ANSWER], "r": [OTHER]}, True),
        ({"c": [USER, ANSWER], "r": [USER, OTHER]}, False),
    ],
)
def test_preference(value: dict[str, Any], with_prompt: bool) -> None:
    columns = {"chosen": "c", "rejected": "r"} | ({"prompt": "p"} if with_prompt else {})
    assert shape("preference", value, columns) == PAIR


def test_preference_from_transcripts() -> None:
    start = "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nIt is late.\n\nHuman: So?\n\nAssistant:"
    value = {"c": f"{start} Yes.", "r": f"{start} No."}
    row = shape("preference", value, {"transcript_chosen": "c", "transcript_rejected": "r"})
    assert [message["content"] for message in row["prompt"]] == ["Hi?", "Hello.\n\nIt is late.", "So?"]
    assert (row["chosen"], row["rejected"]) == ([ANSWER], [OTHER])


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b", "chosen equals rejected"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: x\n\nAssistant: b", "answer different prompts"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: c\n\nHuman: d\n\nAssistant: e", "before the last"),
        ("Just text", "\n\nHuman: a\n\nAssistant: b", "does not begin with a turn"),
        ("\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nAssistant: b", "an empty assistant turn"),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "\n\nHuman: a\n\nAssistant: b", "two user turns in a row"),
    ],
)
def test_preferences_that_compare_nothing(chosen: str, rejected: str, reason: str) -> None:
    columns = {"transcript_chosen": "c", "transcript_rejected": "r"}
    with pytest.raises(UnusableRow, match=reason):
        shape("preference", {"c": chosen, "r": rejected}, columns)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [([], "empty chosen"), ([{"role": "user", "content": "Other?"}, ANSWER], "does not begin with the prompt")],
)
def test_preference_whose_conversation_is_another(chosen: Any, reason: str) -> None:
    columns = {"prompt": "p", "chosen": "c", "rejected": "r"}
    with pytest.raises(UnusableRow, match=reason):
        shape("preference", {"p": "Hi?", "c": chosen, "r": "No."}, columns)


def test_what_stands_beside_a_conversation() -> None:
    value = {"m": [USER, ANSWER], "system": "Be kind."}
    system = {"role": "system", "content": "Be kind."}
    assert shape("sft", value, {"messages": "m"}) == {"messages": [system, USER, ANSWER]}
    own = shape("sft", value | {"m": [system | {"content": "s"}, USER, ANSWER]}, {"messages": "m"})
    assert own["messages"][0]["content"] == "s"
    assert own["changed"] == ("system text beside a conversation that has its own left out",)
    pictured = {"m": [{"role": "user", "content": "<image> What is it?"}, ANSWER], "images": ["a.png"]}
    with pytest.raises(UnusableRow, match="a conversation about images, which are not supported"):
        shape("sft", pictured, {"messages": "m"})
    for column in ("images", "audios", "videos"):  # whether the text marks their places or not
        with pytest.raises(UnusableRow, match=f"a conversation about {column}"):
            shape("sft", {"m": [USER, ANSWER], column: ["a.bin"]}, {"messages": "m"})
    for nothing in ([], [None], "", None):
        assert len(shape("sft", pictured | {"images": nothing}, {"messages": "m"})["messages"]) == 2


def test_repairs_and_folded_system_text() -> None:
    system = {"role": "system", "content": "Be kind."}
    with pytest.raises(UnusableRow, match="ends in a user turn"):
        shape("sft", {"m": [USER, ANSWER, USER]}, {"messages": "m"})
    row = shape("sft", {"m": [system, USER, ANSWER, USER]}, {"messages": "m"}, turns="fix", system_turns="fold")
    assert row["messages"] == [{"role": "user", "content": "Be kind.\n\nHi?"}, ANSWER]
    assert row["changed"] == ("turns after the last answer left out", "system text joined to the first user turn")
    columns = {"question": "q", "answer": "a", "system": "s"}
    folded = shape("sft", {"q": "Hi?", "a": "Yes.", "s": "Be kind."}, columns, system_turns="fold")
    assert folded["messages"] == row["messages"]


def test_turns_that_are_context_only() -> None:
    row = shape("sft", {"m": [USER, OTHER | {"weight": 0}, USER, ANSWER | {"weight": 1}]}, {"messages": "m"})
    assert row["messages"] == [USER, OTHER | {"learn": False}, USER, ANSWER]


def test_reasoning_beside_an_answer() -> None:
    row = shape("sft", {"q": "Hi?", "a": "Yes.", "r": "So."}, {"question": "q", "answer": "a", "reasoning": "r"})
    assert row["messages"][1] == ANSWER | {"reasoning_content": "So."}


def test_a_history_that_is_no_list_of_pairs() -> None:
    columns = {"question": "q", "answer": "a", "history": "h"}
    with pytest.raises(UnusableRow, match="history that is no list of pairs"):
        shape("sft", {"q": "Why?", "a": "So.", "h": [["Hi?"]]}, columns)


def test_a_prompt_that_ends_in_a_tool_turn() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {}}]}
    with pytest.raises(UnusableRow, match="prompt does not end in a user turn"):
        shape("prompts", {"p": [USER, call, {"role": "tool", "content": "2"}]}, {"prompt": "p"})


def test_system_text_beside_a_question_is_folded_into_a_prompt_too() -> None:
    columns = {"question": "q", "system": "s"}
    for more in ({}, {"answer": "a"}):
        row = shape("prompts", {"q": "Hi?", "a": "Yes.", "s": "Be kind."}, columns | more, system_turns="fold")
        assert row["prompt"] == [{"role": "user", "content": "Be kind.\n\nHi?"}]
        assert row["changed"]
