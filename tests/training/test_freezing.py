"""What is frozen gets no gradient and no optimizer state; below the lowest layer that learns nothing is passed back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.node import Node
from common.config.resolve import resolve
from common.config.stages import CptSettings, MergeSettings
from common.errors import ConfigError
from common.models.growth.record import Growth, write_growth
from common.training.freezing import check_train_only, freeze
from tests.conftest import REPOSITORY
from tests.models.growth.small import IDS, small

ADDED = Growth("expand", "llama_pro", (2, 3), 4, 10, 20, 0.0, True)


def context(folder: Path, **settings: Any) -> Any:
    given = CptSettings.model_validate({"tokens": 4096, **settings})
    return SimpleNamespace(
        stage="cpt", settings=given, parent="expand", parent_artifact=SimpleNamespace(path=folder)
    )  # fmt: skip


@pytest.mark.parametrize(("also", "expected"), [((), set()), (("embed_tokens",), {"model.embed_tokens.weight"})])
def test_what_is_frozen_costs_no_optimizer_memory(also: Any, expected: set[str], tmp_path: Path) -> None:
    write_growth(tmp_path, ADDED)
    model = small("llama", tie_word_embeddings=False)
    freeze(context(tmp_path, train_only="added", train_also=also), model)
    passed = []  # whether a gradient will pass through what a layer gives
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, __, given: passed.append(given.requires_grad))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    model(input_ids=torch.tensor([IDS]), labels=torch.tensor([IDS])).loss.backward()
    optimizer.step()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    layers = {name for name, _ in model.named_parameters() if name.startswith(("model.layers.2.", "model.layers.3."))}
    assert learned == layers | expected
    assert len(optimizer.state) == len(learned)
    assert passed == ([True] * 4 if expected else [False, False, True, True])


def test_without_the_setting_all_learns(tmp_path: Path) -> None:
    model = small("llama")
    freeze(context(tmp_path), model)
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("growth", [None, Growth("deeper", "depth", (), 8, 10, 20, 0.5, False)])
def test_where_nothing_was_added_it_is_refused(growth: Growth | None, tmp_path: Path) -> None:
    if growth is not None:
        write_growth(tmp_path, growth)
    with pytest.raises(ConfigError, match=r"cpt\.train_only=added: expand holds no layers that a stage has added; "):
        freeze(context(tmp_path, train_only="added"), small("llama"))


def test_behind_a_merge_that_takes_layers_apart_it_is_refused_by_the_plan() -> None:
    resolved = resolve({"domain": "medical", "pipeline": "growth"}, REPOSITORY)
    (cpt,) = (node for node in resolved.nodes if node.name == "cpt-added")
    merge = Node("blend", "merge", "expand", ("expand",), "blend")
    settings: Any = resolved.config.stages["cpt-added"]
    check_train_only(cpt, settings, resolved)
    nodes = (*(node for node in resolved.nodes if node != cpt), merge, replace(cpt, parent="blend", inputs=("blend",)))
    slices = [{"sources": [{"model": "expand", "layer_range": [0, 5]}]}]
    blend = MergeSettings(method="passthrough", slices=slices)
    config = resolved.config.model_copy(update={"stages": {**resolved.config.stages, "blend": blend}})
    with pytest.raises(ConfigError, match=r"^cpt-added\.train_only=added: blend before it takes layers apart, so that"):
        check_train_only(nodes[-1], settings, replace(resolved, config=config, nodes=nodes))
