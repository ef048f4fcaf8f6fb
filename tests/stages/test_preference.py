"""DPO, ORPO and KTO on tiny pairs: each trains, measures the held-out pairs, and hands on a whole model."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import execute, run_stage
from common.errors import ConfigError
from common.stage import StageContext
from common.stages import preference
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow


def words(root: Path, **more: str) -> dict[str, str]:
    quick = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
    return {"domain": "medical", "out": str(root), **quick, **more}


@pytest.mark.long
@pytest.mark.parametrize(("pipeline", "stage", "merged"), [("orpo", "orpo", "slerp"), ("kto", "kto", "blend")])
def test_its_pipeline_runs_to_a_card(pipeline: str, stage: str, merged: str, copy: Path) -> None:
    more = {"pipeline": pipeline, f"{stage}.epochs": "0.1"}
    outcome = execute(resolve(words(copy, **more), REPOSITORY), Console("quiet"))
    metrics = outcome.artifacts[stage].manifest["metrics"]
    assert metrics["steps"] >= 1
    assert 0.0 <= metrics["preference_accuracy"]["score"] <= 1.0
    card = (outcome.artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert f"`{stage}`" in card
    assert "Effect of preference tuning" in card
    summary = json.loads((copy / "runs" / "medical" / "tiny" / pipeline / "summary.json").read_text(encoding="utf-8"))
    assert [point["name"] for point in summary["checkpoints"]] == ["base", "cpt", "sft", stage, merged]


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_pairs_that_lost_their_end_with_the_power_are_written_again(left: float, tmp_path: Path) -> None:
    """So is what TRL made of them; what is whole stays."""
    context: Any = SimpleNamespace(work=tmp_path)
    rows = [{"ids": list(range(number)), "score": 0.5} for number in range(50)]
    assert preference._dataset_of(context, rows).to_list() == rows
    path = tmp_path / "pairs" / "pairs.arrow"
    whole, made = path.with_name("cache-whole.arrow"), path.with_name("cache-cut.arrow")
    shutil.copy(path, whole)
    shutil.copy(path, made)
    for cut in (path, made):
        os.truncate(cut, int(left * cut.stat().st_size))
    assert preference._dataset_of(context, rows).to_list() == rows
    assert (whole.exists(), made.exists()) == (True, False)
    written = path.stat().st_mtime_ns
    preference._dataset_of(context, rows)
    assert path.stat().st_mtime_ns == written


def test_the_reference_reads_only_pairs_that_train(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    dataset_of = preference._dataset_of

    def counted(context: StageContext, rows: Sequence[Mapping[str, Any]]) -> Any:
        read.append(len(rows))
        return dataset_of(context, rows)

    monkeypatch.setattr(preference, "_dataset_of", counted)
    more = {"dpo.epochs": "0.1", "dpo.batch_pairs": "8"}
    metrics = run_stage(resolve(words(copy, **more), REPOSITORY), "dpo", Console("quiet")).manifest["metrics"]
    assert read == [8 * metrics["steps"]]


def test_every_loss_of_trl_trains(copy: Path) -> None:
    """All at once: TRL adds up what several losses give, and one that fails stops the stage."""
    from trl import DPOConfig

    described = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"].partition("If multiple")[0]
    losses = re.findall(r"`'(\w+)'`", described)
    assert {"sigmoid", "hinge", "ipo", "robust", "aot", "apo_zero", "sft"} <= set(losses)
    more = {
        "dpo.epochs": "0.1",
        "dpo.train.loss_type": f"[{', '.join(losses)}]",
        "dpo.train.loss_weights": str([1.0] * len(losses)),
        "dpo.train.label_smoothing": "0.1",
    }
    metrics = run_stage(resolve(words(copy, **more), REPOSITORY), "dpo", Console("quiet")).manifest["metrics"]
    assert math.isfinite(metrics["final_loss"])


@pytest.mark.parametrize(
    ("stage", "option", "expected"),
    [
        ("dpo", {"dpo.train.loss_type": "[sigmod]"}, "dpo.train"),
        ("dpo", {"dpo.train.precompute_ref_log_probs": "false"}, "the reference is always precomputed here"),
        ("kto", {"pipeline": "kto", "kto.train.precompute_ref_log_probs": "false"}, "always precomputed here"),
        ("kto", {"pipeline": "kto", "kto.train.beat": "0.1"}, "KTOConfig of TRL has no option 'beat'"),
        ("orpo", {"pipeline": "orpo", "orpo.train.max_steps": "3", "orpo.epochs": "1"}, "contradict each other"),
    ],
)  # fmt: skip
def test_mistakes_in_settings(stage: str, option: dict[str, str], expected: str, copy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_stage(resolve(words(copy, **option), REPOSITORY), stage, Console("quiet"))
    assert expected in str(caught.value)


@pytest.mark.long
def test_an_adapter_is_merged_before_it_is_handed_on(copy: Path) -> None:
    lora = {"orpo.peft": "lora", "orpo.lora.r": "4"}
    resolved = resolve(words(copy, pipeline="orpo", **{"orpo.epochs": "0.1"}, **lora), REPOSITORY)
    artifact = run_stage(resolved, "orpo", Console("quiet"))
    assert (artifact.path / "adapter" / "adapter_model.safetensors").is_file()
    assert artifact.manifest["metrics"]["adapter_merge_difference"] < 1e-3
