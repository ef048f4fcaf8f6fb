"""What an exam says of long inputs, where it is asked for: a needle test and bits per byte by position.

Usage: `found = measure(model, tokenizer, texts, LongContextSettings(length=4096))`, which is in exam.json.

Both are diagnostics and count in no score. They are `common.evaluation.needle` and `common.evaluation.positions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from common.config.long_context import LongContextSettings
from common.errors import ConfigError
from common.evaluation import needle
from common.evaluation.positions import by_position
from common.models.rope import has_rope


def check_room(tokenizer: Any, settings: LongContextSettings) -> None:
    """Check, before a question is asked, that a key fits into the shortest text. Raises ConfigError."""
    least, shortest = needle.least_length(partial(needle.count_tokens, tokenizer)), settings.needle_lengths[0]
    if least > shortest:
        raise ConfigError(
            f"evaluate.long_context.length={settings.length} with lengths={settings.lengths} makes a shortest text of "
            f"{shortest} tokens; with this tokenizer a pass key and its question take {least}. Set "
            f"length={least * 2 ** (settings.lengths - 1)} or more, or fewer lengths."
        )


def measure(
    model: Any, tokenizer: Any, texts: Mapping[str, Iterable[str]], settings: LongContextSettings,
    on_answer: needle.Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the needle test by length and depth, and the curve of each side's held-out texts.

    A model with RoPE is read beyond its context too, which shows what it does there. One that has learned each position
    cannot be: lengths beyond are left out.
    """
    context = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    bound = settings.length if has_rope(model.config.to_dict()) or not context else min(context, settings.length)
    records = []
    for length in settings.needle_lengths:
        if length > bound:
            continue
        records += needle.ask(
            model, tokenizer, length=length, depths=settings.depths, samples=settings.samples,
            choices=settings.choices, on_answer=on_answer,
        )  # fmt: skip
    curves = {
        side: by_position(model, tokenizer, rows, length=bound, buckets=settings.buckets)
        for side, rows in texts.items()
    }
    facts = {"length": settings.length, "context": context or None, "choices": settings.choices}
    return {**facts, "needle": needle.by_cell(records), "positions": curves}
