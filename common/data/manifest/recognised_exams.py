"""Tell which columns of a file make exam questions: with choices in one column or several, or with written answers.

Usage: `keys = exam_keys(fields, source.columns)`; `keys["columns"]`; raises `Unclear` with what is in doubt.

An answer counts as told only where all records looked at agree: its column must name one of the choices in each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.data.answers import final_answer, parse_number
from common.data.manifest.fields import NUMBER_OR_TEXT, Fields, Unclear
from common.data.manifest.questions import answer_index, answered_by, labels_of_columns, without_letters

Keys = dict[str, Any]
QUESTIONS = ("question", "query", "problem", "stem", "question_stem", "question_text", "goal", "ctx", "q", "prompt")
CHOICES = ("choices", "options", "endings", "candidates", "answer_choices")
CONTEXT = ("context", "passage", "article", "support")
# The column of the answer, those that can hold nothing else first.
ANSWERS = (
    "answer_idx", "answer_index", "answerkey", "answer_key", "answer_letter", "correct_answer", "correct_option",
    "correct_choice", "correct_index", "correct", "cop", "gold", "gt", "answer", "label", "target", "ground_truth",
    "key",
)  # fmt: skip
WRITTEN = ("answer", "answers", "solution", "final_answer", "ground_truth", "target", "a")
GSM8K_MARK = "\n#### "
_CHOICE_COLUMN = re.compile(
    r"(?P<stem>(?:option|choice|answer|ans|opt|op|ending|sol|choice_text)?)_?(?P<label>[a-j]|\d)"
)

_WRONG_COLUMN = re.compile(r"(distractor|incorrect_answer|wrong_answer)_?\d")  # beside `correct_answer`, as in SciQ

Rows = list[tuple[list[str], list[str]] | None]  # of each record the choices and their labels; None without any


def has_choices(fields: Fields) -> bool:
    """Whether a file has choices in a column of that name, or in columns that count them."""
    return (
        fields.first(CHOICES, (list, dict)) is not None or bool(_choice_columns(fields)) or _nested(fields) is not None
    )


def right_and_wrong(fields: Fields) -> list[str]:
    """Return the columns of a right answer and wrong ones. Only an exam may read them, as the right one is first."""
    wrong = [name for name in fields.names if _WRONG_COLUMN.fullmatch(name) and fields.fits(name, NUMBER_OR_TEXT)]
    return ["correct_answer", *wrong] if wrong and fields.holds("correct_answer", NUMBER_OR_TEXT) else []


def exam_keys(fields: Fields, given: Mapping[str, Any], fixed: Sequence[str] | None = None) -> Keys:
    """Return the columns of questions with choices, and where numbers count from; `fixed` are choices of all."""
    if (stem := _nested(fields)) and not given:
        nested = {"question": f"{stem}.stem", "choices": f"{stem}.choices.*.text", "labels": f"{stem}.choices.*.label"}
        return {"columns": {**nested, "answer": _answer_by_name(fields)}}
    named, choices = _choices(fields, fixed)
    question = fields.first(QUESTIONS, str)
    if question is None and "question" not in given:
        raise Unclear("none is the question")
    if question is not None:
        named["question"] = fields.column(question)
    about = [name for name in CONTEXT if fields.holds(name, (str, list)) and name != question]
    if about:
        named["context"] = fields.columns(about)
    answer, first = _answer(fields, choices) if "answer" not in given else (None, 0)
    if answer:
        named["answer"] = fields.column(answer)
    return {"columns": named} | ({"index_from": 1} if first else {})


def written_keys(fields: Fields, given: Mapping[str, Any], match: str | None, final: str | None) -> Keys:
    """Return the columns of questions with written answers, and what must be equal where the answers say so."""
    questions = [name for name in QUESTIONS if fields.holds(name, str)]
    answers = [name for name in WRITTEN if fields.holds(name, (*NUMBER_OR_TEXT, list))]
    if len(answers) > 1 and "answer" not in given:
        raise Unclear(f"{fields.both(answers)} could be the answer")
    if not (questions or "question" in given) or not (answers or {"answer", "answers"} & given.keys()):
        raise Unclear("")
    named = {} if "question" in given else {"question": fields.column(questions[0])}
    values = fields.values(answers[0]) if answers else []
    if answers:
        several = all(isinstance(value, list) for value in values)
        named["answers" if several else "answer"] = fields.column(answers[0])
    keys: Keys = {"columns": named}
    if values and final is None and all(GSM8K_MARK in str(value) for value in values):
        keys["final"] = GSM8K_MARK.strip()
        values = [final_answer(str(value), keys["final"]) for value in values]
    if match is None:
        if values and all(isinstance(value, bool) for value in values):
            raise Unclear("the answers are true or false, so choices: [no, yes] must say what is chosen from")
        if not values or not all(_is_number(value) for value in values):
            raise Unclear("the answers are written out, so match: text or number must say what counts as equal")
        keys["match"] = "number"
    return keys


def _is_number(value: Any) -> bool:
    """Whether an answer is one number and nothing else."""
    text = str(value).strip()
    return not isinstance(value, bool | list) and parse_number(text) is not None and not re.search(r"[A-Za-z]", text)


def _nested(fields: Fields) -> str | None:
    """Return the column of questions that hold their own choices, as those of ARC and CommonsenseQA do."""
    name = fields.first(("question",), dict)
    whole = name and all("stem" in value and isinstance(value.get("choices"), list) for value in fields.values(name))
    return fields.column(name) if name and whole else None


def _answer_by_name(fields: Fields) -> str:
    name = fields.first(ANSWERS, NUMBER_OR_TEXT)
    if name is None:
        raise Unclear("none is the answer")
    return fields.column(name)


def _choice_columns(fields: Fields) -> dict[str, str]:
    """Return label -> name of the columns that hold one choice each: `A` to `D`, `option_1` and on, `opa` and on."""
    stems: dict[str, dict[str, str]] = {}
    for name in fields.names:
        if (match := _CHOICE_COLUMN.fullmatch(name)) and fields.fits(name, NUMBER_OR_TEXT):
            stems.setdefault(match["stem"], {})[match["label"]] = name
    for found in stems.values():
        labels = sorted(found)
        for first in ("a", "0", "1"):
            wanted = [chr(ord(first) + place) for place in range(len(labels))]
            if len(labels) >= 2 and labels == wanted and fields.values(found[first]):
                return {label: found[label] for label in labels}
    return {}


def _choices(fields: Fields, fixed: Sequence[str] | None) -> tuple[Keys, Rows]:
    """Return the columns of the choices, and what they hold."""
    if fixed is not None:
        return {}, [(list(fixed), [])] * fields.num_records
    if name := fields.first(CHOICES, (list, dict)):
        return _of_one_column(fields, name)
    columns = [*_choice_columns(fields).values()] or right_and_wrong(fields)
    held = zip(*(fields.rows(name) for name in columns), strict=True)
    rows = [[str(item) for item in row if item not in (None, "")] for row in held]
    named = tuple(fields.column(name) for name in columns)
    return {"choices": named}, [(row, labels_of_columns(named)) for row in rows]


def _of_one_column(fields: Fields, name: str) -> tuple[Keys, Rows]:
    column, values = fields.column(name), fields.values(name)
    if all(isinstance(value, dict) and isinstance(value.get("text"), list) for value in values):
        key = "label" if all(value.get("label") for value in values) else None
        named = {"choices": f"{column}.text"} | ({"labels": f"{column}.label"} if key else {})
        return named, [v and (_texts(v["text"]), _texts(v["label"]) if key else []) for v in fields.rows(name)]
    if all(isinstance(value, dict) for value in values):
        return {"choices": column}, [v and (_texts(v.values()), _texts(v)) for v in fields.rows(name)]
    if not all(isinstance(value, list) for value in values):
        raise Unclear(f"'{column}' holds lists in some records and objects in others")
    items = [item for value in values for item in value]
    if items and all(isinstance(item, dict) for item in items):
        text = next((key for key in ("text", "value", "content") if all(key in item for item in items)), None)
        if text is None:
            keys = ", ".join(items[0])
            raise Unclear(f"'{column}' holds objects ({keys}), so write choices: {column}.*.<the key of their text>")
        labels = ("label", "key", "id", "letter")
        key = next((key for key in labels if all(key in item for item in items)), None)
        named = {"choices": f"{column}.*.{text}"} | ({"labels": f"{column}.*.{key}"} if key else {})
        return named, [
            v and (_texts(i[text] for i in v), _texts(i[key] for i in v) if key else []) for v in fields.rows(name)
        ]
    return {"choices": column}, [v and (without_letters(_texts(v)) or _texts(v), []) for v in fields.rows(name)]


def _texts(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]


def _answer(fields: Fields, choices: Rows) -> tuple[str, int]:
    """Return the column that names one of the choices in every record, and whether its numbers count from 0 or 1."""
    told: dict[str, tuple[int, dict[int, int | None]]] = {}
    open_to_both: list[str] = []
    doubts: list[str] = []
    for name in ANSWERS:
        if not fields.holds(name, (*NUMBER_OR_TEXT, list)):
            continue
        answers = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in fields.rows(name)]
        both = enumerate(zip(answers, choices, strict=True))
        rows = {number: (value, *row) for number, (value, row) in both if row and value not in (None, "")}
        first = _counted_from(list(rows.values()))
        try:
            by = answered_by(rows.values(), first or 0)
        except Unclear as unclear:
            doubts.append(f"'{fields.column(name)}': {unclear}")
            continue
        first = 0 if by == "text" else first
        indices = {number: answer_index(*row, first or 0, by) for number, row in rows.items()}
        if not indices or [*indices.values()].count(None) > len(indices) // 10:
            continue
        if first is None:
            open_to_both.append(name)
        else:
            told[name] = first, indices
    if not told and doubts:
        raise Unclear(doubts[0])
    if not told and open_to_both:
        column = fields.column(open_to_both[0])
        raise Unclear(f"'{column}' counts the choices from 0 or from 1; say which with index_from")
    if not told:
        raise Unclear("none names one of the choices in every record, so none is the answer")
    name, (counted, found) = next(iter(told.items()))
    for other, (_, indices) in told.items():
        pairs = [{found[number], indices[number]} for number in found.keys() & indices.keys()]
        if any(None not in pair and len(pair) > 1 for pair in pairs):
            raise Unclear(f"{fields.both([name, other])} name different choices")
    return name, counted


def _counted_from(rows: Sequence[tuple[Any, list[str], list[str]]]) -> int | None:
    """Return what numbers count from, 0 where there is none that counts; None where they leave it open."""
    counting = []
    for value, texts, labels in rows:
        text = str(value).strip()
        if isinstance(value, bool) or text in labels or (isinstance(value, float) and not value.is_integer()):
            continue
        if isinstance(value, int | float) or (text.isdecimal() and text not in [*texts, *labels]):
            counting.append((int(value), len(texts)))
    if not counting or any(number == 0 for number, _ in counting):
        return 0
    return 1 if any(number == length for number, length in counting) else None
