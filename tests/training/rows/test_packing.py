"""Packing: nothing is lost, documents cannot see each other, and only the right tokens are learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.accounting import RowCount
from common.errors import DataError
from common.models.tokenizer import ASSISTANT, END, train_tokenizer
from common.training.rows import packing
from common.training.rows.packing import IGNORED, RowCollator, interleave, tokenise
from common.training.rows.reader import Accounts
from common.training.rows.shards import TokenRow
from tests.training.rows.packed import pack

TEXTS = [f"The capital of country {i} is city {i % 7}, which lies by the sea." for i in range(60)]
LENGTH = 32


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 400, 256)


def rows_of(tokenizer: Any, rows: list[dict[str, Any]], **options: Any) -> tuple[list[TokenRow], dict[str, RowCount]]:
    counts = Accounts("cpt")
    settings = {"assistant_only": False, "sequence_length": LENGTH, **options}
    made = tokenise(tokenizer, rows, counts, **settings)
    return list(made), counts


def chat(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "source": "s",
    }


def test_packing_keeps_every_token(tokenizer: Any, tmp_path: Path) -> None:
    rows, counts = rows_of(tokenizer, [{"text": text, "source": "s"} for text in TEXTS])
    packed = pack(rows, LENGTH, tmp_path, "a")
    assert sum(map(len, packed["input_ids"])) == sum(len(row.input_ids) for row in rows) == counts["s"].tokens
    assert max(map(len, packed["input_ids"])) <= LENGTH


def test_a_document_has_the_same_logits_in_a_pack_as_alone(tokenizer: Any, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    documents = [[5, 6, 7, 8], [9, 10, 11], [5, 6, 7, 8, 9]]
    tokens = [token for document in documents for token in document]
    row = {"input_ids": tokens, "labels": tokens, "seq_lengths": [len(document) for document in documents]}
    batch = RowCollator(tokenizer.pad_token_id, LENGTH)([row])
    del batch["labels"]
    with torch.inference_mode():
        packed_TV = model(**batch, use_cache=False).logits[0]
        start = 0
        for document in documents:
            alone_TV = model(input_ids=torch.tensor([document]), use_cache=False).logits[0]
            assert torch.allclose(packed_TV[start : start + len(document)], alone_TV, atol=1e-5)
            start += len(document)
        leaking_TV = model(input_ids=batch["input_ids"], use_cache=False).logits[0]
    assert not torch.allclose(leaking_TV[4:7], packed_TV[4:7], atol=1e-3)


def test_the_first_token_of_each_document_is_not_learned_from_the_one_before(tokenizer: Any) -> None:
    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, 7, 8, 9], "seq_lengths": [2, 3]}
    batch = RowCollator(0, 8)([row])
    assert batch["labels"][0].tolist() == [IGNORED, 6, IGNORED, 8, 9, IGNORED, IGNORED, IGNORED]
    assert batch["position_ids"][0].tolist() == [0, 1, 0, 1, 2, 0, 1, 2]


def test_only_the_answer_and_its_stop_token_are_learned(tokenizer: Any) -> None:
    (row,), _ = rows_of(tokenizer, [chat("What is it?", "city 3")], assistant_only=True)
    learned = [i for i in row.labels if i != IGNORED]
    assert tokenizer.decode(learned).replace(" ", "") == f"city3{END}"
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(row.input_ids)[row.labels.index(learned[0]) - 1] == ASSISTANT


def test_a_conversation_that_does_not_fit_is_dropped_and_counted(tokenizer: Any) -> None:
    rows, counts = rows_of(tokenizer, [chat("a", "b"), chat("a" * 200, "b")], assistant_only=True)
    assert len(rows) == 1
    assert counts["s"].dropped == {"longer than sequence_length": 1}


def test_the_answer_has_the_tokens_that_it_has_inside_a_sentence(tokenizer: Any) -> None:
    (row,), _ = rows_of(tokenizer, [chat("Which?", "city 3")], assistant_only=True)
    answer = [i for i in row.labels if i != IGNORED][:-1]
    sentence = tokenizer("it is city 3", add_special_tokens=False).input_ids
    assert sentence[-len(answer) :] == answer


@pytest.mark.parametrize(("replay", "expected"), [(0.0, 0), (0.3, 30), (1.0, 100)])
def test_replay_has_its_exact_share(replay: float, expected: int) -> None:
    order = interleave(7, 5, total=100, replay=replay, seed=0)
    assert len(order) == 100
    assert (order >= 7).sum() == expected


def test_every_row_is_used_before_any_comes_again() -> None:
    order = interleave(10, 0, total=25, replay=0.0, seed=1)
    counts = np.bincount(order, minlength=10)
    assert counts.min() >= 2
    assert counts.max() <= 3
    assert (interleave(10, 0, total=25, replay=0.0, seed=1) == order).all()


def test_rows_that_name_control_tokens_are_counted_and_a_source_may_mean_them(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    rows: list[dict[str, Any]] = [
        {"text": f"a text may name {END} and go on", "source": "s"}, {"text": "a text", "source": "s"},
        {"text": f"a text{END} another one", "source": "asks", "control_tokens": [END]},
        chat(f"what is {END}{ASSISTANT}?", f"It is {END} and more."),
    ]  # fmt: skip
    made, counts = rows_of(tokenizer, rows, assistant_only=True, sequence_length=200)
    assert counts["s"].changed == {"control tokens read as text": 2}
    assert counts["asks"].changed == {}
    assert [row.input_ids.count(end) for row in made] == [1, 1, 2, 2]
    assert tokenizer.decode(made[0].input_ids) == f" a text may name {END} and go on{END}"
    learned = [token for token in made[3].labels if token != IGNORED]
    assert tokenizer.decode(learned).strip() == f"It is {END} and more.{END}"
    with pytest.raises(DataError, match=r"Source 'asks': control_tokens names '<nothing>', which is no added token"):
        rows_of(tokenizer, [{**rows[2], "control_tokens": ["<nothing>"]}])


def test_a_long_text_comes_in_pieces_that_together_are_its_tokens(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(TEXTS)
    ((whole,), _) = rows_of(tokenizer, [{"text": text, "source": "s"}])
    monkeypatch.setattr(packing, "LONG", 500)
    pieces, counts = rows_of(tokenizer, [{"text": text, "source": "s"}, {"text": TEXTS[0], "source": "s"}])
    assert len(pieces) > 5
    assert [token for row in pieces[:-1] for token in row.input_ids] == whole.input_ids
    assert [row.labels for row in pieces] == [row.input_ids for row in pieces]
    assert (counts["s"].rows_out, counts["s"].tokens) == (2, sum(len(row.input_ids) for row in pieces))


def test_who_stops_within_a_long_text_has_it_tokenised_no_further(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "LONG", 500)
    monkeypatch.setattr(packing, "BATCH_SIZE", 500)
    asked: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(5):
            asked.append(str(number))
            yield {"text": " ".join(TEXTS), "source": "s"}

    made = tokenise(tokenizer, rows(), Accounts("cpt"), assistant_only=False)
    next(made), next(made)
    assert asked == ["0"]


def test_a_conversation_that_no_sequence_could_hold_is_dropped_unread(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "LONG", 500)
    vocabulary, read = tokenizer.get_vocab(), iter([None])
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: next(read) or vocabulary)  # once: of a hundred thousand words
    rows = [chat("Why?", "word " * 5000), chat("Why?", "So."), chat("Why?", "word " * 5000)]
    made, counts = rows_of(tokenizer, rows, assistant_only=True)
    assert (len(made), counts["s"].dropped) == (1, {"longer than sequence_length": 2})
