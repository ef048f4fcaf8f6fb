"""Rows that never train: kept apart, read at fixed steps, and able to say which weights go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import run_stage
from common.errors import ConfigError, ContractError
from common.stage import StageContext
from common.training.loop.best import Best
from common.training.loop.validation import Validation
from common.training.rows.rows import _split
from tests.conftest import QUICK, REPOSITORY

WORDS = {**QUICK, "domain": "medical", "base.validation.share": "0.1", "base.validation.evaluations": "4"}


def test_a_stage_reads_rows_that_never_train(tmp_path: Path) -> None:
    resolved = resolve({**WORDS, "out": str(tmp_path), "base.validation.keep": "best"}, REPOSITORY)
    artifact = run_stage(resolved, "base", Console("quiet"))
    found = artifact.manifest["metrics"]["validation"]
    steps = artifact.manifest["metrics"]["steps"]
    assert [look["step"] for look in found["looks"]] == [round(steps * n / 4) for n in (1, 2, 3, 4)]
    assert found["looks"][-1]["loss"] < found["looks"][0]["loss"]
    assert found["kept"] == min(found["looks"], key=lambda look: float(look["loss"]))["step"]
    assert found["rows"] >= 1
    logged = [json.loads(line)["step"] for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]
    assert logged == list(range(1, steps + 1))  # a look takes no step out of the log


def test_rows_are_split_once_and_for_all() -> None:
    training, kept = _split(50, 0.1, seed=3)
    assert len(kept) == 5
    assert sorted([*training, *kept]) == list(range(50))
    assert np.array_equal(_split(50, 0.1, seed=3)[1], kept)
    assert not np.array_equal(_split(50, 0.1, seed=4)[1], kept)
    assert len(_split(50, 0.0, seed=3)[1]) == 0
    assert [len(part) for part in _split(3, 0.9, seed=0)] == [1, 2]


class Reading:
    """A trainer whose loss on held-out rows is given, and whose model differs from look to look."""

    def __init__(self, model: Any, losses: list[float]) -> None:
        self.model = self.model_wrapped = model
        self.accelerator = SimpleNamespace(unwrap_model=lambda m: m, distributed_type=SimpleNamespace(value="NO"))
        self.losses = iter(losses)
        self.args = SimpleNamespace(output_dir="/nowhere")

    def evaluate(self, eval_dataset: Any) -> dict[str, float]:
        torch.nn.init.constant_(self.model.lm_head.weight, loss := next(self.losses))
        return {"eval_loss": loss}


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 4)])
def test_the_weights_that_go_on(keep: str, kept: int, tmp_path: Path) -> None:
    settings = resolve({**WORDS, "base.validation.keep": keep}, REPOSITORY).config.stages["base"]
    context: Any = SimpleNamespace(settings=settings, work=tmp_path, stage="base", console=Console("quiet"))
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    validation = Validation(_as_context(context), None)
    trainer = Reading(model, [3.0, 1.0, 2.0, 1.5])
    for step in (1, 2, 3, 4):
        validation.evaluate(trainer, step)
    assert validation.measured()["validation"]["kept"] == kept
    assert validation.chosen(model).lm_head.weight.mean().item() == {2: 1.0, 4: 1.5}[kept]
    again = Validation(_as_context(context), None)
    assert again.best.read(3) == validation.evaluations[:3]  # a killed run goes on from step 3
    assert (
        json.loads((tmp_path / "validation" / "evaluations.json").read_text(encoding="utf-8")) == validation.evaluations
    )


def test_a_loss_of_held_out_rows_that_is_no_number_stops_the_stage(tmp_path: Path) -> None:
    """As the lowest of all, or never lower than another, it would decide which weights go on."""
    settings = resolve(WORDS, REPOSITORY).config.stages["base"]
    context: Any = SimpleNamespace(settings=settings, work=tmp_path, stage="base", console=Console("quiet"))
    trainer = SimpleNamespace(evaluate=lambda eval_dataset: {"eval_loss": float("nan")})
    with pytest.raises(ContractError, match=r"^Stage base, validation at step 3: the loss is nan; expected finite"):
        Validation(_as_context(context), None).evaluate(trainer, 3)


def test_what_a_run_may_go_on_from_keeps_its_best_weights(tmp_path: Path) -> None:
    trainer: Any = Reading(torch.nn.Linear(1, 1), [])
    trainer.args.output_dir = str(tmp_path)
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
    best = Best(tmp_path / "best")
    for step in (2, 5, 8, 9, 11):
        best.keep(trainer, step)
    assert [step for step in range(12) if best.has(step)] == [2, 8, 11]


def _as_context(context: Any) -> StageContext:
    return context  # type: ignore[no-any-return] # the few fields that are read


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"cpt.validation.keep": "best"}, "keep is best, but share is 0"),
        ({"cpt.validation.share": "0.1", "cpt.packing": "trl"}, "validation.share keeps packed rows"),
    ],
)
def test_what_cannot_be_is_said(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve({"domain": "medical", **words}, REPOSITORY)
