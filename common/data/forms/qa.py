"""The form `qa`: questions and answers as plain text, without the chat template; the next-token loss is on all of it.

Usage: `write(row, QaSettings()) == {"text": "Why?\\n\\nSo."}`, with a conversation of two turns, or a pair with that
prompt and that chosen answer. In a manifest: `form: qa`, or with settings below it, as `{qa: {question: "Problem: "}}`.

Mix-CPT (2407.10804) reads raw text, instructions and preferences alike in one stage of next-token loss: of a pair the
question and the chosen answer. Chen et al. (2501.14002) do so with problems and worked solutions, Llama-3-SynE
(2407.18743) with synthetic questions and answers. A question with choices has them below it, by letters.

Text says no more than what was said: a conversation with calls of tools has no plain text, and one whose answers are
not all to be learned would teach those too. Such rows are left out and counted. What each turn begins with, and what
stands between them, the papers do not give: it is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from common.config.forms import Form, FormSettings, Row
from common.data.manifest.values import UnusableRow

NOT_LEARNED, TOOLS = "an answer that is not to be learned", "calls of tools, which plain text has no place for"


class QaSettings(FormSettings):
    """What stands around questions and answers."""

    question: str = Field("", description="what each question begins with, as 'Question: '")
    answer: str = Field("", description="what each answer begins with, as 'Answer: '")
    between: str = Field("\n\n", description="what stands between a question and its answer, and before the next one")


def write(row: Row, own: QaSettings) -> Row:
    """Return the turns of a conversation, or of the better side of a pair, one after another as a text.

    System text comes first, and what an assistant thinks stands before its answer, a blank line between. Raises
    UnusableRow for calls of tools, and for answers that are marked not to be learned.
    """
    turns: Sequence[Mapping[str, Any]] = row["messages"] if "messages" in row else [*row["prompt"], *row["chosen"]]
    if row.get("tools") or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns):
        raise UnusableRow(TOOLS)
    if any(turn.get("learn") is False for turn in turns):
        raise UnusableRow(NOT_LEARNED)
    return {"text": own.between.join(_said(turns, {"user": own.question, "assistant": own.answer}))}


def _said(turns: Sequence[Mapping[str, Any]], begins: Mapping[str, str]) -> Iterator[str]:
    for turn in turns:
        parts = [part.strip() for part in (turn.get("reasoning_content") or "", turn["content"])]
        yield begins.get(turn["role"], "") + "\n\n".join(filter(None, parts))


FORM = Form(
    name="qa", settings=QaSettings, takes=("chat", "preference"), write=write,
    phrase="questions and answers as plain text, without the chat template",
    paper="arXiv 2407.10804, 2501.14002, 2407.18743",
    ours="what turns begin with and what stands between them",
)  # fmt: skip
