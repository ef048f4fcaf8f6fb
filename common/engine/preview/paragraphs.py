"""Paragraphs of a stage of RL pre-training, each as the prompt for a mask and as that for a prediction.

Usage: `preview = paragraph_rows(context, tokenizer, at=1, number=5)`.

They are read, and the prompts made, by the code that the stage calls. Masks of random steps are drawn in the stage.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from common.config.rl_pretrain import RlPretrainSettings
from common.engine.preview.answers import DRAWN, REORDERED, require_some
from common.engine.preview.origins import Origins
from common.engine.preview.packed import limit_notes, title_of
from common.errors import quoted
from common.report.views import PROMPT, Part, Preview, View, tokens_of
from common.rewards.masks import random_span
from common.stage import StageContext
from common.training.rows.paragraphs import Asking, Paragraph, read_paragraphs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLE = "The mask shown is a random span; the stage draws its own"


def paragraph_rows(context: StageContext, tokenizer: PreTrainedTokenizerBase, at: int, number: int) -> Preview:
    """Return the paragraphs that train, from `at` on; those kept to measure are not among them.

    Raises DataError where none is usable.
    """
    settings = cast(RlPretrainSettings, context.settings)
    asking = Asking(tokenizer, settings)
    with Origins(context.work, settings.prompt_tokens) as origins:
        found, counts = read_paragraphs(context, asking, settings.most_paragraphs, origins)
    kept = settings.watch.prompts
    training = found[kept:]
    require_some(context, "cpt", len(training), counts)
    title = title_of(context.stage, at, number, len(training))
    views = tuple(
        _view(place, len(training), one, asking, settings, tokenizer)
        for place, one in enumerate(training[at - 1 : at - 1 + number], at)
    )
    notes = [
        *limit_notes(counts, settings.limits, context.stage), DRAWN, REORDERED, EXAMPLE,
        f"{kept:,} more paragraphs never train: the stage is measured on them",
    ]  # fmt: skip
    return Preview(title, views, tuple(counts), {}, origins.all_rejects(), tuple(notes))


def _view(
    place: int, total: int, one: Paragraph, asking: Asking, settings: RlPretrainSettings,
    tokenizer: PreTrainedTokenizerBase,
) -> View:  # fmt: skip
    span = random_span(one.text, random.Random(place), settings.random_words, settings.occurs_below)
    prompts: list[tuple[str, list[int], tuple[str, ...]]] = [("prompt for a mask", asking.for_mask(one.text), ())]
    if span is not None:
        prompts.append(("prompt for a prediction", asking.for_prediction(one.text, span), (f"hidden: {quoted(span)}",)))
    parts = tuple(Part(label, tokens_of(tokenizer, ids, [PROMPT] * len(ids)), said) for label, ids, said in prompts)
    return View(f"Row {place:,} of {total:,}: paragraph, source {one.source}, at most {one.tokens:,} tokens", parts)
