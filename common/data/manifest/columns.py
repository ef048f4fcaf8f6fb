"""Which columns each kind of row needs, in each of the ways that files have them.

Usage: `form_of("chat", {"question", "answer"})`; None where the names make no row of that kind.

It knows names only. Which column of a file goes under which name is the manifest's to say, or recognised from the file
by `common.data.manifest.recognition`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

Shape = Literal["text", "chat", "preference", "prompts", "questions", "parallel"]
LISTS_OF_COLUMNS = ("choices", "context", "prompt", "question", "text")  # several of theirs may make one of ours

# Columns beside a conversation that are read where the manifest names none: files that have them mean them.
USUAL_SYSTEM = ("system", "system_prompt")
USUAL_TOOLS = ("tools", "functions")
MEDIA = (("image", "images"), ("video", "videos"), ("audio", "audios"))
# The same for the scores of a pair: of the better and of the worse answer.
SCORES = tuple(
    (name.format("chosen"), name.format("rejected"))
    for name in ("score_{}", "{}_score", "{}-score", "rating_{}", "{}_rating", "{}-rating", "reward_{}", "{}_reward")
)


class Columns(NamedTuple):
    """One way of naming the columns of a kind of row."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()


_BESIDE = frozenset({"system", "tools"})  # of a conversation
_DIALOGUE = Columns(
    frozenset({"question", "answer"}), frozenset({"system", "context", "choices", "labels", "history", "reasoning"})
)
_WAYS: dict[Shape, tuple[Columns, ...]] = {
    "text": (Columns(frozenset({"text"})),),
    "chat": (
        Columns(frozenset({"messages"}), _BESIDE),
        _DIALOGUE,
        Columns(frozenset({"prompt", "completion"}), _BESIDE),
    ),
    "prompts": (
        Columns(_DIALOGUE.required, _DIALOGUE.optional - {"history", "reasoning"}),
        Columns(frozenset({"question"}), frozenset({"system", "context"})),  # for rewards that need no known answer
        Columns(frozenset({"prompt"}), frozenset({"answer", "system"})),
    ),
    "preference": (
        Columns(frozenset({"transcript_chosen", "transcript_rejected"})),
        Columns(frozenset({"chosen", "rejected"}), _BESIDE | {"prompt", "score_chosen", "score_rejected"}),
        Columns(frozenset({"prompt", "completion", "label"}), _BESIDE),
        Columns(frozenset({"messages", "label"}), _BESIDE),
    ),
    "questions": (
        Columns(frozenset({"question", "answer"}), frozenset({"answers", "choices", "labels", "context", "id"})),
        Columns(frozenset({"question", "answers"}), frozenset({"choices", "labels", "context", "id"})),
    ),
    "parallel": (Columns(frozenset({"source", "target"}), frozenset({"document"})),),
}
# Training rows of every kind may have a date, which blocks read and no stage learns from.
COLUMNS: dict[Shape, tuple[Columns, ...]] = {
    shape: ways if shape == "questions" else tuple(Columns(way.required, way.optional | {"date"}) for way in ways)
    for shape, ways in _WAYS.items()
}


def form_of(shape: Shape, names: AbstractSet[str]) -> Columns | None:
    """Return the first way of naming a kind of row whose required names are all there."""
    return next((form for form in COLUMNS[shape] if form.required <= names), None)


def names_of(*shapes: Shape) -> frozenset[str]:
    """Return all names that columns of these kinds of rows may have on our side."""
    return frozenset().union(*(form.required | form.optional for shape in shapes for form in COLUMNS[shape]))


def with_rare(shape: Shape, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a file of JSON with those beside them that its first records may lack, by their usual names."""
    full = dict(columns)
    taken = {name for theirs in columns.values() for name in ((theirs,) if isinstance(theirs, str) else theirs)}
    for ours, theirs in _rare(shape, columns):
        if theirs in taken:
            continue
        if ours in ("choices", "prompt"):
            before = columns[ours]
            full[ours] = (*((before,) if isinstance(before, str) else before), theirs)
        else:
            full.setdefault(ours, theirs)
    return full


def are_rare(shape: Shape, columns: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the pairs of our name and theirs among columns that a file of JSON may lack in its first records."""
    shorter = {ours: theirs if isinstance(theirs, str) else theirs[:-1] for ours, theirs in columns.items()}
    return {*_rare(shape, columns), *_rare(shape, shorter)}


def _rare(shape: Shape, columns: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield our name and theirs of the columns that may go with some."""
    if "question" in columns:
        yield "context", "input" if columns["question"] == "instruction" else "context"
    if "question" in columns and shape in ("chat", "prompts"):
        yield "system", "system"
    if {"question", "answer"} <= columns.keys() and shape == "chat":
        yield "history", "history"
    if shape == "preference" and columns.get("prompt") in ("instruction", ("instruction",)):
        yield "prompt", "input"
    if shape == "preference" and columns.get("prompt") == "input.messages":
        yield "tools", "input.tools"
    choices = columns.get("choices", ())
    if isinstance(choices, tuple) and choices and choices[-1][-1:] not in ("", "9", "j", "J", "z", "Z"):
        yield "choices", choices[-1][:-1] + chr(ord(choices[-1][-1]) + 1)


def is_of_messages(names: AbstractSet[str]) -> bool:
    """Whether rows are made of messages, and not of single columns."""
    return bool(names & {"messages", "completion", "chosen", "label"})


def usual_beside(shape: Shape, names: AbstractSet[str]) -> tuple[str, ...]:
    """Return the columns of a record that are read without being named, for rows of some named columns."""
    if not is_of_messages(names):
        return ()
    scores = [name for pair in SCORES for name in pair] if shape == "preference" and "label" not in names else []
    media = [name for pair in MEDIA for name in pair]
    return (*USUAL_SYSTEM, *USUAL_TOOLS, *media, *scores)
