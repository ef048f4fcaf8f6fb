"""Loss on long prompts: which tokens are learned from which length on, what stays, and how it is counted."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.resolve import resolve
from common.data.accounting import RowCount
from common.errors import ConfigError
from common.models.tokenizer import train_tokenizer
from common.training.methods.rows.long_prompts import LEARNED, LongPromptsSettings, mark
from common.training.rows.packing import IGNORED, tokenised_batches
from tests.conftest import REPOSITORY

SHORT, LONG = "words", "words and more words " * 8


def conversation(question: str, **answer: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "nice number", **answer}]
    return {"messages": turns, "source": "chat"}


@pytest.mark.parametrize(("from_tokens", "learned"), [(1, 6), (4, 6), (5, None)])
def test_all_tokens_are_learned_from_the_threshold_on(from_tokens: int, learned: int | None) -> None:
    """Of six tokens two are the assistant's, so the prompt has four."""
    marks = [False, False, False, True, True, False]
    found = mark(conversation(SHORT), marks, LongPromptsSettings(from_tokens=from_tokens))
    assert found == (None if learned is None else ([True] * learned, LEARNED))


def test_answers_that_are_context_are_not_learned_through_the_back_door() -> None:
    given = conversation(LONG, learn=False)
    assert mark(given, [False] * 100, LongPromptsSettings(from_tokens=10)) is None


def test_labels_and_accounts_follow() -> None:
    tokenizer = train_tokenizer([LONG, "nice number user assistant"] * 3, 300, 4096)
    settings, accounts = LongPromptsSettings(from_tokens=30), {"chat": RowCount("chat", "sft")}
    rows = [conversation(SHORT), conversation(LONG)]
    options: dict[str, Any] = {"assistant_only": True, "sequence_length": 4096}
    (batch,) = tokenised_batches(
        tokenizer, rows, accounts, marks=[lambda row, learned: mark(row, learned, settings)], **options
    )
    short, long = list(batch.rows)
    (plain,) = tokenised_batches(tokenizer, rows, {"chat": RowCount("chat", "sft")}, **options)
    usual_short, usual_long = list(plain.rows)
    assert list(short.labels) == list(usual_short.labels)
    assert short.labels.count(IGNORED) > 0
    assert list(long.labels) == list(long.input_ids) == list(usual_long.input_ids)
    assert accounts["chat"].changed == {LEARNED: 1}


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        ("sft", "{from_tokens: 128}", r"from_tokens=128 is not below sequence_length=128.*lower it"),
        ("cpt", "{from_tokens: 64}", "this stage learns every token already"),
    ],
)
def test_what_would_do_nothing_is_refused(stage: str, given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{stage}\.methods\.long_prompts: {message}"):
        resolve({"domain": "medical", f"{stage}.methods.long_prompts": given}, REPOSITORY)


def test_a_stage_that_learns_all_tokens_by_an_option_of_its_own_is_refused() -> None:
    words = {"sft.methods.long_prompts.from_tokens": "64", "sft.train.assistant_only_loss": "false"}
    with pytest.raises(ConfigError, match="learns every token already"):
        resolve({"domain": "medical", **words}, REPOSITORY)
