"""Preferences in any notation: two answers to one prompt, or single answers with a label."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.pairs import label_of, preference_row
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "How is the weather?"}
ANSWER = {"role": "assistant", "content": "Fine."}
OTHER = {"role": "assistant", "content": "No idea."}
COLUMNS = {"prompt": "p", "chosen": "c", "rejected": "r"}
ASKED = USER["content"]


def shape(value: dict[str, Any], columns: dict[str, Any] = COLUMNS, **facts: Any) -> dict[str, Any]:
    facts = {"id": "s", "role": "preference", "path": "a.jsonl", "columns": columns, "licence": "mit", **facts}
    return preference_row(Source.model_validate(facts), Record("a.jsonl, line 7", value))


PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}


@pytest.mark.parametrize(
    "value",
    [
        {"p": ASKED, "c": {"from": "gpt", "value": "Fine."}, "r": {"from": "gpt", "value": "No idea."}},
        {"p": [{"from": "human", "value": ASKED}], "c": ANSWER, "r": OTHER},
        {"p": [USER], "c": [USER, ANSWER], "r": [USER, OTHER]},
        {"p": f"[{USER}]", "c": f"[{ANSWER}]", "r": f"[{OTHER}]"},
    ],
)
def test_answers_as_messages(value: dict[str, Any]) -> None:
    assert shape(value) == PAIR


def test_system_text_of_any_side() -> None:
    told = {"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [OTHER]}
    assert shape({"p": [SYSTEM, USER], "c": "Fine.", "r": "No idea."}) == told
    assert shape({"p": ASKED, "c": [SYSTEM, USER, ANSWER], "r": [SYSTEM, USER, OTHER]}) == told
    assert shape({"p": ASKED, "s": "Be kind.", "c": "Fine.", "r": "No idea."}, COLUMNS | {"system": "s"}) == told
    assert shape({"p": ASKED, "system": "Be kind.", "c": [USER, ANSWER], "r": [USER, OTHER]}) == told
    folded = shape({"p": [SYSTEM, USER], "c": "Fine.", "r": "No idea."}, system_turns="fold")
    assert folded["prompt"] == [{"role": "user", "content": f"Be kind.\n\n{ASKED}"}]
    assert folded["changed"] == ("system text joined to the first user turn",)


def test_a_prompt_that_both_answers_repeat_is_cut() -> None:
    row = shape({"p": f"{ASKED} ", "c": f"{ASKED}\n\nFine.", "r": f"{ASKED} No idea."})
    assert row == PAIR | {"prompt": [USER], "changed": ("the prompt cut from the start of its answers",)}
    one = shape({"p": ASKED, "c": f"{ASKED} Fine.", "r": "No idea."})  # a question in return, perhaps
    assert one["chosen"][0]["content"] == f"{ASKED} Fine."
    short = shape({"p": "Hello", "c": "Hello there.", "r": "Hello you."})
    assert short["chosen"][0]["content"] == "Hello there."


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"score_chosen": 8.0, "score_rejected": 8}, "equal scores"),
        ({"chosen_score": "3", "rejected_score": "3.0"}, "equal scores"),
        ({"chosen-rating": 1, "rejected-rating": 2}, "rejected scores higher than chosen"),
        ({"rating_chosen": 1, "rating_rejected": 2}, "rejected scores higher than chosen"),
        ({"score_chosen": 2, "score_rejected": 1}, None),
        ({"score_chosen": None, "score_rejected": 1}, None),
        ({"score_chosen": 1}, None),
        ({"mine": 1, "theirs": 1}, None),
    ],
)
def test_scores_beside_a_pair(scores: dict[str, Any], reason: str | None) -> None:
    value = {"p": ASKED, "c": "Fine.", "r": "No idea.", **scores}
    if reason is None:
        assert shape(value) == PAIR
        return
    with pytest.raises(UnusableRow, match=reason):
        shape(value)


def test_scores_under_other_names() -> None:
    columns = COLUMNS | {"score_chosen": "x.a", "score_rejected": "x.b"}
    with pytest.raises(UnusableRow, match="equal scores"):
        shape({"p": ASKED, "c": "Fine.", "r": "No idea.", "x": {"a": 1, "b": 1}}, columns)


SINGLE = {"prompt": [USER], "completion": [ANSWER], "label": False}


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        ({"p": ASKED, "c": "Fine.", "l": False}, {"prompt": "p", "completion": "c", "label": "l"}),
        ({"p": [USER], "c": [ANSWER], "l": 0}, {"prompt": "p", "completion": "c", "label": "l"}),
        ({"p": ASKED, "c": [USER, ANSWER], "l": "false"}, {"prompt": "p", "completion": "c", "label": "l"}),
        ({"m": [USER, ANSWER], "l": "undesirable"}, {"messages": "m", "label": "l"}),
    ],
)
def test_single_answers(value: dict[str, Any], columns: dict[str, str]) -> None:
    assert shape(value, columns) == SINGLE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"l": None}, "empty label"),
        ({"l": "sports"}, "label is neither true nor false"),
        ({"l": 0.5}, "label is neither true nor false"),
        ({"c": ""}, "empty completion"),
        ({"p": ""}, "empty prompt"),
        ({"p": [USER, ANSWER]}, "two assistant turns in a row|empty prompt"),
        ({"c": [ANSWER | {"weight": 0}]}, "completion is marked not to be learned"),
    ],
)
def test_single_answers_that_cannot_be_learned(value: dict[str, Any], reason: str) -> None:
    whole = {"p": ASKED, "c": "Fine.", "l": True} | value
    with pytest.raises(UnusableRow, match=reason):
        shape(whole, {"prompt": "p", "completion": "c", "label": "l"})


def test_labels() -> None:
    assert [label_of(value) for value in (True, 1, "1", "Desirable", "thumbs_up", "Thumbs Up")] == [True] * 6
    assert [label_of(value) for value in (False, 0, -1, "rejected", "bad")] == [False] * 5
    assert label_of(None) is label_of(2) is label_of("maybe") is None


def test_tools_go_along() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    value = {"p": ASKED, "c": "Fine.", "r": "No idea.", "tools": '[{"name": "f"}]'}
    assert shape(value) == PAIR | {"tools": tools}
    left = shape(value | {"tools": "hammer"})
    assert left == PAIR | {"changed": ("tools that are no function schemas left out",)}
    with pytest.raises(UnusableRow, match="tools that are no function schemas"):
        shape(value | {"tools": "hammer"}, COLUMNS | {"tools": "tools"})
