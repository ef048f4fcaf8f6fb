"""What an exam asks of a model, by the rows that are really asked: tokens read, and answers written.

Usage: `work = exam_work(settings, sizes, embedded=True)`; `work.tokens`, `work.written`.

Where a side's rows are on the Hub, their number and length are guesses, and `assumed` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.config.answering import LabelSettings
from common.config.stages import EvaluateSettings
from common.cost.memory import EMBEDDED_TEXT, TEXT_WINDOW, ExamWork
from common.data.sizes import RowSizes, Sizes

SIDES = ("domain", "general")
# Guesses about data sets that are not here: questions of four choices, and held-out documents.
QUESTIONS, CONTEXT, CHOICE, CHOICES = 2000, 80, 16, 4


def question_tokens(context: float, choices: Sequence[float]) -> float:
    """Return the tokens that a model reads for one question: its context once, and each choice but its last token.

    `common.evaluation.shared_context` packs them so. A model that cannot do that reads the context for each choice.
    """
    return context + sum(choice - 1 for choice in choices)


def exam_work(settings: EvaluateSettings, sizes: RowSizes | None, *, embedded: bool) -> ExamWork:
    """Return what an exam computes; `sizes` are those of its corpus, and without them all is assumed."""
    work = ExamWork()
    for side in SIDES:
        questions = sizes.of(f"questions_{side}") if sizes else None
        texts = sizes.of(f"text_{side}") if sizes else None
        work = work + (_assumed(settings, side) if questions is None else _asked(settings, questions, side))
        number = settings.text_documents if texts is None else min(texts.rows, settings.text_documents)
        each = (EMBEDDED_TEXT if embedded else TEXT_WINDOW) if texts is None else texts.total() / max(1, texts.rows)
        work = work + ExamWork(documents=number, texts=number * each)
    return work


def _asked(settings: EvaluateSettings, found: Sizes, side: str) -> ExamWork:
    if not found.sample:
        return ExamWork()
    number = min(found.rows, settings.limit or found.rows)
    each = number / len(found.sample)
    choosing = requests = prompts = written = 0.0
    for row in found.sample:
        context = found.tokens(row.text) + 2 * found.turn_tokens
        if row.answers:
            requests += each * len(row.answers)
            choosing += each * question_tokens(context, [found.tokens(size) + 1 for size in row.answers])
        if not row.answers or (settings.written and side == "domain"):
            written += each
            prompts += each * context
    return ExamWork(number, requests, choosing, written=written, prompts=prompts)


def _assumed(settings: EvaluateSettings, side: str) -> ExamWork:
    number = min(QUESTIONS, settings.limit or QUESTIONS)
    written = number if settings.written and side == "domain" else 0
    choosing = number * question_tokens(CONTEXT, [CHOICE] * CHOICES)
    return ExamWork(number, number * CHOICES, choosing, written=written, prompts=written * CONTEXT, assumed=True)


def label_work(settings: LabelSettings, sizes: RowSizes | None) -> ExamWork:
    """Return what it takes to choose the likeliest label of each prompt; labels that are not known yet are guessed."""
    found = sizes.of("prompts") if sizes else None
    if found is not None and found.sample:
        labels = [found.tokens(len(word.encode())) + 1 for word in settings.words] or [CHOICE] * CHOICES
        contexts = [found.tokens(row.text) + 2 * found.turn_tokens for row in found.sample]
    else:
        labels, contexts = [CHOICE] * len(settings.words or range(CHOICES)), [CONTEXT]
    there = QUESTIONS if found is None else found.rows
    number = min(there, settings.prompts or there)
    choosing = number * question_tokens(sum(contexts) / len(contexts), labels)
    return ExamWork(number, number * len(labels), choosing, assumed=found is None or not settings.words)
