"""The needle test: texts of the asked length with the key where it should be, and likelihoods as one forward gives."""

from __future__ import annotations

import re
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.evaluation import needle as needle_test
from common.evaluation.needle import FILLER, KEYS, ask, by_cell, encode, needles, score
from common.evaluation.statistics import wilson
from tests.evaluation.conftest import make_model, make_tokenizer

ASKED: dict[str, Any] = {"length": 120, "depths": 3, "samples": 4, "choices": 4}


def words(text: str) -> int:
    return len(text.split())


def test_a_key_stands_at_its_depth_and_the_text_has_its_length() -> None:
    found = list(needles(words, **ASKED))
    assert [needle.depth for needle in found] == [0.0] * 4 + [0.5] * 4 + [1.0] * 4
    longest = max(map(words, FILLER))
    for needle in found:
        key = needle.keys[needle.answer]
        assert 120 - longest <= words(f"{needle.context} {key}") <= 120
        assert len(set(needle.keys)) == 4
        named = [other for other in KEYS if re.search(rf"\b{other}\b", needle.context)]
        assert named == [key]
        before = words(needle.context[: needle.context.index("The pass key is")])
        assert abs(before - needle.depth * (words(needle.context) - 23)) <= longest


def test_texts_are_always_the_same_and_differ() -> None:
    first, again = list(needles(words, **ASKED)), list(needles(words, **ASKED))
    assert first == again
    assert len({needle.context for needle in first}) == len(first)
    assert {needle.answer for needle in first} > {0}


def test_a_text_is_made_with_few_readings() -> None:
    """A text of this many tokens is made out of it by readings of less than fifteen times its size, not of fifty."""
    read: list[int] = []

    def counted(text: str) -> int:
        read.append(words(text))
        return 1 + read[-1]  # one token begins every text

    (found,) = needles(counted, length=4000, depths=1, samples=1, choices=4)
    assert 4000 - max(map(words, FILLER)) <= 1 + words(f"{found.context} {found.keys[found.answer]}") <= 4000
    assert sum(read) < 15 * 4000


def test_a_length_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="a key and its question take 22 tokens, more than 10"):
        next(needles(words, length=10, depths=1, samples=1, choices=2))


@pytest.mark.parametrize("window", [None, 8])
def test_scores_are_those_of_whole_texts(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one forward pass over each text with its answer, and a sum of log-softmax in float64.

    The cache is copied only where a sliding window has dropped what was before.
    """
    copied: list[Any] = []

    def counted(cache: Any) -> Any:
        copied.append(cache)
        return deepcopy(cache)

    monkeypatch.setattr(needle_test, "copy", SimpleNamespace(deepcopy=counted))
    tokenizer = make_tokenizer("<|end|>", None)
    model = make_model(len(tokenizer), "<|end|>").eval()
    if window is not None:
        from transformers import MistralConfig, MistralForCausalLM

        sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        model = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window)).eval()
    context, answers = encode(tokenizer, "what is money paper"), [[20, 31, 7], [9], [4, 4]]
    with torch.inference_mode():
        found = score(model, context, answers)
        for answer, value in zip(answers, found, strict=True):
            logits = model(input_ids=torch.tensor([context + answer])).logits[0].double()
            nats = logits.log_softmax(-1)
            expected = sum(float(nats[len(context) - 1 + place, token]) for place, token in enumerate(answer))
            assert value == pytest.approx(expected, abs=1e-4)
    assert len(copied) == (0 if window is None else 2)


def test_a_model_that_copies_finds_every_key_and_one_that_does_not_is_near_chance() -> None:
    """A model of our own that repeats what it has read, against a random one."""
    tokenizer = make_tokenizer("<|end|>", None)
    model = make_model(len(tokenizer), "<|end|>").eval()
    asked = {**ASKED, "length": 300, "depths": 2}
    with torch.inference_mode():
        random = by_cell(ask(model, tokenizer, **asked))
        copying = by_cell(ask(Copying(len(tokenizer)), tokenizer, **asked))
    assert [cell["score"] for cell in copying] == [1.0, 1.0, 1.0]
    assert random[-1]["low"] <= 1 / ASKED["choices"] <= random[-1]["high"]


class Copying(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
    """Likes what followed the same six tokens before: it repeats what stood behind them."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(vocabulary, 1)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table

    def forward(self, input_ids: Any, past_key_values: Any = None, **_: Any) -> Any:
        read = [*(past_key_values or []), *input_ids[0].tolist()]
        logits = torch.zeros(1, input_ids.shape[1], self.table.num_embeddings)
        for place in range(input_ids.shape[1]):
            so_far = read[: len(read) - input_ids.shape[1] + place + 1]
            for end in range(6, len(so_far)):
                if so_far[end - 6 : end] == so_far[-6:]:
                    logits[0, place, so_far[end]] += 5.0
        return SimpleNamespace(logits=logits, past_key_values=read)


def test_cells_are_summed_up_with_intervals() -> None:
    records = [
        {"length": 64, "depth": depth, "correct": right} for depth, right in [(0.0, True), (0.0, False), (1.0, True)]
    ]
    first, second, total = by_cell(records)
    assert (first["depth"], first["score"], first["n"]) == (0.0, 0.5, 2)
    assert (second["depth"], second["score"]) == (1.0, 1.0)
    assert (total["depth"], total["n"]) == (None, 3)
    assert (total["low"], total["high"]) == wilson(2, 3)
