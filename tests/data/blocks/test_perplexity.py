"""Perplexity under a KenLM model that the test writes: thresholds, shares, and models that cannot be loaded."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import Drop, checked
from common.errors import ConfigError, DataError
from tests.data.blocks.driving import applied, one, reason, rows_of

needs_kenlm = pytest.mark.skipif(importlib.util.find_spec("kenlm") is None, reason="kenlm is not installed")
# log10 of: the end of a line 0.1, a 0.5, b 0.3, anything else 0.1
ARPA = """\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-1.0\t<unk>\t0
-99\t<s>\t0
-1.0\t</s>\t0
-0.30103\ta\t0
-0.52288\tb\t0
-9.0\tq\t0

\\2-grams:
-1.0\tq q

\\end\\
"""


def folder_with_model(folder: Path) -> Path:
    (folder / "lm.arpa").write_text(ARPA, encoding="utf-8")
    return folder


def kept(folder: Path, texts: list[str], tasks: int = 1, **settings: Any) -> list[str | None]:
    given = {"model": "lm.arpa", **settings}
    found = applied("perplexity", rows_of(texts), folder, data=folder_with_model(folder), tasks=tasks, **given)
    return [reason(row) for row in found]


@needs_kenlm
def test_the_perplexity_is_ten_to_the_mean_negative_log_likelihood(tmp_path: Path) -> None:
    found = one("perplexity", "a a\nb", tmp_path, data=folder_with_model(tmp_path), model="lm.arpa", highest=0.1)
    assert isinstance(found, Drop)
    mean = (0.30103 * 2 + 0.52288 + 1.0 * 2) / 5  # three words and two ends of lines
    assert float(found.detail) == pytest.approx(10**mean, abs=0.06)
    assert not math.isclose(mean, (0.30103 * 2 + 0.52288 + 1.0) / 4)


@needs_kenlm
def test_thresholds_on_both_sides(tmp_path: Path) -> None:
    texts = ["a " * 30, "a b " * 15, "z " * 30]
    assert kept(tmp_path, texts, highest=5, least=2.3) == ["perplexity too low", None, "perplexity too high"]
    assert kept(tmp_path, texts, highest=5) == [None, None, "perplexity too high"]


@needs_kenlm
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_a_share_is_of_all_rows_whatever_the_tasks(tasks: int, tmp_path: Path) -> None:
    texts = [" ".join(["a"] * (10 - place) + ["z"] * place) for place in (3, 9, 1, 7, 0, 8, 2, 6, 4, 5)]
    found = kept(tmp_path, texts, tasks, lowest=0.3)
    assert [place for place, why in enumerate(found) if why is None] == [2, 4, 6]
    assert set(found) == {None, "not among the lowest perplexities"}
    assert kept(tmp_path, texts, tasks, lowest=1.0) == [None] * 10


@needs_kenlm
def test_capitals_and_ccnet(tmp_path: Path) -> None:
    assert kept(tmp_path, ["A A A A A A"], highest=5) == ["perplexity too high"]
    assert kept(tmp_path, ["A A A A A A"], highest=5, lower=True) == [None]
    assert kept(tmp_path, ["\u00c1 A \u00e0 A A A"], highest=5, ccnet=True) == [None]


@needs_kenlm
def test_an_empty_text_and_no_rows_are_no_error(tmp_path: Path) -> None:
    assert kept(tmp_path, ["", "a a a"], lowest=0.5) == ["not among the lowest perplexities", None]
    assert kept(tmp_path, [], lowest=0.5) == []


@needs_kenlm
def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "lm.bin").write_bytes(b"not a model")
    with pytest.raises(DataError, match=r"perplexity\.model: lm\.bin is no KenLM model of two orders or more"):
        one("perplexity", "a", tmp_path, data=tmp_path, model="lm.bin", highest=5)


@pytest.mark.skipif(importlib.util.find_spec("kenlm") is not None, reason="kenlm is installed")
def test_without_the_library_a_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the library kenlm, which is not installed"):
        one("perplexity", "a", tmp_path, data=folder_with_model(tmp_path), model="lm.arpa", highest=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "m"}, "perplexity needs highest, least or lowest, or nothing would be dropped"),
        (
            {"model": "m", "keep_all": True, "lowest": 0.1},
            "keep_all drops none, and highest, least and lowest say which",
        ),
        ({"model": "m", "highest": 5, "least": 6}, "least is 6, which is above highest, 5"),
        ({"highest": 5}, r"perplexity is that of a model \(KenLM\) or of a checkpoint; give one of them"),
        ({"model": "m", "checkpoint": "c", "highest": 5}, "give one of them"),
        ({"checkpoint": "c", "lower": True, "highest": 5}, "sentencepiece, ccnet and lower are for a KenLM model"),
    ],
)
def test_settings_that_drop_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked([{"perplexity": settings}])


def test_a_checkpoint_gives_e_to_the_mean_loss_of_the_first_tokens(tmp_path: Path) -> None:
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    from common.models.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["one two three four"] * 20, 300, 256)
    set_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.5, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    texts = ["one two", "four three two one " * 10, ""]
    found = applied(
        "perplexity", rows_of(texts), tmp_path / "work", checkpoint=str(tmp_path / "small"), longest=16, keep_all=True
    )
    for text, row in zip(texts[:2], found, strict=False):
        ids = tokenizer(text).input_ids[:15]
        with torch.no_grad():
            logits = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0].double().numpy()
        losses = [np.log(np.exp(line).sum()) - line[token] for line, token in zip(logits, ids, strict=False)]
        assert not isinstance(row, Drop)
        assert row["scores"]["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert found[2]["scores"]["perplexity"] > 1e30
    with pytest.raises(ConfigError, match=r"perplexity\.checkpoint is '.*none'; expected the folder of a model"):
        one("perplexity", "a", tmp_path / "other", checkpoint=str(tmp_path / "none"), keep_all=True)
