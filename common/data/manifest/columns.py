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
