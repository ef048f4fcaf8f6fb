"""Methods in real trainings: from a folder outside `common`, resumed, split otherwise, and by two processes."""

from __future__ import annotations

import importlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.methods import FOLDERS
from common.config.resolve import resolve
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.errors import ConfigError
from tests.conftest import REPOSITORY, kill_training
from tests.training.methods.conftest import WORDS, Train, log, weights

pytestmark = pytest.mark.slow

OUTSIDE = {
    "schedule": """
        def multiplier(step: int, steps: int, settings: OwnSettings) -> float:
            return settings.size * (step + 1) / steps


        METHOD = ScheduleMethod(name="own_schedule", multiplier=multiplier, **FACTS)
    """,
    "optimizer": """
        def rates(model, settings):
            return {name: 0.0 for name, _ in model.named_parameters() if "embed_tokens" in name}


        def after_step(step, settings, state):
            state["steps"] += 1
            return {"steps": state["steps"], "of": step.of}


        def begin(step, settings):
            import torch

            return {"steps": torch.zeros(())}


        METHOD = OptimizerMethod(
            name="own_optimizer", rates=rates, begin=begin, after_step=after_step, **FACTS
        )
    """,
    "loss": """
        def term(batch, settings):
            return settings.size * batch.logits_BTV.float().pow(2).mean(-1)[batch.next_BT != -100].sum(), {
                "tokens": (batch.next_BT != -100).sum(), "hidden": len(batch.outputs.hidden_states),
            }


        METHOD = LossMethod(name="own_loss", term=term, forward={"output_hidden_states": True}, **FACTS)
    """,
    "rows": """
        def order(packed, settings):
            return packed.order[::-1].copy(), {"last": int(packed.order[-1])}


        METHOD = RowsMethod(name="own_rows", order=order, **FACTS)
    """,
}
HEAD = '''
"""A method from elsewhere.

Usage: `cpt: {methods: {NAME: {}}}`.
"""
from pydantic import Field

from common.config.methods import *


class OwnSettings(MethodSettings):
    size: float = Field(0.5, gt=0, description="how much of it")


FACTS = {"settings": OwnSettings, "phrase": "something of its own", "paper": "ours"}
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A method of each place, in folders that are added to the packages of methods. Returns their names."""
    names = []
    for place, folder in FOLDERS.items():
        name = f"own_{place}"
        own = tmp_path / "methods" / place
        own.mkdir(parents=True)
        text = HEAD.replace("NAME", name) + textwrap.dedent(OUTSIDE[place])
        (own / f"{name}.py").write_text(text.lstrip(), encoding="utf-8")
        package: Any = importlib.import_module(folder)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(own)])
        names.append(name)
    yield names
    for place, folder in FOLDERS.items():
        sys.modules.pop(f"{folder}.own_{place}", None)


def test_a_method_from_a_folder_elsewhere_is_planned_trained_and_reported(outside: list[str], train: Train) -> None:
    words = {f"cpt.methods.{name}.size": "0.25" for name in outside}
    made = train(**words)
    records, plain = log(made), log(train())
    facts = made.manifest["metrics"]["methods"]
    assert sorted(facts) == sorted(outside)
    assert all(found["settings"] == {"size": 0.25} for found in facts.values())
    # schedule: a quarter of a straight rise; transformers logs the rate of the step to come, and of the last its own
    peak = made.manifest["settings"]["train"]["learning_rate"]
    rates = [record["learning_rate"] / peak for record in records]
    assert rates[:7] == pytest.approx([0.25 * (step + 1) / 8 for step in range(7)], abs=1e-3)
    # optimizer: eight steps were counted, and the embeddings did not learn
    assert facts["own_optimizer"]["measured"] == {"steps": 8, "of": 8}
    # loss: it is above that of the next token, and a mean over tokens is one
    assert all(record["loss"] > record["next_token_loss"] for record in records)
    assert records[0]["next_token_loss"] == pytest.approx(plain[0]["loss"], abs=0.2)  # of other rows
    assert records[0]["own_loss/tokens"] == 1
    assert facts["own_rows"]["measured"].keys() == {"last"}
    assert "next_token_loss" not in plain[0]
    resolved = resolve({**WORDS, **words, "out": str(made.path.parent.parent)}, REPOSITORY)
    assert made.manifest["recipe"]["settings"]["methods"] == {name: {"size": 0.25} for name in outside}
    with pytest.raises(ConfigError, match=r"cpt\.methods\.own_loss\.sze .*Did you mean 'size'\?"):
        resolve({**WORDS, "cpt.methods.own_loss.sze": "1"}, REPOSITORY)
    assert next(step for step in make_plan(resolved).steps if step.node.name == "cpt").state == "cached"


ALL = {
    "cpt.methods.reptile.every": 2, "cpt.methods.infinite.warmup": 2, "cpt.methods.self_distillation.weight": 0.5,
    "cpt.methods.subset.redraw": "true", "cpt.methods.layer_updates.every": 3,
    "cpt.methods.length_curriculum.parts": 4,
}  # fmt: skip


def test_a_training_that_is_killed_goes_on_to_the_same_weights(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(**ALL)
    words = {**ALL, "run.checkpoint_minutes": "0.00001"}
    shutil.move(expected.path, tmp_path / "expected")
    expected = replace(expected, path=tmp_path / "expected")
    taken = kill_training(monkeypatch, at=6)
    with pytest.raises(KeyboardInterrupt):
        train(**words)
    made = train(**words)
    assert len(taken) == 6 + 3  # from the checkpoint of step 5 on
    assert weights(made) == weights(expected)
    assert [record["loss"] for record in log(made)] == [record["loss"] for record in log(expected)]
    for name in ("reptile", "layer_updates"):
        assert made.manifest["metrics"]["methods"][name] == expected.manifest["metrics"]["methods"][name]


def assert_alike(one: dict[str, Any], other: dict[str, Any], *, rel: float) -> None:
    """Compare two lines of logs, all numbers of theirs."""
    assert one.keys() == other.keys()
    assert {"loss", "next_token_loss", "self_distillation/kl", "learning_rate"} <= one.keys()
    for key, number in one.items():
        assert number == pytest.approx(other[key], rel=rel, abs=1e-4), key


@pytest.mark.long
def test_a_step_in_smaller_pieces_is_the_same_step(train: Train) -> None:
    """Terms are means over the tokens of a step, however many forward passes it takes."""
    words = {key: value for key, value in ALL.items() if "infinite" not in key}
    whole = train(**words)
    records = log(whole)
    shutil.rmtree(whole.path)  # how large the pieces are is no part of what a result is
    pieces = train(**words, **{"run.micro_batch_tokens": 256})
    assert pieces.fingerprint == whole.fingerprint
    for one, other in zip(records, log(pieces), strict=True):
        assert_alike(one, other, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_two_processes_make_what_one_makes_and_go_on_where_they_stopped(
    parallelism: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "end_to_end" / "fsdp_on_cpu"))
    root, alone = tmp_path / "store", train(**ALL)
    shutil.move(alone.path, tmp_path / "alone")
    alone = replace(alone, path=tmp_path / "alone")
    words = {**ALL, "run.processes": 2, "run.parallelism": parallelism}
    shared = train(**words)
    assert shared.fingerprint == alone.fingerprint
    assert shared.manifest["processes"] == 2
    for one, other in zip(log(alone), log(shared), strict=True):
        assert_alike(one, other, rel=2e-3)
    digest = weights(shared)
    shutil.rmtree(shared.path)
    resolved = resolve({**WORDS, "out": str(root), **{k: str(v) for k, v in words.items()}}, REPOSITORY)
    command = [sys.executable, "-m", "common", "stage", str(freeze(resolved)), "cpt", "run.checkpoint_minutes=0.00001"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list((root / "artifacts" / ".work").glob("cpt-*/trainer/checkpoint-3/done.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    made = train(**words)
    assert weights(made) == digest
