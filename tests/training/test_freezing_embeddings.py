"""With `train_only: embeddings` the rows of tokens learn, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.stages import CptSettings
from common.errors import ConfigError
from common.training.freezing import freeze
from tests.conftest import REPOSITORY
from tests.models.test_vocabulary import make
from tests.stages.test_tokenizer import context_of


@pytest.mark.parametrize("tied", [True, False])
def test_rows_alone_learn(tied: bool, finished: Path, tmp_path: Path) -> None:
    context, model = context_of(finished, tmp_path), make(40, tied=tied)
    learns = replace(context, settings=CptSettings(tokens=2048, train_only="embeddings"))
    found = freeze(learns, model)
    named = sorted(name for name, weight in model.named_parameters() if weight.requires_grad)
    assert named == ["model.embed_tokens.weight"] if tied else ["lm_head.weight", "model.embed_tokens.weight"]
    assert found == {"learned_parameters": 40 * 16 * (1 if tied else 2)}


def test_without_the_setting_all_learns(finished: Path, tmp_path: Path) -> None:
    context, model = context_of(finished, tmp_path), make(40, tied=True)
    assert freeze(replace(context, settings=CptSettings(tokens=2048)), model) == {}
    assert all(weight.requires_grad for weight in model.parameters())


def test_an_adapter_beside_it_is_refused() -> None:
    words: dict[str, Any] = {"domain": "medical", "cpt.train_only": "embeddings", "cpt.peft": "lora"}
    with pytest.raises(ConfigError, match=r"train_only=embeddings and peft=lora exclude each other; set peft=full"):
        resolve(words, REPOSITORY)
