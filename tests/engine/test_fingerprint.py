"""What is part of a stage's identity, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import Field, create_model

from common.config.blocks import checked
from common.config.cleaning import DataSettings
from common.config.defaults import differing, filled
from common.config.kinds import Kind, kind_of, kinds
from common.config.resolve import Resolved, resolve
from common.config.stages import BaseSettings
from common.engine.corpora import open_corpus
from common.engine.fingerprint import RECIPE_SCHEMA, _files_of_blocks, recipe_of, settings_made_with
from common.engine.staleness import changes
from common.store.artifacts import Artifact, fingerprint_of
from tests.conftest import REPOSITORY


def base(**overrides: str) -> tuple[Resolved, dict[str, Any]]:
    """Return a medical run with further settings, such as base__tokens, and the recipe of its base."""
    resolved = resolve({"domain": "medical", **{k.replace("__", "."): v for k, v in overrides.items()}}, REPOSITORY)
    return resolved, recipe_of(resolved.nodes[0], resolved, open_corpus(resolved), {})


def fingerprint(**overrides: str) -> str:
    """Return the fingerprint of that base."""
    return fingerprint_of(base(**overrides)[1])


@pytest.mark.parametrize(
    ("option", "value", "changes"),
    [
        ("dataloader_drop_last", "true", True),  # leaves rows out
        ("dataloader_in_order", "false", True),
        ("logging_nan_inf_filter", "false", True),  # what the loss guard sees
        ("learning_rate", "1.0e-5", True),
        ("dataloader_pin_memory", "false", False),
        ("dataloader_prefetch_factor", "4", False),
        ("logging_steps", "7", False),
        ("log_level", "error", False),
    ],
)
def test_an_option_of_the_trainer_is_identity_unless_it_only_logs_or_loads(
    option: str, value: str, changes: bool
) -> None:
    assert (fingerprint(**{f"base__train__{option}": value}) != fingerprint()) is changes


def test_a_default_is_no_part_of_a_recipe_whether_it_is_written_or_not() -> None:
    resolved, recipe = base()
    assert not {"packing", "peft", "guard", "replay"} & recipe["settings"].keys()
    assert fingerprint(base__packing="isolated", base__guard__spike="3.0") == fingerprint()
    assert fingerprint(base__guard__spike="null") != fingerprint()
    assert settings_made_with(recipe)["guard"] == resolved.config.stages["base"].model_dump(mode="json")["guard"]


def test_of_lineages_that_of_the_parent_alone_is_identity() -> None:
    words = {"domain": "medical", "cpt.replay": "0.5", "cpt.replay_from": "lineage"}
    resolved = resolve(words, REPOSITORY)
    node = next(node for node in resolved.nodes if node.name == "cpt")
    entry: dict[str, Any] = {"stage": "base", "domain": "", "sources": [], "read": {"tokens-a": 9}, "tokenizer": None}
    inputs = {
        name: Artifact(Path(), {"stage": name, "digest": name, "lineage": [{**entry, "fingerprint": name}]})
        for name in ("base", "sample")
    }
    recipe = recipe_of(node, resolved, open_corpus(resolved), inputs)
    assert recipe["lineage"] == {"base": 9}


def test_a_new_setting_changes_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    later = create_model("Later", __base__=BaseSettings, new=(int, 3), listed=(list[int], Field(default_factory=list)))
    monkeypatch.setitem(cast(dict[str, Kind], kinds()), "base", replace(kind_of("base"), settings=later))
    assert fingerprint() == before
    assert fingerprint(base__new="4") != before


def test_every_setting_survives_being_left_out() -> None:
    words = {"cpt.guard.spike": "null", "cpt.guard.window": "10", "cpt.schedule.floor": "0.3", "sft.peft": "lora"}
    resolved = resolve({"domain": "medical", **words}, REPOSITORY)
    for settings in resolved.config.stages.values():
        assert filled(differing(settings), type(settings)) == settings.model_dump(mode="json")


def test_a_default_is_compared_with_what_was_given_and_an_older_recipe_with_all_its_defaults() -> None:
    resolved, given = base(base__packing="trl", base__replay="0.1")
    _, recipe = base()
    node = resolved.nodes[0]
    assert changes(recipe, given, resolved.origins, node) == [
        "base.packing: isolated -> trl (command line)", "base.replay: 0.0 -> 0.1 (command line)",
    ]  # fmt: skip
    on: list[dict[str, Any]] = [{"unlikelihood": {}}, {"unlikelihood": {"alpha": 0.0}}, {}]
    plain, weighed, without = ({**recipe, "settings": {"methods": methods}} for methods in on)
    assert changes(plain, weighed, {}, node) == ["base.methods.unlikelihood.alpha: 1.0 -> 0.0"]
    assert changes(weighed, plain, {}, node) == ["base.methods.unlikelihood.alpha: 0.0 -> 1.0"]
    assert "base.methods.unlikelihood.alpha: (absent) -> 0.0" in changes(without, weighed, {}, node)
    older = {**recipe, "settings": settings_made_with(recipe), "data": {"pretrain/": {"limit": None}}}
    del older["schema"]
    assert changes(older, recipe, {}, node) == [f"schema: (absent) -> {RECIPE_SCHEMA}"]


@pytest.mark.parametrize("block", ["format_alignment", "history", "perplexity"])
def test_the_weights_of_a_model_that_a_block_reads_are_identity(block: str, tmp_path: Path) -> None:
    resolved, _ = base()
    settings = DataSettings(role="sft", blocks=checked([{block: {"checkpoint": str(tmp_path), "keep_all": True}}]))
    (tmp_path / "config.json").write_text("{}")
    found = []
    for weights in (b"one", b"two"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        found.append(_files_of_blocks(settings, resolved))
    assert found[0]["models"][str(tmp_path)]["files"].keys() == {"config.json", "model.safetensors"}
    assert found[0] != found[1]
    assert _files_of_blocks(DataSettings(role="sft", blocks=checked(["unicode"])), resolved) == {}
