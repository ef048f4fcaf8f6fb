"""Tell from some records of a file which of its columns make a row: the columns that a manifest leaves out.

Usage: `keys = recognise(source, records)`, then `Source.model_validate(source.model_dump() | keys)`.

It decides only where names and values leave one reading; else it raises `Unclear` with what it saw. Columns that the
manifest gives stay. Exams are recognised by `common.data.manifest.recognised_exams`, pairs of answers or of
translations by `recognised_pairs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.config.forms import FormSettings
from common.data.manifest.columns import USUAL_SYSTEM, Shape
from common.data.manifest.fields import CONVERSATIONS, NUMBER_OR_TEXT, Fields, Unclear
from common.data.manifest.recognised_exams import GSM8K_MARK, exam_keys, has_choices, right_and_wrong, written_keys
from common.data.manifest.recognised_pairs import CHOSEN, REJECTED, parallel_columns, preference_columns
from common.data.manifest.schema import Source

Keys = dict[str, Any]
QUESTIONS = ("instruction", "question", "query", "prompt", "problem", "input", "q", "user", "human")
ANSWERS = ("output", "response", "answer", "completion", "solution", "a", "assistant", "gpt", "reply")
SYSTEM = (*USUAL_SYSTEM, "system_message")
CONTEXT = ("context", "passage")
VERIFIED = ("answer", "solution", "ground_truth", "final_answer", "target")
TEXTS = ("content", "body", "article", "document", "passage", "page_content", "raw_content", "markdown")
WAYS: dict[Shape, str] = {
    "chat": "columns: {messages: …} or columns: {question: …, answer: …}",
    "text": "columns: {text: …}",
    "preference": "columns: {prompt: …, chosen: …, rejected: …} or columns: {prompt: …, completion: …, label: …}",
    "prompts": "columns: {question: …}, with answer where a program checks it",
    "parallel": "columns: {source: …, target: …}",
    "questions": "columns: {question: …, choices: …, answer: …}, or question and answer with match: text or number",
}


def recognise(source: Source, records: Sequence[Mapping[str, Any]]) -> Keys:
    """Return the keys that make a source of one whose columns are not all named: columns, and what exams need."""
    fields = Fields(records, source.each).without(source.columns.values())
    readers: dict[str, Callable[[], Keys]] = {
        "sft": lambda: _chat(fields),
        "preference": lambda: {"columns": preference_columns(fields, source.columns)},
        "prompts": lambda: _prompts(source, fields),
        "replay": lambda: _replay(fields),
        "eval": lambda: _exam(source, fields),
    }
    read = readers.get(source.role, lambda: _text(fields))
    keys = read() if source.formed is None else _formed(source, fields, source.formed[1])
    return keys | {"columns": {**keys["columns"], **source.columns}}


def _formed(source: Source, fields: Fields, own: FormSettings) -> Keys:
    """Return the columns of a source with a form, which says what kinds of rows it takes."""
    if source.kinds == ("parallel",):
        return {"columns": parallel_columns(fields, getattr(own, "languages", ()))}
    if "preference" in source.kinds and fields.first(CHOSEN) and fields.first(REJECTED):
        return {"columns": preference_columns(fields, source.columns)}
    return _chat(fields)


def _text(fields: Fields) -> Keys:
    found = ["text"] if "text" in fields.names else [name for name in TEXTS if fields.holds(name, str)]
    found = found or [name for name in fields.names if len(fields.names) == 1 and fields.holds(name, str)]
    if len(found) > 1:
        raise Unclear(f"{fields.both(found)} could be the text")
    if not found:
        raise Unclear("")
    return {"columns": {"text": fields.column(found[0])}}


def _replay(fields: Fields) -> Keys:
    if fields.conversations() or "text" not in fields.names:
        try:
            return _chat(fields)
        except Unclear:
            if len(fields.names) > 1 and not any(fields.holds(name, str) for name in TEXTS):
                raise
    return _text(fields)


def _exam(source: Source, fields: Fields) -> Keys:
    if fields.first(CHOSEN) and fields.first(REJECTED):
        return {"columns": preference_columns(fields, source.columns)}
    chosen = has_choices(fields) or source.choices is not None or right_and_wrong(fields)
    if source.match is None and chosen:
        return exam_keys(fields, source.columns, fixed=source.choices)
    if "text" in fields.names and "question" not in fields.names and not source.columns:
        return _text(fields)
    try:
        return written_keys(fields, source.columns, source.match, source.final)
    except Unclear as unclear:
        if str(unclear) or source.columns or source.match is not None:
            raise
        return _text(fields)


def _chat(fields: Fields) -> Keys:
    if fields.is_conversation("prompt") and fields.is_answer("completion"):
        return {"columns": {"prompt": fields.column("prompt"), "completion": fields.column("completion")}}
    if talks := [name for name in fields.conversations() if name not in (*CHOSEN, *REJECTED, "prompt", "completion")]:
        known = [name for name in CONVERSATIONS if name in talks][:1] or talks
        if len(known) > 1:
            raise Unclear(f"{fields.both(known)} hold conversations")
        return {"columns": {"messages": fields.column(known[0])}}
    if has_choices(fields):
        return exam_keys(fields, {})
    question, answer = clear(fields, QUESTIONS, "the question"), clear(fields, ANSWERS, "the answer")
    if (question, answer) == ("prompt", "completion"):
        return {"columns": {"prompt": fields.column(question), "completion": fields.column(answer)}}
    named = {"question": fields.column(question), "answer": fields.column(answer)}
    return {"columns": named | _beside(fields, question)}


def _beside(fields: Fields, question: str) -> Keys:
    """Return the columns that go with a question: what it is about, system text, the turns before it."""
    about = ["input"] if question == "instruction" and fields.fits("input", str) else []
    about += [name for name in CONTEXT if fields.holds(name, (str, list))]
    found: Keys = {"context": fields.columns(about)} if about else {}
    if system := next((name for name in SYSTEM if fields.fits(name, str)), None):
        found["system"] = fields.column(system)
    if fields.holds("history", list):
        found["history"] = fields.column("history")
    return found


def clear(fields: Fields, names: Sequence[str], what: str) -> str:
    """Return the one column that goes by one of some names; an instruction's input is what it is about."""
    found = [name for name in names if fields.holds(name, NUMBER_OR_TEXT) and not fields.is_conversation(name)]
    if found[:1] == ["instruction"]:
        found = [name for name in found if name != "input"]
    if len(found) > 1:
        raise Unclear(f"{fields.both(found)} could be {what}")
    if not found:
        raise Unclear(f"none is {what}")
    return found[0]


def _prompts(source: Source, fields: Fields) -> Keys:
    if has_choices(fields):
        return exam_keys(fields, source.columns)
    answers = [name for name in VERIFIED if fields.holds(name, NUMBER_OR_TEXT)]
    if len(answers) > 1 and "answer" not in source.columns:
        raise Unclear(f"{fields.both(answers)} could be the answer")
    named = {"answer": fields.column(answers[0])} if answers else {}
    if talks := [name for name in ("prompt", *CONVERSATIONS) if fields.is_conversation(name)]:
        named["prompt"] = fields.column(talks[0])
    elif "question" not in source.columns:
        question = clear(fields, QUESTIONS, "the question")
        named |= {"question": fields.column(question)} | _beside(fields, question)
        named.pop("history", None)
    marked = answers and source.final is None and all(GSM8K_MARK in str(value) for value in fields.values(answers[0]))
    return {"columns": named} | ({"final": GSM8K_MARK.strip()} if marked else {})
