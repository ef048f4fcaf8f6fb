"""Pieces of text: none of the tokens is lost, a character that several share stays whole, control tokens are marked."""

from __future__ import annotations

from typing import Any

import pytest

from common.models.pieces import BROKEN, pieces_of
from tests.models.tokenizers import KINDS

TEXT = "a turn of the user, \n\tनमस्ते مرحبا 👩‍🚀 and  two blanks"


@pytest.fixture(params=["qwen", "llama"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def test_pieces_have_all_tokens_and_all_text(tokenizer: Any) -> None:
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces = list(pieces_of(tokenizer, ids))
    assert [token for piece in pieces for token in piece.ids] == ids
    assert "".join(piece.text for piece in pieces).removeprefix(" ") == TEXT
    assert len(pieces) > 20  # each token by itself where it is text


def test_tokens_of_one_character_stand_together(tokenizer: Any) -> None:
    ids = tokenizer("👩 é", add_special_tokens=False)["input_ids"]
    pieces = list(pieces_of(tokenizer, ids))
    (woman,) = [piece for piece in pieces if "👩" in piece.text]
    assert len(woman.ids) > 1
    assert BROKEN not in "".join(piece.text for piece in pieces)


def test_half_a_character_is_shown_as_what_it_is(tokenizer: Any) -> None:
    ids = tokenizer("👩", add_special_tokens=False)["input_ids"][:-1]
    pieces = list(pieces_of(tokenizer, ids))
    assert [token for piece in pieces for token in piece.ids] == ids
    assert BROKEN in pieces[-1].text


def test_control_tokens_have_their_names(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    ids = [*tokenizer("user", add_special_tokens=False)["input_ids"], end, end]
    pieces = list(pieces_of(tokenizer, ids))
    assert [piece.text for piece in pieces if piece.special] == [tokenizer.eos_token] * 2
    assert not any(piece.special for piece in pieces[:-2])
