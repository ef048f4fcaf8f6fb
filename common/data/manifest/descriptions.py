"""Say in a line what a source's rows were taken for, for plans and logs.

Usage: `describe(source, records)`: "ShareGPT conversations (conversations); not read: id".

It decides nothing: which columns are read is in the source by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.data.manifest.calls import parsed
from common.data.manifest.columns import usual_beside
from common.data.manifest.files.texts import PARAGRAPH_CHARACTERS
from common.data.manifest.schema import Source
from common.data.manifest.values import ABSENT, lookup

MOST_NAMES = 6  # of columns that are not read


def describe(source: Source, records: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the kind of the rows, the columns that they are made of, and those of the records that nobody reads."""
    if source.is_plain_text:
        joined = f", joined to about {PARAGRAPH_CHARACTERS:,} characters" if source.unit == "paragraph" else ""
        return f"text, a row for each {source.unit}{joined}"
    here: list[str] = []  # columns that some records have
    later: list[str] = []  # those that a later record may have
    for ours, theirs in source.named_columns.items():
        text = theirs if isinstance(theirs, str) else " + ".join(theirs)
        names = (theirs,) if isinstance(theirs, str) else theirs
        lacking = bool(records) and not any(lookup(record, name) is not ABSENT for record in records for name in names)
        (later if lacking else here).append(text if ours == text else f"{ours}: {text}")
    named = ", ".join(here)
    keys = ("match", "final", "index_from", "answer_by", "turns", "system_turns")
    extra = [key for key in keys if getattr(source, key) != Source.model_fields[key].default]
    facts = "".join(f", {key} {getattr(source, key)}" for key in extra)
    read = {*read_columns(source)}
    unread = [name for name in dict.fromkeys(name for record in records for name in record) if name not in read]
    more = f" and {len(unread) - MOST_NAMES} more" if len(unread) > MOST_NAMES else ""
    shown = [name or "a column without a name" for name in unread[:MOST_NAMES]]
    left = f"; not read: {', '.join(shown)}{more}" if unread else ""
    beside = f"; where a row has them: {', '.join(later)}" if later else ""
    form = None if source.formed is None else source.formed[0]
    written = "" if form is None else f", written as {form.name}: {form.phrase} ({form.paper})"
    return f"{_kind(source, records)} ({named}{facts}){written}{beside}{left}"


def _kind(source: Source, records: Sequence[Mapping[str, Any]]) -> str:
    names = source.columns
    if source.shape == "text":
        return "text"
    if source.shape == "parallel":
        return "texts with their translations"
    if source.shape == "preference":
        if "transcript_chosen" in names:
            return "pairs of transcripts"
        return "single answers with a label" if source.unpaired else "pairs of answers"
    if source.shape == "questions":
        return "questions with choices" if source.match is None else "questions with written answers"
    if source.shape == "prompts":
        return "prompts with known answers" if "answer" in names else "prompts"
    if "messages" in names:
        return f"{_writer(source, records)} conversations"
    if "completion" in names:
        return "prompts and completions"
    alpaca = (names.get("question"), names.get("answer")) == ("instruction", "output")
    return "Alpaca instructions" if alpaca else "questions and answers"


def _writer(source: Source, records: Sequence[Mapping[str, Any]]) -> str:
    """Name the notation of the first message: the key of its speaker says it."""
    for record in records:
        value = parsed(lookup(record, str(source.columns["messages"])))
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, Mapping):
            return "ShareGPT" if "from" in first else "OpenAI" if "role" in first else "other"
    return "chat" if not records else "unreadable"


def read_columns(source: Source) -> Iterator[str]:
    """Yield the columns of a record that its row is made of or chosen by."""
    theirs = [
        name for names in source.named_columns.values() for name in ([names] if isinstance(names, str) else names)
    ]
    for column in (*theirs, *source.where):
        yield column
        yield column.partition(".")[0]
    if source.each is not None:
        yield source.each
    yield from usual_beside(source.shape, source.columns.keys())
