"""Turn a raw record into a row: text, chat, prompt, preference or question, by the columns that a source names.

Usage: `row = shape_row(source, record)`; raises `UnusableRow` with the reason when the record gives no row.

It decides about one record at a time and reads no file. Which records a source uses is `common.data.manifest.records`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from common.data.accounting import TOOL_CALLS
from common.data.answers import final_answer, parse_number
from common.data.corpus import Row
from common.data.manifest.readers import Record
from common.data.manifest.schema import Shape, Source
from common.data.manifest.values import ABSENT, UnusableRow, answer_of, folded, joined, lookup, text_of
from common.errors import DataError

_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def shape_row(source: Source, record: Record) -> Row:
    """Return the row of a record. Raises UnusableRow (to be counted), or DataError for a question with no answer."""
    row = _SHAPERS[source.shape](source, record)
    if source.language is not None:
        row["language"] = source.language
    if source.control_tokens:
        row["control_tokens"] = list(source.control_tokens)
    row["source"] = source.id
    return row


def _column(source: Source, record: Record, name: str) -> Any:
    """The value that a source's column holds; None where the source names none or the record lacks it."""
    column = source.named_columns.get(name)
    if column is None:
        return None
    if isinstance(column, tuple):
        return [lookup(record.value, item) for item in column]
    value = lookup(record.value, column)
    return None if value is ABSENT else value


def _joined_column(source: Source, record: Record, name: str) -> str:
    """The text of a column, or of a list of columns joined by blank lines; '' where there is none."""
    columns = source.named_columns.get(name, ())
    columns = (columns,) if isinstance(columns, str) else columns
    texts = [joined(lookup(record.value, column), name) for column in columns]
    return "\n\n".join(text for text in texts if text)


def _text_row(source: Source, record: Record) -> Row:
    value = _column(source, record, "text")
    return {"text": text_of(_joined_column(source, record, "text") if isinstance(value, list) else value, "text")}


def _chat_row(source: Source, record: Record) -> Row:
    if "messages" in source.columns:
        messages = _messages(_column(source, record, "messages"), "messages")
        if messages[-1]["role"] != "assistant":
            raise UnusableRow("messages do not end with an answer")
        return {"messages": messages}
    prompt, answer = _dialogue(source, record)
    return {"messages": [*prompt, {"role": "assistant", "content": answer}]}


def _prompt_row(source: Source, record: Record) -> Row:
    if "answer" not in source.columns:
        return {"prompt": _asking(source, record, _question(source, record))}
    prompt, answer = _dialogue(source, record)
    choices = {"choices": _choices_and_answer(source, record)[0]} if "choices" in source.columns else {}
    return {"prompt": prompt, "answer": _final(source, answer), **choices}


def _dialogue(source: Source, record: Record) -> tuple[list[dict[str, str]], str]:
    """Return the messages that ask, and the answer."""
    question = _question(source, record)
    if "choices" in source.columns:
        choices, index = _choices_and_answer(source, record)
        letters = _LETTERS[: len(choices)]
        lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
        question, answer = "\n".join([question, *lines]), lines[index]
    else:
        answer = answer_of(_column(source, record, "answer"))
    return _asking(source, record, question), answer


def _asking(source: Source, record: Record, question: str) -> list[dict[str, str]]:
    system = _joined_column(source, record, "system")
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": _with_context(source, record, question)}]


def _question(source: Source, record: Record) -> str:
    return text_of(source.question or _joined_column(source, record, "question"), "question").strip()


def _with_context(source: Source, record: Record, question: str, *, context_first: bool = False) -> str:
    """Join question and context; a fixed question comes last, after what it is about, in training and exam alike."""
    context = _joined_column(source, record, "context")
    if source.question is not None and not context:
        raise UnusableRow("empty context")
    parts = [context, question] if context_first or source.question is not None else [question, context]
    return "\n\n".join(part for part in parts if part)


def _final(source: Source, answer: str) -> str:
    """Return the line behind the last mark, as replies are cut, or the whole answer where the source names no mark."""
    if source.final is None:
        return answer
    if source.final not in answer:
        raise UnusableRow(f"no {source.final} in answer")
    return text_of(final_answer(answer, source.final), "final answer")


def _messages(value: Any, name: str) -> list[dict[str, str]]:
    """Return a conversation with role and content only, the user first and then by turns."""
    if not isinstance(value, list) or not value:
        raise UnusableRow(f"empty {name}")
    messages = []
    for item in value:
        if isinstance(item, Mapping) and (item.get("tool_calls") or item.get("role") == "tool"):
            raise UnusableRow(TOOL_CALLS)
        if not isinstance(item, Mapping) or item.get("role") not in ("system", "user", "assistant"):
            raise UnusableRow(f"{name} hold an unknown role")
        messages.append({"role": str(item["role"]), "content": text_of(item.get("content"), name)})
    turns = [message["role"] for message in messages]
    turns = turns[1:] if turns[0] == "system" else turns
    if any(turn != ("user", "assistant")[place % 2] for place, turn in enumerate(turns)):
        raise UnusableRow(f"{name} do not alternate")
    return messages


