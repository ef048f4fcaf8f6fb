"""Labels of prompts by their likelihood: which are the labels, which is chosen, and the text that is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.answering import LabelSettings
from common.errors import DataError
from common.stages.label import labelled, questions_of, require_left, text_row


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": text}], "source": "faq", **more}


def labels_of(*rows: dict[str, Any], **settings: Any) -> list[list[str]]:
    asked, _ = questions_of(rows, LabelSettings(**settings), "label")
    return [row["choices"] for row in asked]


def test_labels_are_named_or_the_choices_or_all_answers() -> None:
    plain = [asking("A?", answer="yes"), asking("B?", answer="no"), asking("C?"), asking("D?", answer="yes")]
    assert labels_of(*plain) == [["yes", "no"]] * 4
    assert labels_of(*plain, words=("good", "bad")) == [["good", "bad"]] * 4
    assert labels_of(asking("A?", choices=["oak", "moss"], answer="B. moss")) == [["A. oak", "B. moss"]]
    assert labels_of(*plain, words=("good", "bad"), prompts=2) == [["good", "bad"]] * 2


@pytest.mark.parametrize("answers", [[], ["yes", "yes"], [str(number) for number in range(101)]])
def test_a_task_without_known_labels_is_refused(answers: list[str]) -> None:
    rows = [asking(f"{number}?", answer=answer) for number, answer in enumerate(answers)] or [asking("A?")]
    with pytest.raises(DataError, match=r"^Stage label: .* different answers, .* Name them: label\.words=\[…\]\.$"):
        labels_of(*rows)


def test_only_single_questions_are_labelled_and_the_others_counted() -> None:
    talk = {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A?"}], "source": "faq"}
    long = {"prompt": [*talk["prompt"], {"role": "assistant", "content": "b"}, talk["prompt"][1]], "source": "faq"}
    rows = [talk, long, asking("B?", language="en")]
    asked, left_out = questions_of(rows, LabelSettings(words=("x", "y")), "label")
    assert left_out == {"a system text": 1, "more than one turn": 1}
    assert asked == [
        {
            "id": "0",
            "question": "B?",
            "choices": ["x", "y"],
            "answer": 0,
            "known": None,
            "source": "faq",
            "language": "en",
        }
    ]


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ({"a system text": 2}, r"\(a system text: 2\)\. Set system_turns: fold in the sources of these prompts\.$"),
        ({"more than one turn": 3, "below margin": 0}, r"\(more than one turn: 3\)\. Add sources with role: prompts"),
        ({"below margin": 4}, r"\(below margin: 4\)\. Lower label\.margin\.$"),
    ],
)
def test_where_no_prompt_is_left_it_says_why(left_out: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=r"^Stage label: no prompt is left to label " + message):
        require_left([], left_out, "label")


def test_the_likeliest_is_chosen_the_first_of_equals_with_its_lead() -> None:
    asked = [{"question": name, "known": None, "source": "faq", "choices": ["x", "y", "z"]} for name in "AB"]
    found = labelled(asked, [[-3.0, -1.0, -1.75], [-2.0, -2.0, -5.0]])
    assert [(one["label"], one["lead"]) for one in found] == [("y", 0.75), ("x", 0.0)]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{text}\n\n{label}", "Is {label} {text}?\n\ngood {text}"),  # marks in the data stay as they are
        ("<{label}> {text}.", "<good {text}> Is {label} {text}?."),
    ],
)
def test_the_text_is_the_template_with_prompt_and_label(template: str, text: str) -> None:
    one = {"question": "Is {label} {text}?", "label": "good {text}", "source": "faq", "language": "en"}
    assert text_row(one, template) == {"text": text, "source": "faq (labelled)", "language": "en"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": ["x"]}, "words must name two or more different labels"),
        ({"words": ["x", "x"]}, "words must name two or more different labels"),
        ({"template": "{text}"}, "expected {text} and {label}, each once"),
        ({"template": "{text} {label} {label}"}, "expected {text} and {label}, each once"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSettings.model_validate(settings)
