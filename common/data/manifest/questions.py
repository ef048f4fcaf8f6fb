"""Make exam rows: a question with choices, or one whose answer is written out.

Usage: `row = question_row(source, record)`; `choices, index = choices_and_answer(source, record)`.

A question that cannot be asked is an `UnusableRow`. `Faults` stops a source that has too many with a wrong answer.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.data.answers import final_answer, parse_number
from common.data.corpus import Row
from common.data.manifest.calls import parsed
from common.data.manifest.cells import cell, joined_cells
from common.data.manifest.fields import Unclear
from common.data.manifest.messages import truth
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.source_keys import AnswerBy
from common.data.manifest.values import ABSENT, UnusableRow, answer_of, folded, text_of
from common.errors import DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Faults of an exam's own: some are in many an official file, and more than a few say that the file is read wrongly.
GIVEN_TWICE, NO_CHOICE = "a choice is given twice", "the answer is none of the choices"
MOST_FAULTS = 0.05  # of an exam's questions; CTI-MCQ has some in 2,500
Asked = tuple[Any, list[str], list[str]]  # an answer as it is written, the choices, and their labels
_PREFIX = re.compile(r"\s*[(\[]?([A-Za-z])\s?[).\]:]\s*(?=\S)")


class Faults:
    """The questions of a source that are an exam's own faults, and whether they are too many to leave out."""

    def __init__(self, source: Source) -> None:
        self._source, self._found = source, 0
        self._first = ""

    def add(self, where: str, reason: UnusableRow) -> None:
        """Count a row that cannot be used, if that is why. A choice given twice on the Hub is its owner's to fix."""
        if str(reason) == NO_CHOICE or (str(reason) == GIVEN_TWICE and self._source.hub is None):
            self._first = self._first or f"{where}: {reason.detail}"
            self._found += 1

    def check(self, num_rows: int) -> None:
        """Raise DataError where more of some rows are faulty than MOST_FAULTS."""
        if self._found <= MOST_FAULTS * num_rows:
            return
        count = f" {self._found} of {num_rows} questions have such faults; up to {MOST_FAULTS:.0%} would be left out."
        raise DataError(
            f"Source '{self._source.id}', {self._first}.{count} An answer is an index from {self._source.index_from}, "
            "a letter from A, or the text of a choice: name other columns, set index_from, or fix the questions."
        )


def question_row(source: Source, record: Record) -> Row:
    """Return a question of an exam."""
    if source.match is not None:
        return _written_row(source, record)
    question = with_context(source, record, question_of(source, record), context_first=True)
    choices, answer = choices_and_answer(source, record)
    return {"id": _question_id(source, record), "question": question, "choices": choices, "answer": answer}


def question_of(source: Source, record: Record) -> str:
    return text_of(source.question or joined_cells(source, record, "question"), "question").strip()


def with_context(source: Source, record: Record, question: str, *, context_first: bool = False) -> str:
    """Join question and context; a fixed question comes last, after what it is about, in training and exam alike."""
    context = joined_cells(source, record, "context")
    if source.question is not None and not context:
        raise UnusableRow("empty context")
    parts = [context, question] if context_first or source.question is not None else [question, context]
    return "\n\n".join(part for part in parts if part)


def final_of(source: Source, answer: str) -> str:
    """Return the line behind the last mark, as replies are cut, or the whole answer where the source names no mark."""
    if source.final is None:
        return answer
    if source.final not in answer:
        raise UnusableRow(f"no {source.final} in answer")
    return text_of(final_answer(answer, source.final), "final answer")


def _written_row(source: Source, record: Record) -> Row:
    """Return a question whose answer is written out; it is asked as chat rows are, so that both look the same."""
    question = with_context(source, record, question_of(source, record))
    if "answers" in source.columns:
        given = cell(source, record, "answers")
        accepted = [answer_of(item, "answers") for item in (given if isinstance(given, list) else [given])]
    else:
        accepted = [answer_of(cell(source, record, "answer"))]
    answers = list(dict.fromkeys(final_of(source, answer) for answer in accepted))
    if source.match == "number":
        answers = [answer for answer in answers if parse_number(answer) is not None]
    if not answers:
        raise UnusableRow("no number in answer" if accepted else "empty answers")
    facts = {"answers": answers, "match": source.match, "final": source.final}
    return {"id": _question_id(source, record), "question": question, **facts}


