"""What a preview counts and how it shows a text."""

from __future__ import annotations

from common.data.accounting import RowCount
from common.report.views import (
    FIRST,
    NOT_ASSISTANT,
    PADDING,
    Part,
    Preview,
    Token,
    View,
    rows_of_table,
    shown,
    tokens_of,
)
from tests.models.tokenizers import KINDS


def test_blanks_are_seen_and_nothing_moves_a_cursor() -> None:
    assert shown(" a\tb\u00a0") == ["·a→b⍽"]
    assert shown("one\n\ntwo") == ["one⏎", "⏎", "two"]
    assert shown("\x1b[2J\u202e\r") == ["\\x1b[2J\\u202e␍"]
    assert shown("مرحبا 👩‍🚀") == ["مرحبا·👩‍🚀"]


def test_a_character_whose_tokens_differ_carries_loss() -> None:
    tokenizer = KINDS["qwen"]()
    ids = tokenizer("👩", add_special_tokens=False)["input_ids"]
    (masked,) = tokens_of(tokenizer, ids, [NOT_ASSISTANT] * len(ids))
    (partly,) = tokens_of(tokenizer, ids, [*[NOT_ASSISTANT] * (len(ids) - 1), ""])
    assert (masked.why, partly.why) == (NOT_ASSISTANT, "")


def test_counts_are_of_tokens_and_not_of_pieces() -> None:
    tokens = (Token("<s>", (1,), True, FIRST), Token("é", (2, 3), False, ""), Token("b", (4,), False, NOT_ASSISTANT))
    view = View("a row", (Part("a", tokens), Part("b", tokens[:1])), padding=3)
    assert (view.num_tokens, view.num_learned) == (5, 2)
    assert view.masked() == {FIRST: 2, NOT_ASSISTANT: 1, PADDING: 3}


def test_the_table_adds_sources_up() -> None:
    counts = (
        RowCount("a", "sft", 10, {"too long": 2}, {"cut": 1}, 3, 6, 100, masked_share=0.25, epochs=2.5),
        RowCount("a", "replay", 5, rows_out=5, tokens=100),
    )
    header, rows = rows_of_table(Preview("t", (), counts, {("sft", "a"): 50}))
    assert dict(zip(header, rows[0], strict=True)) == {
        "source": "a", "role": "sft", "rows": "10", "dropped": "2", "changed": "1", "truncated": "3",
        "masked": "2", "tokens": "100", "with loss": "50 (50.0%)", "passes": "2.5",
    }  # fmt: skip
    assert [row[8] for row in rows] == ["50 (50.0%)", "0 (0.0%)", "50 (25.0%)"]
    assert rows[2][2:8] == ["15", "2", "1", "3", "2", "200"]
    assert rows_of_table(Preview("t", (), (), {}))[1] == []


def test_rows_that_are_read_again_have_an_account_of_their_own() -> None:
    counts = (RowCount("s", "cpt", tokens=30), RowCount("s", "cpt", tokens=10, again=True), RowCount("r", "replay"))
    _, rows = rows_of_table(Preview("a stage", (), counts, {("cpt", "s"): 36}))
    assert [(row[0], row[8]) for row in rows] == [
        ("s", "~27 (90.0%)"), ("s, read again", "~9 (90.0%)"), ("r", "0"), ("all", "36 (90.0%)"),
    ]  # fmt: skip
