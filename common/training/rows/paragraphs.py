"""The paragraphs of RL pre-training: read from the texts of CPT, kept apart from the exam, and accounted for.

Usage: `paragraphs, counts = read_paragraphs(context, Asking(tokenizer, settings), most=1000)`.

A paragraph is a piece of a document between blank lines that has enough words, and fits both prompts. `Asking` makes
the prompts of the two tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from common.config.rl_pretrain import BEFORE, MASK, MASKED, PARAGRAPH, RlPretrainSettings, TaskSettings
from common.data.accounting import RowCount
from common.models.control_tokens import reader_of
from common.models.rendering import Refusal, take
from common.models.special_tokens import document_start, without_end
from common.rewards.masks import boxed, count_words, leading, masked, prediction_reward
from common.stage import StageContext
from common.training.rows.reader import Accounts, read_role
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHORT, LONG, HAS_MARK = "shorter than least_words", "longer than prompt_tokens", f"{MASK} in the text"
_BLANK = re.compile(r"\n\s*\n")


class Paragraph(NamedTuple):
    """A piece of a document, its source, and the tokens of its longer prompt."""

    text: str
    source: str
    tokens: int


class Asking:
    """How a model is asked for masks and predictions, and how its answers are read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: RlPretrainSettings) -> None:
        self._tokenizer, self._settings = tokenizer, settings

    def for_mask(self, paragraph: str) -> list[int]:
        """Return the prompt that asks for a span of a paragraph, as ids."""
        task = self._settings.mask
        return self._ids(task, task.prompt.replace(PARAGRAPH, paragraph))

    def for_prediction(self, paragraph: str, span: str) -> list[int]:
        """Return the prompt that asks what the mask of a paragraph hides, as ids."""
        task, hidden = self._settings.predict, masked(paragraph, span)
        places = {MASKED: hidden, BEFORE: hidden[: hidden.index(MASK)].rstrip()}
        return self._ids(task, re.sub(r"\{masked\}|\{before\}", lambda found: places[found[0]], task.prompt))

    def span(self, answer: str) -> str | None:
        """Return the span that an answer copies, or None where it names none."""
        return boxed(self._settings.mask.begin + answer, "mask")

    def prediction(self, answer: str, span: str) -> str | None:
        """Return what an answer says of a mask, or None where it says nothing that can be read."""
        whole = self._settings.predict.begin + answer
        return boxed(whole, "boxed") if self._settings.read == "boxed" else leading(whole, span)

    def reward(self, answer: str, span: str) -> float:
        """Return r_pred of an answer; where first words are read, marks around those of the span are not compared."""
        wanted = span if self._settings.read == "boxed" else leading(span, span)
        return prediction_reward(self.prediction(answer, span), wanted) if wanted else 0.0

    def _ids(self, task: TaskSettings, text: str) -> list[int]:
        reader = reader_of(self._tokenizer)
        if not self._settings.chat:
            (ids,) = reader.encode([reader.mark(text + task.begin)], whole=True)
            return without_end(self._tokenizer, ids) or [document_start(self._tokenizer)]
        rendered = take(self._tokenizer, [{"role": "user", "content": text}]).render(prompt=True)
        (ids,) = reader.encode([rendered + reader.mark(task.begin)])
        return ids


def read_paragraphs(
    context: StageContext, asking: Asking, most: int | None = None, witness: Witness = NOBODY
) -> tuple[list[Paragraph], list[RowCount]]:
    """Return usable paragraphs in seeded order, each once, and the accounts of their sources; at most about `most`.

    Rows are documents. One that has no usable paragraph is dropped and counted, and so is overlap with the exam;
    `witness` hears of it. With `most`, reading stops once there are so many.
    """
    settings = cast(RlPretrainSettings, context.settings)
    accounts = Accounts("cpt")
    found: dict[str, Paragraph] = {}
    cut_short = False
    for row in read_role(context, "cpt", accounts):
        if most is not None and len(found) >= most:
            cut_short = True
            break
        count, reasons, usable = accounts[row["source"]], dict[str, None](), False
        for text, tokens, reason in _pieces(row["text"], asking, settings):
            if reason is None and text in found:
                reason = "duplicate"
            if reason is not None:
                reasons[reason] = None
                continue
            usable = True
            found[text] = Paragraph(text, row["source"], tokens)
            count.tokens += tokens
        if usable:
            count.rows_out += 1
        else:
            reason = min(reasons, key=lambda one: one in (SHORT, "duplicate"), default=SHORT)
            witness.drop(count, row, reason)
    counts = accounts.close(context, budgeted=cut_short)
    for count in counts:
        count.cut_short = cut_short
    return list(found.values()), counts


def _pieces(text: str, asking: Asking, settings: RlPretrainSettings) -> Iterator[tuple[str, int, str | None]]:
    """Yield the paragraphs of a document: text, tokens of the longer prompt, and why it cannot be used."""
    for piece in map(str.strip, _BLANK.split(text)):
        if MASK in piece:
            yield piece, 0, HAS_MARK
        elif count_words(piece) < settings.least_words:
            yield piece, 0, SHORT
        else:
            # A mask makes a paragraph no longer than itself and a mark for each time that its span may occur.
            try:
                hidden = asking.for_prediction(piece + MASK * (settings.occurs_below - 1), MASK)
                tokens = max(len(asking.for_mask(piece)), len(hidden))
            except Refusal as refusal:
                yield piece, 0, str(refusal)
                continue
            yield piece, tokens, LONG if tokens > settings.prompt_tokens else None
