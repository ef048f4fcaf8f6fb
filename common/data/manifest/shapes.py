"""Turn a raw record into a row: text, chat, prompt, preference or question, by the columns that a source names.

Usage: `row = shape_row(source, record)`; raises `UnusableRow` with the reason when the record gives no row.

It decides about one record at a time and reads no file. Which records a source uses is `common.data.manifest.records`.
Where a source has a form, that writes the row down (`common.config.forms`). A row that is not all of its record says
so: `changed` are the reasons, for the accounts.
"""

from __future__ import annotations

from collections.abc import Callable

from common.data.corpus import Row
from common.data.dates import LONGEST
from common.data.manifest.calls import parsed
from common.data.manifest.cells import cell, joined_cells
from common.data.manifest.columns import Shape, is_of_messages
from common.data.manifest.conversations import arranged, conversation, folded, with_changes, with_tools
from common.data.manifest.messages import Message, is_conversation, read_messages
from common.data.manifest.pairs import preference_row
from common.data.manifest.parallel import parallel_row
from common.data.manifest.questions import (
    LETTERS,
    choices_and_answer,
    final_of,
    question_of,
    question_row,
    with_context,
)
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow, answer_of, joined, text_of


def shape_row(source: Source, record: Record) -> Row:
    """Return the row of a record. Raises UnusableRow with the reason why there is none."""
    row = _SHAPERS[source.shape](source, record)
    if source.formed is not None:
        form, own = source.formed
        row = with_changes(form.write(row, own), [*row.get("changed", ())])
    if source.language is not None:
        row["language"] = source.language
    if (when := cell(source, record, "date")) is not None:
        row["date"] = when if isinstance(when, int) else str(when)[:LONGEST]
    if source.control_tokens:
        row["control_tokens"] = list(source.control_tokens)
    row["source"] = source.id
    return row


def _text_row(source: Source, record: Record) -> Row:
    value = cell(source, record, "text")
    return {"text": text_of(joined_cells(source, record, "text") if isinstance(value, list) else value, "text")}


def _chat_row(source: Source, record: Record) -> Row:
    changes: list[str] = []
    if "messages" in source.columns:
        messages = conversation(source, record, cell(source, record, "messages"), "messages", changes)
    elif "completion" in source.columns:
        messages = _completed(source, record, changes)
    else:
        prompt, answer = _dialogue(source, record)
        reply: Message = {"role": "assistant", "content": answer}
        if thoughts := joined_cells(source, record, "reasoning"):
            reply["reasoning_content"] = thoughts
        messages = folded(source, [*prompt, reply], changes)
    row: Row = {"messages": messages}
    if is_of_messages(source.columns.keys()):
        row = with_tools(source, record, row, changes)
    return with_changes(row, changes)


def _completed(source: Source, record: Record, changes: list[str]) -> list[Message]:
    """Return a prompt and what completes it, each a text or a list of messages."""
    turns: list[Message] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        value = cell(source, record, name)
        if is_conversation(value) or not isinstance(value, str | None):
            turns += read_messages(value, name, changes)
        else:
            turns.append({"role": role, "content": text_of(value, name).strip()})
    return folded(source, arranged(source, record, turns, changes), changes)


def _prompt_row(source: Source, record: Record) -> Row:
    changes: list[str] = []
    if "prompt" in source.columns:
        value = cell(source, record, "prompt")
        given = isinstance(value, str | None) and not is_conversation(value)
        asked = {"role": "user", "content": text_of(value, "prompt").strip()} if given else value
        prompt = conversation(source, record, [asked] if given else asked, "prompt", changes, answered=False)
        if prompt[-1]["role"] != "user":
            raise UnusableRow("prompt does not end in a user turn")
        answer = cell(source, record, "answer")
        known = {} if answer is None else {"answer": final_of(source, answer_of(answer))}
        return with_changes({"prompt": prompt, **known}, changes)
    if "answer" not in source.columns:
        prompt = folded(source, _asking(source, record, question_of(source, record)), changes)
        return with_changes({"prompt": prompt}, changes)
    prompt, answer = _dialogue(source, record)
    prompt = folded(source, prompt, changes)
    choices = {"choices": choices_and_answer(source, record)[0]} if "choices" in source.columns else {}
    return with_changes({"prompt": prompt, "answer": final_of(source, answer), **choices}, changes)


def _dialogue(source: Source, record: Record) -> tuple[list[Message], str]:
    """Return the messages that ask, and the answer."""
    question = question_of(source, record)
    if "choices" in source.columns:
        choices, index = choices_and_answer(source, record)
        letters = LETTERS[: len(choices)]
        lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
        question, answer = "\n".join([question, *lines]), lines[index]
    else:
        answer = answer_of(cell(source, record, "answer"))
    return _asking(source, record, question), answer


def _asking(source: Source, record: Record, question: str) -> list[Message]:
    system = joined_cells(source, record, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages += _history(source, record)
    return [*messages, {"role": "user", "content": with_context(source, record, question)}]


def _history(source: Source, record: Record) -> list[Message]:
    """Return the turns before a question, as Alpaca's files have them: pairs of a question and its answer."""
    given = parsed(cell(source, record, "history"))
    if given is None or given in ("", []):
        return []
    turns: list[Message] = []
    for pair in given if isinstance(given, list) else [given]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise UnusableRow("history that is no list of pairs")
        asked, answer = (text_of(joined(side, "history"), "history") for side in pair)
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return turns


_SHAPERS: dict[Shape, Callable[[Source, Record], Row]] = {
    "text": _text_row,
    "chat": _chat_row,
    "prompts": _prompt_row,
    "preference": preference_row,
    "questions": question_row,
    "parallel": parallel_row,
}
