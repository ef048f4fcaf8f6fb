"""The stage that runs is seen with the model that it really has: rows of new tokens, and tables that are one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.resolve import resolve
from common.cost.outlook import Outlook, setting_in
from common.cost.speed import token_flops
from tests.conftest import REPOSITORY
from tests.models.growth.small import small


def test_a_running_stage_has_the_shape_of_the_model_before_it(tmp_path: Path) -> None:
    """A tokenizer stage on the way has added rows that the base's facts do not have."""
    config = resolve({"domain": "medical"}, REPOSITORY).config
    small("llama").save_pretrained(tmp_path)
    context: Any = SimpleNamespace(
        kind="cpt", settings=config.stages["cpt"], config=config, inputs={}, parent="vocabulary",
        parent_artifact=SimpleNamespace(path=tmp_path),
    )  # fmt: skip
    found = setting_in(context)
    assert found is not None
    assert (found[0].shape.vocabulary, found[0].shape.parameters) == (
        small("llama").config.vocab_size, small("llama").num_parameters(),
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "other"}')  # nothing is known of it: the base's counts
    other = setting_in(context)
    assert other is not None
    assert other[0].shape.vocabulary == config.model.vocabulary_size


def test_a_table_of_words_that_is_the_head_too_costs_the_gradient_of_both() -> None:
    words = {"domain": "medical", "pipeline": "growth", "cpt-added.train_also": "[embed_tokens]"}
    setting = Outlook.of(resolve(words, REPOSITORY)).settings["cpt-added"]
    work = setting.work
    assert work is not None
    tied, untied = (
        token_flops(replace(setting, shape=replace(setting.shape, tied=tied)), work) for tied in (True, False)
    )
    shape, head = setting.shape, work.scored / work.tokens
    assert tied - untied == pytest.approx(2 * head * shape.vocabulary * shape.hidden)  # one product more
