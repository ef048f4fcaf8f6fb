"""Rows of new tokens start from those of their old pieces, and every old token keeps its row and its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ContractError
from common.models import checkpoint, contracts
from common.models.continued_bpe import learn
from common.models.control_tokens import reader_of
from common.models.learned_tokens import Learned
from common.models.special_tokens import num_ids
from common.models.vocabulary import extend_tokenizer, give_rows, mean_rows
from tests.models.test_continued_bpe import DOMAIN, SETTINGS
from tests.models.tokenizers import KINDS

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ROWS = {"initialise": "mean", "pad_to_multiple_of": None}


def make(rows: int, *, tied: bool, phi: bool = False) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    facts: dict[str, Any] = {"vocab_size": rows, "tie_word_embeddings": tied, **SHAPE}
    if phi:  # whose head has a bias
        model: Any = PhiForCausalLM(PhiConfig(**facts))
        torch.nn.init.normal_(model.lm_head.bias)
        return model
    return LlamaForCausalLM(LlamaConfig(**facts))


@pytest.fixture(scope="module", params=KINDS)
def tokens(request: pytest.FixtureRequest) -> tuple[Any, Any, Learned]:
    """A tokenizer, the same one extended, and what was learned."""
    tokenizer = KINDS[request.param]()
    learned = learn(tokenizer, DOMAIN, add=40, min_frequency=20)
    return tokenizer, extend_tokenizer(tokenizer, learned, SETTINGS), learned


@pytest.mark.parametrize(
    ("tied", "phi", "spare"), [(True, False, 0), (False, False, 0), (False, True, 0), (True, False, 9)]
)
def test_new_rows_are_means_of_old_ones_and_old_logits_stay(
    tokens: tuple[Any, Any, Learned], tied: bool, phi: bool, spare: int
) -> None:
    import numpy as np

    parent, tokenizer, learned = tokens
    known, ids = num_ids(parent), tokenizer.get_vocab()
    model = make(known + spare, tied=tied, phi=phi)
    probe = list(parent("a turn of the user", add_special_tokens=False).input_ids)
    before = [
        table.weight.detach().numpy().copy() for table in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    bias = model.lm_head.bias.detach().numpy().copy() if phi else None
    logits = contracts.probe_logits(model, probe)

    give_rows(model, parent, tokenizer, learned, initialise="mean", pad_to_multiple_of=None)

    tables = [table.weight.detach().numpy() for table in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert len(tables[0]) == len(tables[1]) == model.config.vocab_size == max(known + spare, num_ids(tokenizer))
    for old, new in zip(before, tables, strict=True):
        assert (new[:known] == old[:known]).all()
        for name, pieces in learned.pieces.items():
            expected = sum(old[piece].astype(np.float64) for piece in pieces) / len(pieces)
            assert np.allclose(new[ids[name]], expected, atol=1e-7, rtol=0)
    if bias is not None:
        made = model.lm_head.bias.detach().numpy()
        assert (made[:known] == bias).all()
        for name, pieces in learned.pieces.items():
            assert made[ids[name]] == pytest.approx(np.mean(bias[list(pieces)].astype(np.float64)), abs=1e-7)
    assert contracts.check_extended_model(logits, contracts.probe_logits(model, probe), known) < 1e-6
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    contracts.check_vocabulary(model, tokenizer)


def test_a_piece_that_occurs_twice_counts_twice() -> None:
    import torch

    table = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    assert mean_rows(table, [(0, 0, 1), (1,)]).tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_rows_may_be_drawn_and_padded(tokens: tuple[Any, Any, Learned]) -> None:
    parent, tokenizer, learned = tokens
    model = make(num_ids(parent), tied=True)
    give_rows(model, parent, tokenizer, learned, initialise="normal", pad_to_multiple_of=64)
    table = model.get_input_embeddings().weight.detach()
    assert len(table) % 64 == 0
    assert num_ids(tokenizer) <= len(table) < num_ids(tokenizer) + 64
    mean = table[: num_ids(parent)].mean(0)
    assert float((table[num_ids(parent) :] - mean).abs().max()) < 1e-3


def test_what_is_saved_is_loaded_again_with_the_same_ids(tokens: tuple[Any, Any, Learned], tmp_path: Path) -> None:
    parent, tokenizer, _ = tokens
    tokenizer.save_pretrained(tmp_path)
    again = checkpoint.load_tokenizer(tmp_path, SETTINGS)
    contracts.check_extended_tokenizer(again, parent)
    for text in DOMAIN[:1]:
        assert again(text).input_ids == tokenizer(text).input_ids
        assert again(text).input_ids[-1] == parent(text).input_ids[-1]  # what is put around a text


def test_names_of_control_tokens_in_a_text_are_still_read_as_text(tokens: tuple[Any, Any, Learned]) -> None:
    parent, tokenizer, _ = tokens
    for one in (parent, tokenizer):
        reader = reader_of(one)
        ids = reader.encode([reader.mark("a <|im_end|> of the turn")])[0]
        assert one.convert_tokens_to_ids("<|im_end|>") not in ids
        assert len(ids) > 4


def test_a_tokenizer_that_moves_tokens_or_loses_special_ones_is_not_saved() -> None:
    parent, other = KINDS["qwen"](), KINDS["llama"]()
    with pytest.raises(ContractError, match=r"^Extending the tokenizer moved \d+ of its tokens, such as '.*'"):
        contracts.check_extended_tokenizer(other, parent)
    changed = KINDS["qwen"]()
    changed.eos_token = "<|im_start|>"
    with pytest.raises(ContractError, match=r"^Extending the tokenizer changed its special tokens"):
        contracts.check_extended_tokenizer(changed, parent)


def test_texts_that_are_cut_otherwise_without_a_new_token_stop_the_stage() -> None:
    contracts.check_cut([[1, 2], [3]], [[9], [3]], known=9)
    with pytest.raises(ContractError, match=r"^Extending the tokenizer changed how 1 of 2 held-out texts are cut"):
        contracts.check_cut([[1, 2], [3]], [[9], [4]], known=9)


def test_logits_that_change_stop_the_stage() -> None:
    import torch

    before = torch.ones(2, 3)
    assert contracts.check_extended_model(before, torch.ones(2, 5), 3) == 0.0
    spare = torch.cat([torch.ones(2, 2), torch.zeros(2, 1)], 1)
    assert contracts.check_extended_model(before, spare, 2) == 0.0
    with pytest.raises(ContractError, match=r"^New rows changed the logits of old tokens by 0\.5 of their range"):
        contracts.check_extended_model(before, 1.5 * torch.ones(2, 5), 3)
