"""Stop and padding tokens of published checkpoints are made to fit each other, without new rows where possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ContractError
from common.models import checkpoint, contracts
from common.models.special_tokens import add_rows, document_start, num_ids, require_end, settle
from tests.models.test_contracts import build
from tests.models.test_turns import ALTERNATING


def published(special: list[str], template: str | None = None, spare: int = 0) -> tuple[Any, Any]:
    """Return a tiny model and a tokenizer with further special tokens, and rows that no token has."""
    _, tokenizer = build()
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    if template is not None:
        tokenizer.chat_template = template
    model, _ = build(vocabulary=len(tokenizer) + spare)
    return model, tokenizer


def test_padding_that_stops_an_answer_gives_way_to_a_reserved_token() -> None:
    model, tokenizer = published(["<a>", "<|reserved_1|>", "<|fim_pad|>"])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = "<|pad|>" + tokenizer.chat_template  # so that the old one is in use
    rows = model.get_input_embeddings().weight.shape[0]
    notes = settle(model, tokenizer)
    assert notes == ["padding is '<|fim_pad|>', since '<|end|>' also stops an answer"]
    assert model.get_input_embeddings().weight.shape[0] == rows
    assert model.generation_config.pad_token_id == model.config.pad_token_id == tokenizer.pad_token_id
    contracts.check_stop_tokens(model, tokenizer)


def test_a_token_for_what_is_unknown_pads_where_no_token_is_reserved() -> None:
    model, tokenizer = published(["<a>", "<|unknown|>"])
    tokenizer.unk_token = "<|unknown|>"
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = "<|pad|>" + tokenizer.chat_template
    assert settle(model, tokenizer) == ["padding is '<|unknown|>', since '<|end|>' also stops an answer"]


def test_without_a_token_that_is_free_padding_takes_a_spare_row_or_a_new_one() -> None:
    for spare, where in ((3, " in a spare row"), (0, "")):
        model, tokenizer = published(["<a>"], spare=spare)
        rows = model.get_input_embeddings().weight.shape[0]
        tokenizer.pad_token = None
        model.generation_config.pad_token_id = None
        tokenizer.chat_template = "<|pad|>" + tokenizer.chat_template  # so that the old one is in use
        assert settle(model, tokenizer) == [f"padding is the new token '<|padding|>'{where}, since there was none"]
        assert model.get_input_embeddings().weight.shape[0] == max(rows, num_ids(tokenizer))


def test_all_stops_are_kept_and_the_one_that_ends_a_turn_is_added() -> None:
    model, tokenizer = published(["<start>", "<end>", "<other>"], ALTERNATING)
    other = tokenizer.convert_tokens_to_ids("<other>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, other]
    assert settle(model, tokenizer) == ["an answer also stops at '<end>', which ends a turn"]
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, other, end]
    assert settle(model, tokenizer) == []


def test_sampling_defaults_are_left_out_and_the_model_is_saved(tmp_path: Path) -> None:
    model, tokenizer = published([])
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    assert settle(model, tokenizer) == ["generation is greedy, without temperature 0.6, top_p 0.9"]
    checkpoint.save(model, tokenizer, tmp_path, "float32")
    assert "temperature" not in (tmp_path / "generation_config.json").read_text(encoding="utf-8")


def test_a_tokenizer_without_an_end_takes_where_generation_stops() -> None:
    model, tokenizer = published([])
    tokenizer.eos_token = None
    assert require_end(model, tokenizer) == ["a text ends in '<|end|>', where generation stops"]
    tokenizer.eos_token = model.generation_config.eos_token_id = None
    with pytest.raises(ContractError, match="names no token that ends a text; set eos_token"):
        require_end(model, tokenizer)


def test_a_spare_row_that_gets_a_token_is_drawn_around_the_mean_of_the_others() -> None:
    import torch

    model, tokenizer = published([], spare=4)
    weight = model.get_input_embeddings().weight
    known = num_ids(tokenizer)
    with torch.no_grad():
        weight[known:] = 0.0
    mean = weight[:known].mean(0)
    add_rows(model, known, known + 2)
    assert not torch.equal(weight[known], weight[known + 1])
    assert torch.allclose(weight[known : known + 2], mean.expand(2, -1), atol=1e-4)
    assert weight[known + 2 :].abs().max() == 0.0
    add_rows(model, known + 2, known + 9)  # more than there are
    grown = model.get_input_embeddings().weight
    assert grown.shape[0] == known + 9
    assert torch.allclose(grown[known + 2 :], mean.expand(7, -1), atol=1e-3)
    contracts.check_tied(model)


def test_a_document_follows_what_its_tokenizer_puts_before_it() -> None:
    from tokenizers.processors import TemplateProcessing

    _, tokenizer = published(["<bos>"])
    assert document_start(tokenizer) == tokenizer.eos_token_id
    bos = tokenizer.convert_tokens_to_ids("<bos>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    assert document_start(tokenizer) == bos
