"""Every pipeline file is whole, and those without a test of their own run to a card."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.config.folders import names_in
from common.config.resolve import resolve
from common.console import Console
from common.engine.preflight.settings import check_settings
from common.engine.run import execute
from common.models.settings_files import read_config
from tests.conftest import QUICK, REPOSITORY, long

WORDS = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")} | {"domain": "medical"}


@pytest.mark.parametrize("name", names_in(REPOSITORY / "pipelines"))
def test_it_resolves_on_the_tiny_profile_and_with_a_checkpoint(name: str) -> None:
    real = {"data": "hub", "model.path": "owner/name", "model.revision": "0" * 40}
    for words in ({}, real):
        resolved = resolve({"domain": "medical", "pipeline": name, **words}, REPOSITORY)
        check_settings(resolved)
        assert resolved.pipeline.publish in resolved.pipeline.exam


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "checkpoints"),
    [
        long("residual", ["base", "instruct", "cpt", "residual"]),
        long("instruct-residual", ["base", "cpt", "residual"]),
        long("sec", ["base", "instruct", "cpt", "ties"]),
        long("growth", ["base", "cpt", "sft", "cpt-added", "sft-grown"]),
        long("vocabulary", ["base", "vocabulary", "cpt", "sft"]),
        long("uda", ["base", "source-only", "cpt", "sft"]),
        long("pcp", ["base", "cpt", "few", "prompted", "sft"]),
        long("sparse", ["base", "cpt", "sft", "sparse", "sft-sparse"]),
        ("sft-only", ["base", "sft"]),
        long("dpo-only", ["base", "dpo"]),
        ("cpt-sft", ["base", "cpt", "sft"]),
        ("adapters", ["base", "cpt-lora", "sft-lora", "cpt", "sft"]),
    ],
)
def test_it_runs_to_a_card(pipeline: str, checkpoints: list[str], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "store", symlinks=True)
    words = WORDS | {"pipeline": pipeline, "out": str(tmp_path / "store"), "instruct.tokens": "8192"}
    words |= {"dpo.epochs": QUICK["dpo.epochs"]} if "dpo" in checkpoints else {}
    words |= {"vocabulary.min_frequency": "8"} if "vocabulary" in checkpoints else {}
    words |= {"label.prompts": "60"} if "prompted" in checkpoints else {}
    absent = {"cpt", "sft", "instruct"} - set(checkpoints)
    words = {key: value for key, value in words.items() if key.partition(".")[0] not in absent}
    artifacts = execute(resolve(words, REPOSITORY), Console("quiet")).artifacts
    assert [name for name in artifacts if f"exam-{name}" in artifacts] == checkpoints
    assert "card" in artifacts
    if "cpt-lora" in checkpoints:
        card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
        assert "`cpt-lora` trained an adapter (lora, rank" in card
        assert "Compared with training all weights (`cpt`):" in card
        assert "Compared with training all weights (`sft`):" in card
    if "cpt-added" in checkpoints:
        card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
        facts = artifacts["expand"].manifest["metrics"]["growth"]
        before, after = artifacts["base"].manifest["metrics"]["parameters"], facts["parameters"]
        grew = f"from {before:,} to {after:,} parameters and 6 layers: copies of layers"
        assert f"`expand` grew the model {grew}" in card
        assert "(LLaMA Pro, arXiv 2401.02415). Its logits differ from those before by 0 of their range" in card
        assert f"`cpt-added` trained {after - before:,} parameters, those of the added layers alone." in card
    if "vocabulary" in checkpoints:
        card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
        assert f"`vocabulary` added {artifacts['vocabulary'].manifest['metrics']['added']} tokens" in card
        rows = artifacts["vocabulary"].manifest["metrics"]["rows"]
        assert read_config(artifacts["sft"].path)["vocab_size"] == rows["after"] > rows["before"]
    if "prompted" in checkpoints:
        facts = artifacts["label"].manifest["metrics"]
        read = [row for row in artifacts["prompted"].manifest["rows"] if row["role"] == "cpt"]
        assert [(row["source"], row["rows_in"]) for row in read] == [("embedded Medicines (labelled)", facts["texts"])]
        card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
        assert f"`few` chose the likeliest label of {facts['prompts']} prompts (PCP, arXiv 2305.01711" in card
    if "source-only" in checkpoints:  # neither arm reads a label of the target
        for name in ("source-only", "sft"):
            assert {row["role"] for row in artifacts[name].manifest["rows"]} == {"replay"}
    if "sparse" in checkpoints:
        card = (artifacts["card"].path / "README.md").read_text(encoding="utf-8")
        inputs = read_config(artifacts["base"].path)
        width, inner = inputs["hidden_size"], inputs["intermediate_size"]
        zeros, total = 4 * (3 * width**2 + 3 * width * inner) // 2, artifacts["base"].manifest["metrics"]["parameters"]
        assert f"`sparse` made {zeros:,} of {total:,} weights zero ({zeros / total:.1%}), half of those of 28 m" in card
        assert f"| `sft-sparse` | `sft` | {zeros:,} |" in card
    if "instruct" in checkpoints:
        rows = artifacts["instruct"].manifest["rows"]
        assert {row["role"] for row in rows} == {"replay"}  # nothing of the domain
        assert all("Medicines" not in row["source"] for row in rows)
