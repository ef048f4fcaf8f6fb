"""Layers that say one thing in TRL's words and in ours: the stronger one holds, and equal ones may not contradict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.config.resolve import Resolved
from common.config.stage_sections import Layer
from common.config.variants import with_layers
from common.errors import ConfigError
from tests.config.pasting import run, settings_of, told
from tests.conftest import REPOSITORY


def of_manifest(folder: Path, settings: str, **words: str) -> Resolved:
    """Resolve a run with the settings of a manifest."""
    (folder / "own.yaml").write_text(f"settings: {{{settings}}}\n", encoding="utf-8")
    return run(data=str(folder / "own.yaml"), **words)


@pytest.mark.parametrize(
    ("manifest", "words", "expected"),
    [
        (
            "sft: {train: {max_length: 256}, sequence_length: 512}",
            {},
            "sft.train.max_length=256 (manifest own.yaml) and sft.sequence_length=512 (manifest own.yaml) contradict "
            "each other. Leave out one.",
        ),
        (
            "sft: {train: {max_length: 256}}",
            {"sft.sequence_length": "512"},
            "sft.train.max_length=256 (manifest own.yaml) and sft.sequence_length=512 (command line) contradict",
        ),
        (
            "sft: {train: {per_device_train_batch_size: 2, gradient_accumulation_steps: 3}}",
            {"sft.batch_tokens": "1024"},
            "sft.train.per_device_train_batch_size=2 x gradient_accumulation_steps=3 (manifest own.yaml) and "
            "sft.batch_tokens=1024 (command line) contradict",
        ),
        (
            "sft: {train: {num_train_epochs: 2}, tokens: 8192}",
            {},
            "sft.train.num_train_epochs=2 (manifest own.yaml) and sft.tokens=8192 (manifest own.yaml) contradict",
        ),
        (
            "sft: {train: {lr_scheduler_type: cosine}, schedule: {kind: constant}}",
            {},
            "sft.train.lr_scheduler_type=cosine (manifest own.yaml) and sft.schedule.kind=constant (manifest own.yaml)",
        ),
        (
            "sft: {train: {packing: false}, packing: isolated}",
            {},
            "sft.train.packing=false (manifest own.yaml) and sft.packing=isolated (manifest own.yaml) contradict",
        ),
        (
            "",
            {"sft.train.seed": "3", "seed": "4"},
            "sft.train.seed=3 (command line) and seed=4 (command line) contradict each other. Leave out one.",
        ),
        (
            "",
            {"sft.train.seed": "3", "dpo.train.seed": "4"},
            "sft.train gives seed=3 and dpo.train seed=4, and a run has one. Leave out one.",
        ),
    ],
)
def test_a_value_given_twice_with_another_meaning_names_both_layers(
    manifest: str, words: dict[str, str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        of_manifest(tmp_path, manifest, **words)
    assert str(caught.value).startswith(expected)


def test_given_twice_with_one_meaning_it_holds(tmp_path: Path) -> None:
    manifest = "sft: {train: {max_length: 256}, sequence_length: 256}"
    found = of_manifest(tmp_path, manifest, **{"sft.train.seed": "3", "seed": "3"})
    assert settings_of(found, "sft")["sequence_length"] == 256


def test_a_stronger_layer_wins_over_ours_and_over_another_block(tmp_path: Path) -> None:
    manifest = "sft: {train: {max_length: 256, num_train_epochs: 2}}"
    found = of_manifest(tmp_path, manifest, **{"sft.train.max_length": "512", "sft.tokens": "8192"})
    settings = settings_of(found, "sft")
    assert (settings["sequence_length"], settings["tokens"], settings["epochs"]) == (512, 8192, None)
    assert "num_train_epochs -> tokens=8192 of the command line holds instead" in told(found)
    assert found.origins["sft.sequence_length"] == "command line, from train.max_length"


def test_what_is_decided_for_a_users_data_holds_over_a_weaker_block(tmp_path: Path) -> None:
    """It is a layer above profile, pipeline and domain, which no user wrote."""
    shutil.copytree(REPOSITORY / "domains" / "medical", tmp_path / "odd")
    block = "all: {sft: {train: {per_device_train_batch_size: 8}}, card: {limits_of_use: None.}}"
    (tmp_path / "odd" / "stages.yaml").write_text(block, encoding="utf-8")
    found = with_layers(
        run(domain=str(tmp_path / "odd")), [Layer("own data: small", {"sft": {"batch_tokens": 512}}, stage="sft")]
    )
    assert settings_of(found, "sft")["batch_tokens"] == 512
    assert "batch_tokens=512 holds instead (own data: small)" in told(found)