def _preference_row(source: Source, record: Record) -> Row:
    if "transcript_chosen" in source.columns:
        chosen = _transcript(_column(source, record, "transcript_chosen"))
        rejected = _transcript(_column(source, record, "transcript_rejected"))
        prompt: list[dict[str, str]] = []
    else:
        given = _column(source, record, "prompt")
        if isinstance(given, list):
            prompt = _messages(given, "prompt")
        else:
            text = joined(given, "prompt")
            prompt = [{"role": "user", "content": text}] if text else []
        chosen = _continuation(_column(source, record, "chosen"), "chosen", prompt)
        rejected = _continuation(_column(source, record, "rejected"), "rejected", prompt)
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise UnusableRow("chosen equals rejected")
    prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    if not prompt or prompt[-1]["role"] != "user":
        raise UnusableRow("chosen and rejected answer different prompts")
    if any(len(side) != 1 or side[0]["role"] != "assistant" for side in (chosen, rejected)):
        raise UnusableRow("chosen and rejected differ before the last answer")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _continuation(value: Any, name: str, prompt: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return what follows the prompt: a text is one answer; a conversation may repeat the prompt first."""
    if not isinstance(value, list):
        return [{"role": "assistant", "content": text_of(value, name).strip()}]
    if not value or not all(isinstance(item, Mapping) for item in value):
        raise UnusableRow(f"empty {name}")
    if value[0].get("role") == "assistant":
        return _messages([*prompt, *value], name)[len(prompt) :]
    messages = _messages(value, name)
    # As contents are compared without outer blanks, a prompt given twice still counts as the same.
    same = [message["content"].strip() for message in messages[: len(prompt)]]
    if prompt and same != [message["content"].strip() for message in prompt]:
        raise UnusableRow(f"{name} does not begin with the prompt")
    return messages[len(prompt) :]


def _transcript(value: Any) -> list[dict[str, str]]:
    """Split a transcript like those of hh-rlhf, "\\n\\nHuman: ...\\n\\nAssistant: ...", into messages."""
    pieces = _TURN.split("\n\n" + text_of(value, "transcript").lstrip("\n"))
    if pieces[0].strip() or len(pieces) < 3:
        raise UnusableRow("transcript does not begin with a turn")
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return _messages([{"role": _SPEAKERS[who], "content": text.strip()} for who, text in turns], "transcript")


def _question_row(source: Source, record: Record) -> Row:
    if source.match is not None:
        return _written_row(source, record)
    question = _with_context(source, record, _question(source, record), context_first=True)
    choices, answer = _choices_and_answer(source, record)
    return {"id": _question_id(source, record), "question": question, "choices": choices, "answer": answer}


def _written_row(source: Source, record: Record) -> Row:
    """Return a question whose answer is written out; it is asked as chat rows are, so that both look the same."""
    question = _with_context(source, record, _question(source, record))
    if "answers" in source.columns:
        given = _column(source, record, "answers")
        accepted = [answer_of(item, "answers") for item in (given if isinstance(given, list) else [given])]
    else:
        accepted = [answer_of(_column(source, record, "answer"))]
    answers = list(dict.fromkeys(_final(source, answer) for answer in accepted))
    if source.match == "number":
        answers = [answer for answer in answers if parse_number(answer) is not None]
    if not answers:
        raise UnusableRow("no number in answer" if accepted else "empty answers")
    facts = {"answers": answers, "match": source.match, "final": source.final}
    return {"id": _question_id(source, record), "question": question, **facts}


def _question_id(source: Source, record: Record) -> str:
    name = _column(source, record, "id")
    return f"{source.id}:{record.number if name is None else name}"


def _choices_and_answer(source: Source, record: Record) -> tuple[list[str], int]:
    """Return the choices and the index of the right one. Raises DataError when it is none of them, or two are equal."""
    labels: list[str] = []
    given = list(source.choices) if source.choices else _column(source, record, "choices")
    if isinstance(given, Mapping):  # {"A": "...", "B": "..."}
        labels, given = [str(label) for label in given], list(given.values())
    if not isinstance(given, list) or len(given) < 2:
        raise UnusableRow("fewer than two choices")
    choices = [text_of(str(item) if isinstance(item, int | float) else item, "choice").strip() for item in given]
    _check_distinct(source, record, choices)
    if (column := _column(source, record, "labels")) is not None:
        labels = [str(label) for label in column] if isinstance(column, list) else []
    answer = _column(source, record, "answer")
    if isinstance(answer, list):  # a list of labels with one in it
        if len(answer) > 1:
            raise UnusableRow("several answers")
        answer = answer[0] if answer else None
    if answer is None or answer == "":
        raise UnusableRow("empty answer")
    index = _answer_index(answer, choices, labels or list(_LETTERS[: len(choices)]))
    if index is None:
        raise DataError(
            f"Source '{source.id}', {record.where}: the answer {answer!r} is none of the choices {choices}. "
            "Expected an index from 0, a letter from A, or the text of a choice."
        )
    return choices, index


def _check_distinct(source: Source, record: Record, choices: list[str]) -> None:
    seen = [folded(choice) for choice in choices]
    twice = next((choice for choice in choices if seen.count(folded(choice)) > 1), None)
    if twice is None:
        return
    if source.hub is not None:  # only its owner can fix it
        raise UnusableRow("a choice is given twice")
    raise DataError(
        f"Source '{source.id}', {record.where}: the choice {twice!r} is given twice in {choices}, so a right answer "
        "could be among its own distractors. Fix or remove the question."
    )


def _answer_index(answer: Any, choices: list[str], labels: list[str]) -> int | None:
    """Whole numbers count from 0; texts are a choice itself, then its label or letter, then a number as text."""
    if isinstance(answer, int) and not isinstance(answer, bool):  # JSON's true is no index
        return answer if 0 <= answer < len(choices) else None
    text = str(answer).strip().casefold()
    for names in (choices, labels, [str(place) for place in range(len(choices))]):
        known = [name.casefold() for name in names]
        if text in known[: len(choices)]:
            return known.index(text)
    return None


_SHAPERS: dict[Shape, Callable[[Source, Record], Row]] = {
    "text": _text_row,
    "chat": _chat_row,
    "prompts": _prompt_row,
    "preference": _preference_row,
    "questions": _question_row,
}