def _question_id(source: Source, record: Record) -> str:
    name = cell(source, record, "id")
    return f"{source.id}:{record.number if name is None else name}"


def choices_and_answer(source: Source, record: Record) -> tuple[list[str], int]:
    """Return the choices and the index of the right one. Raises UnusableRow when it is none, or two are equal."""
    answer, choices, labels = _given(source, record)
    index = answer_index(answer, choices, labels, source.index_from, source.answer_by)
    if index is None:
        raise UnusableRow(NO_CHOICE, f"the answer {answer!r} is none of the choices {choices}")
    return choices, index


def with_answer_by(source: Source, records: Iterable[Record]) -> Source:
    """Return a source that says how its answers name their choices, as some of its records show."""
    rows = []
    for record in records:
        with contextlib.suppress(UnusableRow):
            rows.append(_given(source, record))
    try:
        return source.model_copy(update={"answer_by": answered_by(rows, source.index_from)})
    except Unclear as unclear:
        if source.index_from:  # said already
            return source.model_copy(update={"answer_by": "mark"})
        raise DataError(f"Source '{source.id}': {unclear}.") from None


def answered_by(rows: Iterable[Asked], first: int = 0) -> AnswerBy | None:
    """Return how most answers name their choices, of those that can only be a text or only a mark; None without any.

    Numbers, which are no text, are places; but values where all are among their choices and not all can be places.
    Raises Unclear where they can all be both, of different choices.
    """
    rows = list(rows)
    texts = marks = 0
    numbers = [(str(row[0]), _place(*row, first), row[1]) for row in rows if _is_whole(row[0])]
    if numbers and all(text in choices for text, _, choices in numbers):
        if any(place is None for _, place, _ in numbers):
            return "text"
        if any(choices.index(text) != place for text, place, choices in numbers):
            raise Unclear(
                "its answers can be values of the choices or their places; say which: answer_by: text or mark"
            )
    for answer, choices, labels in rows:
        if isinstance(answer, str):
            text = answer.strip().casefold()
            is_text, is_mark = (any(text in names for names in found) for found in _names(choices, labels, first))
            texts, marks = texts + (is_text and not is_mark), marks + (is_mark and not is_text)
    return "mark" if marks > texts else "text" if texts > marks else None


def _given(source: Source, record: Record) -> Asked:
    """Return the answer as it is written, the choices and their labels. Raises UnusableRow where one is missing."""
    labels, choices = _choices(source, record)
    seen = [folded(choice) for choice in choices]
    times = Counter(seen)
    if len(times) < len(seen):  # a right answer could be among its own distractors
        twice = next(choice for choice, text in zip(choices, seen, strict=True) if times[text] > 1)
        raise UnusableRow(GIVEN_TWICE, f"the choice {twice!r} is given twice in {choices}, among its own distractors")
    if (column := cell(source, record, "labels")) is not None:
        labels = [str(label) for label in column] if isinstance(column, list) else []
    answer = cell(source, record, "answer")
    if isinstance(answer, list):  # a list of labels with one in it
        if len(answer) > 1:
            raise UnusableRow("several answers")
        answer = answer[0] if answer else None
    if answer is None or answer == "":
        raise UnusableRow("empty answer")
    return answer, choices, labels


