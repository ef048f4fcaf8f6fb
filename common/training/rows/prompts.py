"""Prompts whose answers can be checked: read, kept apart from the exam, and accounted for.

Usage: `rows, counts = read_prompts(context, tokenizer)`.

With `hard`, only prompts are read that an earlier checkpoint answered right sometimes, but not often. From answers that
are all right or all wrong nothing is learned (as in Spark-Prover, arXiv 2511.13043).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from common.config.answering import PromptedSettings
from common.config.json import parse_json
from common.data.accounting import RowCount
from common.errors import DataError
from common.models.control_tokens import reader_of
from common.models.rendering import Refusal, take
from common.stage import StageContext
from common.training.rows.reader import SAMPLED_FILES, Accounts, read_role, sampled_input
from common.training.rows.witness import NOBODY, Witness

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_prompts(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, witness: Witness = NOBODY
) -> tuple[list[dict[str, Any]], list[RowCount]]:
    """Return the usable prompt rows in seeded order, each prompt once, and the accounts of their sources.

    Dropped and counted: overlap with the exam, duplicates, prompts longer than `prompt_tokens`, and with `hard` those
    that are too easy, never answered right, or without a pass rate. Raises DataError where none is hard.
    `witness` hears of the dropped ones.
    """
    settings = cast(PromptedSettings, context.settings)
    accounts = Accounts("prompts")
    hard: float | None = getattr(settings, "hard", None)
    rates = {} if hard is None else pass_rates(context)
    kept: dict[str, dict[str, Any]] = {}
    for row in read_role(context, "prompts", accounts):
        count = accounts[row["source"]]
        try:
            taken = take(tokenizer, row["prompt"])
            (ids,) = reader_of(tokenizer).encode([taken.render(prompt=True)])
        except Refusal as refusal:
            witness.drop(count, row, str(refusal))
            continue
        for what in taken.changed:
            count.change(what)
        text = json.dumps(row["prompt"])
        reason = None
        if len(ids) > settings.prompt_tokens:
            reason = "longer than prompt_tokens"
        elif text in kept:
            reason = "duplicate"
        elif hard is not None and text not in rates:
            reason = "no pass rate"
        elif hard is not None and not 0 < rates[text] <= hard:
            reason = "pass rate out of range"
        if reason is not None:
            witness.drop(count, row, reason)
        else:
            kept[text] = row
            count.rows_out += 1
            count.tokens += len(ids)
    counts = accounts.close(context)
    if hard is not None and not any(0 < rate <= hard for rate in rates.values()):
        raise DataError(
            f"Stage {context.stage}: none of {len(rates)} prompts with a pass rate has one above 0 "
            f"and at most {hard}. Raise {context.stage}.hard, or leave it out to read all prompts."
        )
    return list(kept.values()), counts


def pass_rates(context: StageContext) -> dict[str, float]:
    """Return prompt, as JSON -> share of its answers that were right, of the input or the parent that answered them."""
    before = sampled_input(context) or context.parent_artifact
    with (before.path / SAMPLED_FILES["prompts"]).open(encoding="utf-8") as lines:
        return {json.dumps(row["prompt"]): float(row["pass_rate"]) for row in map(parse_json, lines)}
