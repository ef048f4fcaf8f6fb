"""Which columns each kind of row needs, in each of the ways that files have them.

Usage: `form_of("chat", {"question", "answer"})`; None where the names make no row of that kind.

It knows names only. Which column of a file goes under which name is the manifest's to say, or is told from the file by
`common.data.manifest.recognition`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

Shape = Literal["text", "chat", "preference", "prompts", "questions"]
LISTS_OF_COLUMNS = ("choices", "context", "prompt", "question", "text")  # several of theirs may make one of ours

# Columns beside a conversation that are read where the manifest names none: files that have them mean them.
USUAL_SYSTEM = ("system", "system_prompt")
USUAL_TOOLS = ("tools", "functions")
MEDIA = {"<image>": ("image", "images"), "<video>": ("video", "videos"), "<audio>": ("audio", "audios")}
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
COLUMNS: dict[Shape, tuple[Columns, ...]] = {
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
}


def form_of(shape: Shape, names: AbstractSet[str]) -> Columns | None:
    """Return the first way of naming a kind of row whose required names are all there."""
    return next((form for form in COLUMNS[shape] if form.required <= names), None)


def names_of(*shapes: Shape) -> frozenset[str]:
    """Return all names that columns of these kinds of rows may have on our side."""
    return frozenset().union(*(form.required | form.optional for shape in shapes for form in COLUMNS[shape]))


def is_of_messages(names: AbstractSet[str]) -> bool:
    """Whether rows are made of messages, and not of single columns."""
    return bool(names & {"messages", "completion", "chosen", "label"})


def usual_beside(shape: Shape, names: AbstractSet[str]) -> tuple[str, ...]:
    """Return the columns of a record that are read without being named, for rows of some named columns."""
    if not is_of_messages(names):
        return ()
    scores = [name for pair in SCORES for name in pair] if shape == "preference" and "label" not in names else []
    media = [name for pair in MEDIA.values() for name in pair]
    return (*USUAL_SYSTEM, *USUAL_TOOLS, *media, *scores)
