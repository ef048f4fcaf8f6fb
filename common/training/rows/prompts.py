"""Prompts whose answers can be checked: read, kept apart from the exam, and accounted for.

Usage: `rows, counts = read_prompts(context, tokenizer)`.

With `hard`, only prompts that a checkpoint before answered right sometimes, but not often, are read: from the rest, a
group of answers that are all right or all wrong, nothing is learned (as Spark-Prover does, arXiv 2511.13043).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from common.config.stages import AnsweringSettings
from common.data.accounting import RowCount
from common.errors import DataError
from common.stage import StageContext
from common.training.rows.reader import SAMPLED_FILES, Accounts, ExamFilter, sampled_input, shuffled, training_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_prompts(
    context: StageContext, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[dict[str, Any]], list[RowCount]]:
    """Return the usable prompt rows in seeded order, each prompt once, and the accounts of their sources.

    Dropped and counted: overlap with the exam, prompts that occur again, prompts longer than `prompt_tokens`, and with
    `hard` those that are too easy, never answered right, or not asked before. DataError where none is hard.
    """
    settings = cast(AnsweringSettings, context.settings)
    accounts = Accounts("prompts")
    rows = shuffled(training_rows(context, "prompts"), f"{context.config.seed}/prompts")
    hard: float | None = getattr(settings, "hard", None)
    rates = {} if hard is None else pass_rates(context)
    kept: dict[str, dict[str, Any]] = {}
    for row in ExamFilter(context, "prompts").filter(rows, accounts):
        count = accounts[row["source"]]
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        text = json.dumps(row["prompt"])
        if len(ids) > settings.prompt_tokens:
            count.drop("longer than prompt_tokens")
        elif text in kept:
            count.drop("duplicate")
        elif hard is not None and text not in rates:
            count.drop("no pass rate")
        elif hard is not None and not 0 < rates[text] <= hard:
            count.drop("pass rate out of range")
        else:
            kept[text] = row
            count.rows_out += 1
            count.tokens += len(ids)
    accounts.add_reading(context)
    for count in accounts.values():
        count.rows_in = count.rows_out + count.num_dropped
    if hard is not None and not any(0 < rate <= hard for rate in rates.values()):
        raise DataError(
            f"Stage {context.stage}: none of {len(rates)} prompts that were answered before has a pass rate above 0 "
            f"and at most {hard}. Raise {context.stage}.hard, or leave it out to read all prompts."
        )
    return list(kept.values()), list(accounts.values())


def pass_rates(context: StageContext) -> dict[str, float]:
    """Return prompt, as JSON -> share of its answers that were right, of the input or the parent that answered them."""
    before = sampled_input(context) or context.parent_artifact
    with (before.path / SAMPLED_FILES["prompts"]).open(encoding="utf-8") as lines:
        return {json.dumps(row["prompt"]): float(row["pass_rate"]) for row in map(json.loads, lines)}