def _choices(source: Source, record: Record) -> tuple[list[str], list[str]]:
    """Return labels, where the choices bring some, and the choices."""
    given = list(source.choices) if source.choices else parsed(cell(source, record, "choices"))
    if isinstance(source.columns.get("choices"), tuple):  # a question may use fewer of the columns than there are
        while given and (given[-1] is ABSENT or given[-1] is None or given[-1] == ""):
            given.pop()
    labels = labels_of_columns(source.columns.get("choices"))
    if isinstance(given, Mapping):  # {"A": "...", "B": "..."}
        held = {label: item for label, item in given.items() if item is not None}
        labels, given = [str(label) for label in held], list(held.values())
    if not isinstance(given, list) or len(given) < 2:
        raise UnusableRow("fewer than two choices")
    if isinstance(given[0], Mapping):
        raise UnusableRow(
            f"choices that are objects: name their text, as {source.columns['choices']}.*.{[*given[0]][-1]}"
        )
    choices = [text_of(str(item) if isinstance(item, int | float) else item, "choice").strip() for item in given]
    if (bare := without_letters(choices)) is not None and not labels and not source.choices:
        return list(LETTERS[: len(bare)]), bare
    return labels, choices


def labels_of_columns(columns: Any) -> list[str]:
    """Return the letters that name columns of one choice each, as A to D, or option_a and on; none for others."""
    ends = [column[-1:].upper() for column in columns] if isinstance(columns, tuple) else []
    return ends if ends == list(LETTERS[: len(ends)]) else []


def without_letters(choices: Sequence[str]) -> list[str] | None:
    """Return choices without the letters in front of them, "A) 21" or "(A) 21"; None unless all have theirs in turn."""
    found = [_PREFIX.match(choice) for choice in choices]
    names = [match[1].upper() for match in found if match]
    if names != list(LETTERS[: len(choices)]):
        return None
    return [choice[match.end() :].strip() for choice, match in zip(choices, found, strict=True) if match]


def _names(choices: Sequence[str], labels: Sequence[str], first: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the texts of choices, and their marks: labels or letters, then numbers; all in small letters."""
    numbers = [str(place) for place in range(first, first + len(choices))]
    texts, marks, places = (
        [name.casefold() for name in names][: len(choices)] for names in (choices, labels or LETTERS, numbers)
    )
    return [texts], [marks, places]


def _is_whole(answer: Any) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool)  # JSON's true is no index


def _place(answer: int, choices: Sequence[str], labels: Sequence[str], first: int) -> int | None:
    """Return the choice that a number names by its label, or counted from `first`."""
    if str(answer) in labels[: len(choices)]:
        return labels.index(str(answer))
    return answer - first if 0 <= answer - first < len(choices) else None


def _said(answer: str, choices: Sequence[str]) -> str:
    """Return an answer as the choices would say it: true as yes where they are yes and no."""
    known = {folded(choice) for choice in choices}
    sense = truth(answer) if answer.casefold() in ("true", "false") and answer.casefold() not in known else None
    return ("yes" if sense else "no") if sense is not None and {"yes", "no"} <= known else answer


def answer_index(
    answer: Any, choices: Sequence[str], labels: Sequence[str], first: int = 0, by: AnswerBy | None = None
) -> int | None:
    """Whole numbers count from `first`; texts are a choice, then its label or letter, then a number as text.

    Labels that the file gives come before choices. By mark the choice comes last. By text a number that is no choice is
    none: it would be another one's place.
    """
    if isinstance(answer, float) and answer.is_integer():  # a column of numbers with a gap in it
        answer = int(answer)
    if _is_whole(answer) and by != "text":
        return _place(answer, choices, labels, first)
    text = _said(str(answer).strip(), choices)
    texts, marks = _names(choices, labels, first)
    orders = {
        "mark": [*marks, *texts],
        "text": [*texts, *([] if _is_whole(answer) else marks[:1])],
        None: [marks[0], *texts, marks[1]] if labels else [*texts, *marks],
    }
    for known in orders[by]:
        if text.casefold() in known:
            return known.index(text.casefold())
    lettered = re.fullmatch(r"[(\[]?([A-Za-z])[).\]:]?(\s.*)?", text, re.DOTALL)  # "(B)", "B.", "B) 21"
    if lettered and (lettered[2] is None or folded(lettered[2]) in map(folded, choices)):
        known = [name.casefold() for name in labels or LETTERS][: len(choices)]
        index = known.index(lettered[1].casefold()) if lettered[1].casefold() in known else None
        if index is not None and (lettered[2] is None or folded(lettered[2]) == folded(choices[index])):
            return index
    return None
