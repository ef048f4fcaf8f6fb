"""Prompts whose answers can be checked: read, kept apart from the exam, and accounted for.

Usage: `rows, counts = read_prompts(context, tokenizer)`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from common.data.accounting import RowCount
from common.stage_settings import AnsweringSettings
from common.stages import StageContext
from common.training.reader import Accounts, ExamGuard, shuffled, training_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_prompts(
    context: StageContext, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[dict[str, Any]], list[RowCount]]:
    """Return the usable prompt rows in seeded order, each prompt once, and the accounts of their sources.

    Dropped and counted: overlap with the exam, prompts that occur again, prompts longer than `prompt_tokens`.
    """
    settings = cast(AnsweringSettings, context.settings)
    accounts = Accounts("prompts")
    rows = shuffled(training_rows(context, "prompts"), f"{context.config.seed}/prompts")
    kept: dict[str, dict[str, Any]] = {}
    for row in ExamGuard(context, "prompts").filter(rows, accounts):
        count = accounts[row["source"]]
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        text = json.dumps(row["prompt"])
        if len(ids) > settings.prompt_tokens:
            count.drop("longer than prompt_tokens")
        elif text in kept:
            count.drop("duplicate")
        else:
            kept[text] = row
            count.rows_out += 1
            count.tokens += len(ids)
    accounts.add_reading(context.corpus)
    for count in accounts.values():
        count.rows_in = count.rows_out + count.num_dropped
    return list(kept.values()), list(accounts.values())
