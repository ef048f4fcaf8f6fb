"""Bits per byte by position: bytes of tokens, windows, buckets, each against a count of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from common.evaluation import positions
from common.evaluation.positions import bits_of, by_position, bytes_of, summed, windows
from tests.evaluation.conftest import make_model, make_tokenizer

TEXTS = ["what is money", "paper é and 漢字 coin", "silver copper iron " * 6]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer("<|end|>", None)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return make_model(len(tokenizer), "<|end|>").eval()


@pytest.mark.parametrize("text", [*TEXTS, "", " a", "\n\nb ", "é"])
def test_tokens_share_out_the_bytes_of_a_text(tokenizer: Any, text: str) -> None:
    ids, sizes, of_text = bytes_of(tokenizer, text)
    assert all(of_text)
    assert ids == tokenizer(text).input_ids
    assert sum(sizes) == len(text.encode())
    assert min(sizes, default=0) >= 0
    if text.isascii():
        assert sizes == [len(tokenizer.decode([token])) for token in ids]


def test_a_character_of_several_tokens_is_counted_once(tokenizer: Any) -> None:
    ids, sizes, of_text = bytes_of(tokenizer, "é")
    assert len(ids) == 2
    assert sizes == [0, 2]
    assert of_text == [True, True]


def test_what_a_tokenizer_adds_to_a_text_is_none_of_it() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer("<|end|>", None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|user|> $A <|end|>", special_tokens=[("<|user|>", 0), ("<|end|>", 2)]
    )
    ids, sizes, of_text = bytes_of(tokenizer, "é")
    assert (ids[0], len(ids)) == (0, 3)
    assert (sizes, of_text) == ([0, 0, 2], [False, True, True])
    (window,) = windows(tokenizer, ["é", "é"], 16)
    assert window[2].tolist() == [False, True, True, False] * 2


def test_windows_are_cut_from_joined_texts(tokenizer: Any) -> None:
    joined = [token for text in TEXTS for token in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    found = list(windows(tokenizer, TEXTS, 16))
    assert [token for ids, _, _ in found for token in ids] == joined
    assert all(len(ids) == 16 for ids, _, _ in found[:-1])
    assert all(len(ids) == len(weights) == len(of_text) and weights[0] == 0 for ids, weights, of_text in found)
    for ids, weights, of_text in found:
        no_text = [place == 0 or token == tokenizer.eos_token_id for place, token in enumerate(ids)]
        assert of_text.tolist() == [not one for one in no_text]
        assert not weights[no_text].any()


def test_bits_are_those_of_a_forward_pass_in_pieces_too(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tokenizer(" ".join(TEXTS)).input_ids[:40]
    with torch.inference_mode():
        nats = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        expected = [0.0] + [-float(nats[place - 1, ids[place]]) / math.log(2) for place in range(1, len(ids))]
        assert np.allclose(bits_of(model, ids), expected, atol=1e-4)
        monkeypatch.setattr(positions, "PIECE", 7)
        assert np.allclose(bits_of(model, ids), expected, atol=1e-4)


def test_buckets_hold_the_positions_between_their_edges() -> None:
    values = np.arange(10, dtype=float)
    assert summed(values, np.array([0, 4, 8, 12])) == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9]


def test_the_curve_is_bits_over_bytes_of_each_bucket(model: Any, tokenizer: Any) -> None:
    """Against sums over the tokens one by one, in float64: all but ends of texts, parts of characters too."""
    with torch.inference_mode():
        found = by_position(model, tokenizer, TEXTS * 3, length=24, buckets=3)
        sums = np.zeros((3, 2))
        for ids, weights, _ in windows(tokenizer, TEXTS * 3, 24):
            nats = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            for place in range(1, len(ids)):
                if ids[place] != tokenizer.eos_token_id:
                    sums[place // 8] += [-float(nats[place - 1, ids[place]]) / math.log(2), weights[place]]
    assert [(bucket["first"], bucket["last"]) for bucket in found] == [(0, 7), (8, 15), (16, 23)]
    for bucket, (bits, size) in zip(found, sums, strict=True):
        assert bucket["bits_per_byte"] == pytest.approx(bits / size, rel=1e-4)
        assert bucket["low"] <= bucket["bits_per_byte"] <= bucket["high"]


def test_texts_shorter_than_a_window_fill_the_first_buckets(model: Any, tokenizer: Any) -> None:
    with torch.inference_mode():
        (bucket,) = by_position(model, tokenizer, ["what is"], length=128, buckets=4)
    assert (bucket["first"], bucket["n"], bucket["low"]) == (0, 1, None)
    assert bucket["last"] == len(tokenizer("what is").input_ids)  # the end-of-sequence token is in the window
    assert by_position(model, tokenizer, [], length=128, buckets=4) == []
