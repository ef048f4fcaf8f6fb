"""Rows of two sources in the order of a score: what the trainer takes, and that it is the same for whoever makes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import CptSettings
from common.console import Console
from common.data.accounting import RowCount
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.report.chain import Chain
from common.report.stage_notes import mixture_notes
from common.stage import StageContext
from common.training.fit import trainer_for
from common.training.rows import prepared, shards
from common.training.rows.rows import TrainingRows, build_rows
from tests.conftest import REPOSITORY

PLAIN = {"batch_tokens": 128, "sequence_length": 64, "epochs": 1, "mixture": {"curriculum": {}}}
SIZES = {"web": 300, "books": 100}


class Corpus:
    """Texts of two sources, shuffled lengths and all; each has a score that falls with its length."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        for source, size in SIZES.items():
            for number in range(size):
                length = (number * 7) % 30 + 1
                text = f"{source} " + "word " * length
                yield {"text": text, "source": source, "scores": {"ease": -float(length)}}

    def conversations(self, role: str) -> dict[str, bool]:
        return dict.fromkeys(SIZES, False)

    def counts(self, role: str) -> dict[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["web word books word web"] * 20, 300, 256)


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


def context(folder: Path, config: Config, corpus: Any = None, **settings: Any) -> StageContext:
    made = CptSettings.model_validate({**PLAIN, **settings})
    folder.mkdir(exist_ok=True)
    corpus = cast(Any, corpus or Corpus())
    return StageContext("cpt", "cpt", made, config, {}, None, corpus, folder, folder, folder, Console("quiet"))


def built(given: StageContext, tokenizer: Any) -> TrainingRows:
    return build_rows(given, tokenizer, role="cpt", assistant_only=False)


def ids_of(rows: TrainingRows) -> list[list[int]]:
    return [list(row["input_ids"]) for row in rows.dataset]


def means(rows: Sequence[Any], source: str, tokenizer: Any) -> list[float]:
    """Return the mean length of the documents of each row of a source, in the order of the rows."""
    first = tokenizer(f"{source} word")["input_ids"][0]
    return [float(np.mean(row["seq_lengths"])) for row in rows if row["input_ids"][0] == first]


def rises(values: Sequence[float]) -> bool:
    """Whether values grow, but for the order within what is packed together."""
    quarters = np.array_split(np.array(values), 4)
    return all(one.max() <= two.min() + 4 for one, two in itertools.pairwise(quarters))


@pytest.mark.parametrize(
    ("by", "direction"), [("length", "ascending"), ("length", "descending"), ("ease", "descending")]
)
def test_rows_of_two_sources_train_from_the_shortest_to_the_longest_or_back(
    by: str, direction: str, tokenizer: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "WINDOW_ROWS", 4)
    given = context(tmp_path / "a", config, mixture={"curriculum": {"by": by, "direction": direction}})
    rows = built(given, tokenizer)
    for source in SIZES:
        values = means(rows.dataset, source, tokenizer)
        assert len(values) > 20
        assert rises(values[::-1] if (by, direction) == ("length", "descending") else values)


def test_the_trainer_takes_rows_in_that_order(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    given = context(tmp_path / "a", config, epochs=None, tokens=512)
    rows = built(given, tokenizer)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    seen: list[list[int]] = []
    model.register_forward_pre_hook(lambda _, __, given: seen.extend(given["input_ids"].tolist()), with_kwargs=True)
    trainer_for(given, model, tokenizer, rows, tmp_path).train()
    pad = tokenizer.pad_token_id
    assert [row + [pad] * (64 - len(row)) for row in ids_of(rows)] == seen


def test_the_order_is_the_same_again_and_after_a_preparation_that_was_killed(
    tokenizer: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ids_of(built(context(tmp_path / "whole", config), tokenizer))
    monkeypatch.setattr(shards, "SHARD", 500)
    assert ids_of(built(context(tmp_path / "again", config), tokenizer)) == whole
    pack = shards.TokenShards.pack

    def killed(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards.TokenShards, "pack", killed)
    with pytest.raises(KeyboardInterrupt):
        built(context(tmp_path / "killed", config), tokenizer)
    monkeypatch.setattr(shards.TokenShards, "pack", pack)
    monkeypatch.setattr(prepared, "_tokenise", killed)  # what was tokenised is not tokenised again
    with pytest.raises(KeyboardInterrupt):  # but for the second source, which had not begun
        built(context(tmp_path / "killed", config), tokenizer)
    monkeypatch.undo()
    assert ids_of(built(context(tmp_path / "killed", config), tokenizer)) == whole


def test_a_budget_draws_rows_before_they_are_ordered(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    budget = {"epochs": None, "tokens": 2048}
    few = built(context(tmp_path / "a", config, **budget), tokenizer)
    plain = built(context(tmp_path / "b", config, **budget, mixture={"shares": {"web": 0.75}}), tokenizer)
    lengths = [[length for row in rows.dataset for length in row["seq_lengths"]] for rows in (few, plain)]
    assert max(lengths[0]) == max(lengths[1])
    assert few.steps == plain.steps == 16


def test_a_row_without_the_score_is_named(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"cpt\.mixture\.curriculum\.by=eas: a row of the source 'web' has no such score\. Did you mean 'ease'",
    ):
        built(context(tmp_path / "a", config, mixture={"curriculum": {"by": "eas"}}), tokenizer)


def test_a_mixture_needs_packed_rows() -> None:
    with pytest.raises(ValueError, match="a mixture orders packed rows, which packing: trl has none of"):
        CptSettings.model_validate({**PLAIN, "packing": "trl"})


def test_the_card_says_the_order() -> None:
    manifests: dict[str, dict[str, Any]] = {
        "cpt": {"kind": "cpt", "settings": {"mixture": {"curriculum": {"by": "ease"}}}},
        "sft": {"kind": "sft"},
    }
    (note,) = mixture_notes(Chain((), "cpt", manifests))
    assert note.startswith(
        "In `cpt` every pass over a source goes roughly from the rows that are lowest in ease to those that"
    )
