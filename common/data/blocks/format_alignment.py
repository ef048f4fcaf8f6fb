"""Choose conversations that teach the format of answers: those that a model can answer, but not yet in the template.

Usage: in a manifest, `blocks: [{format_alignment: {checkpoint: <folder of a model>, drop_lowest: 0.9}}]`.

Mix-CPT (Jiang et al. 2024, arXiv 2407.10804) reads instructions without the template in CPT, and fine-tunes on a small
part of them, chosen by a score that compares the loss of the response with and without the template. Its ratio is not
known to us. Ours, with r the responses, q the prompt, and both losses in nats over the same tokens of r:

score = loss(r | q in the chat template) / loss(r | q as plain text)

High scores are responses that the model expects after the plain question and not after the template: what is left to
learn of them is the format, so that `drop_lowest` leaves those. `checkpoint` is a model that has read the plain texts,
such as the result of the stage `cpt` of an earlier run. Conversations with calls of tools are not
judged; those that its template refuses are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.blocks import Block, BlockContext, Row
from common.config.names import NonEmpty
from common.data.dependence import LossBits
from common.data.selecting import UNUSABLE, ByScore, SelectionSettings
from common.errors import DataError
from common.models.control_tokens import reader_of
from common.models.reference import load_reference, require_folder
from common.models.rendering import REFUSED, THOUGHT_KEYS, Refusal, take
from common.models.special_tokens import document_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BETWEEN = "\n\n"  # of turns in plain text, as the form `qa` has it


class FormatAlignmentSettings(SelectionSettings):
    """Which conversations stay, by what the template costs their answers."""

    checkpoint: NonEmpty = Field(description="folder of the model that both losses are of")
    longest: int = Field(2048, ge=64, le=131_072, description="tokens that the model reads at once")


def alignment(row: Row, losses: LossBits, tokenizer: PreTrainedTokenizerBase) -> float | None:
    """Return the losses of all answers in the template over those in plain text; None where they cannot be compared.

    The template writes tools and thoughts as in training, and names of control tokens are text. Raises Refusal where
    it does not take the conversation.
    """
    turns: list[dict[str, Any]] = row["messages"]
    if any(turn.get("tool_calls") or turn["role"] == "tool" for turn in turns):
        return None
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    learned = [place for place in answers if turns[place].get("learn") is not False]
    if not learned:
        return None
    taken = take(tokenizer, turns, row.get("tools"), asked=row.get("control_tokens", ()), learned=learned)
    formatted = plain = 0.0
    for place in learned:
        before = "".join(_said(one) + BETWEEN for one in taken.messages[:place])
        asked, read, said = reader_of(tokenizer).encode(
            [taken.render(place, prompt=True), before, _said(taken.messages[place])]
        )
        formatted += losses.of(asked, said)
        plain += losses.of([document_start(tokenizer), *read], said)
    return formatted / plain if plain > 0 else None


def _said(turn: Mapping[str, Any]) -> str:
    """Return what a turn says, behind what it thinks, as the form `qa` has it."""
    thoughts = [turn[key] for key in THOUGHT_KEYS if turn.get(key)]
    return "\n\n".join([*thoughts, turn["content"]])


def look(settings: FormatAlignmentSettings, context: BlockContext) -> ByScore:
    """Return what scores all conversations and then judges them. Raises ConfigError for a folder that is none."""
    require_folder(settings.checkpoint, "format_alignment.checkpoint")
    loaded: list[tuple[LossBits, Any]] = []  # with the first conversation, in the process that reads it

    def score(row: Row) -> float | None:
        if not loaded:
            loaded.append(_load(settings))
        try:
            return alignment(row, *loaded[0])
        except Refusal:
            return UNUSABLE

    return ByScore(settings, context, score, "format alignment", "format_alignment", unusable=REFUSED)


def _load(settings: FormatAlignmentSettings) -> tuple[LossBits, Any]:
    model, tokenizer = load_reference(settings.checkpoint)
    if not tokenizer.chat_template:
        raise DataError(f"format_alignment.checkpoint: {settings.checkpoint} has no chat template to compare with.")
    return LossBits(model, tokenizer, settings.longest), tokenizer


BLOCK = Block(
    name="format_alignment", settings=FormatAlignmentSettings, look=look, rows=("messages",),
    scores=lambda settings: ("format_alignment",), checkpoints=lambda settings: [settings.checkpoint],
    phrase="conversations by what the chat template costs their answers",
    paper="Jiang et al. 2024, arXiv 2407.10804 (Mix-CPT), format alignment; the ratio is ours",
)  # fmt: skip
