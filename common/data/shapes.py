"""Turn a raw record into a row: text, chat, preference or question, by the columns that a source names.

Usage: `row = shape_row(source, record)`; raises `UnusableRow` with the reason when the record gives no row.

It decides about one record at a time and reads no file. What a whole source keeps is `common.data.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from common.data.corpus import Row
from common.data.schema import Shape, Source
from common.data.sources import Record
from common.errors import DataError

ABSENT = object()
_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class UnusableRow(Exception):
    """The record gives no row; the message is the reason that is counted."""


def lookup(record: Any, column: str) -> Any:
    """Return the value of a column, `instances.0.output` reaching into lists and objects, or ABSENT."""
    if isinstance(record, Mapping) and column in record:
        return record[column]
    value = record
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def shape_row(source: Source, record: Record) -> Row:
    """Return the row of a record. Raises UnusableRow (to be counted), or DataError for a question with no answer."""
    row = _SHAPERS[source.shape](source, record)
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


def _text(value: Any, name: str) -> str:
    """Return a text as it is. Raises UnusableRow when it is missing, empty, no text, or cannot be encoded."""
    if value is None:
        raise UnusableRow(f"empty {name}")
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is no text")
    if not value.strip():
        raise UnusableRow(f"empty {name}")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer takes
        raise UnusableRow(f"broken characters in {name}") from None
    return value


def _optional_text(value: Any, name: str) -> str:
    """Like `_text`, but a missing or empty one gives ''; a list of texts is joined."""
    if isinstance(value, list):
        return "\n\n".join(_text(item, name).strip() for item in value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    return _text(value, name).strip()


def _text_row(source: Source, record: Record) -> Row:
    return {"text": _text(_column(source, record, "text"), "text")}


def _chat_row(source: Source, record: Record) -> Row:
    if "messages" in source.columns:
        messages = _messages(_column(source, record, "messages"), "messages")
        if messages[-1]["role"] != "assistant":
            raise UnusableRow("messages do not end with an answer")
        return {"messages": messages}
    question = _text(_column(source, record, "question"), "question").strip()
    if "choices" in source.columns:
        question, answer = _choice_dialogue(source, record, question)
    else:
        answer = _text(_column(source, record, "answer"), "answer").strip()
    context = _optional_text(_column(source, record, "context"), "context")
    system = _optional_text(_column(source, record, "system"), "system")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": f"{question}\n\n{context}" if context else question})
    messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def _choice_dialogue(source: Source, record: Record, question: str) -> tuple[str, str]:
    choices, answer = _choices_and_answer(source, record)
    lines = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)]
    return "\n".join([question, *lines]), f"{_LETTERS[answer]}. {choices[answer]}"


def _messages(value: Any, name: str) -> list[dict[str, str]]:
    """Return a conversation with role and content only, the user first and then by turns."""
    if not isinstance(value, list) or not value:
        raise UnusableRow(f"empty {name}")
    messages = []
    for item in value:
        if not isinstance(item, Mapping) or item.get("role") not in ("system", "user", "assistant"):
            raise UnusableRow(f"{name} hold an unknown role")
        messages.append({"role": str(item["role"]), "content": _text(item.get("content"), name)})
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
            text = _optional_text(given, "prompt")
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
        return [{"role": "assistant", "content": _text(value, name).strip()}]
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
    pieces = _TURN.split("\n\n" + _text(value, "transcript").lstrip("\n"))
    if pieces[0].strip() or len(pieces) < 3:
        raise UnusableRow("transcript does not begin with a turn")
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return _messages([{"role": _SPEAKERS[who], "content": text.strip()} for who, text in turns], "transcript")


def _question_row(source: Source, record: Record) -> Row:
    question = _text(_column(source, record, "question"), "question").strip()
    context = _optional_text(_column(source, record, "context"), "context")
    choices, answer = _choices_and_answer(source, record)
    name = _column(source, record, "id")
    return {
        "id": f"{source.id}:{record.where.rsplit(' ', 1)[-1] if name is None else name}",
        "question": f"{context}\n\n{question}" if context else question,
        "choices": choices,
        "answer": answer,
    }


def _choices_and_answer(source: Source, record: Record) -> tuple[list[str], int]:
    """Return the choices and the index of the right one. Raises DataError when it is none of them."""
    labels: list[str] = []
    given = list(source.choices) if source.choices else _column(source, record, "choices")
    if isinstance(given, Mapping):  # {"A": "...", "B": "..."}
        labels, given = [str(label) for label in given], list(given.values())
    if not isinstance(given, list) or len(given) < 2:
        raise UnusableRow("fewer than two choices")
    choices = [_text(str(item) if isinstance(item, int | float) else item, "choice").strip() for item in given]
    if (column := _column(source, record, "labels")) is not None:
        labels = [str(label) for label in column] if isinstance(column, list) else []
    answer = _column(source, record, "answer")
    if answer is None or answer == "":
        raise UnusableRow("empty answer")
    index = _answer_index(answer, choices, labels or list(_LETTERS[: len(choices)]))
    if index is None:
        raise DataError(
            f"Source '{source.id}', {record.where}: the answer {answer!r} is none of the choices {choices}. "
            "Expected an index from 0, a letter from A, or the text of a choice."
        )
    return choices, index


def _answer_index(answer: Any, choices: list[str], labels: list[str]) -> int | None:
    """Whole numbers count from 0; texts are a choice itself, then its label or letter, then a number as text."""
    if isinstance(answer, int) and not isinstance(answer, bool):  # JSON's true is no index
        return answer if 0 <= answer < len(choices) else None
    text = str(answer).strip().casefold()
    for names in (choices, labels, [str(place) for place in range(len(choices))]):
        folded = [name.casefold() for name in names]
        if text in folded[: len(choices)]:
            return folded.index(text)
    return None


_SHAPERS: dict[Shape, Callable[[Source, Record], Row]] = {
    "text": _text_row,
    "chat": _chat_row,
    "preference": _preference_row,
    "questions": _question_row,
}
