"""Two processes over gloo make what one makes: the same fingerprint and losses, shared by DDP or sharded by FSDP2.

FSDP2 is accelerate's own, over torch's `fully_shard`; the folder fsdp_on_cpu lets it run here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.pipeline import Pipeline
from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.run import run_stage
from common.errors import LaunchError
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY, linked

pytestmark = pytest.mark.slow

# So that only the order of sums differs.
WIDE = {"precision": "float32"}
WORDS = {**QUICK, **WIDE, "domain": "medical", "dpo.epochs": "0.2", "cpt.batch_tokens": "512", "cpt.tokens": "24576"}
CLOSE = 1e-3
NARROW = 1e-3  # where the forward pass is in bfloat16
SHIM = Path(__file__).parent / "fsdp_on_cpu"


def make(root: Path, stage: str, **more: str) -> Artifact:
    resolved = resolve({**WORDS, "out": str(root), **more}, REPOSITORY)
    freeze(resolved)
    return run_stage(resolved, stage, Console("quiet"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose stages one process has made."""
    root = tmp_path_factory.mktemp("alone")
    for stage in ("base", "cpt", "sft", "dpo"):
        make(root, stage)
    return root


def without(alone: Path, root: Path, stage: str) -> Artifact:
    """Copy a store without one stage's result; return that result."""
    shutil.copytree(alone, root, symlinks=True)
    made = linked(alone, stage)
    assert made is not None
    shutil.rmtree(root / "artifacts" / made.path.name)
    return made


def log(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]


def assert_alike(shared: Artifact, alone: Artifact) -> None:
    assert shared.fingerprint == alone.fingerprint
    pairs = list(zip(log(shared), log(alone), strict=True))
    assert len(pairs) > 5
    assert all(ours["step"] == theirs["step"] for ours, theirs in pairs)
    assert max(abs(ours["loss"] - theirs["loss"]) for ours, theirs in pairs) < CLOSE


def test_sharded_processes_make_what_one_makes(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPO, whose reference and held-out pairs are read by the shards too; the result is plain safetensors."""
    root = tmp_path / "store"
    expected = without(alone, root, "dpo")
    monkeypatch.setenv("PYTHONPATH", str(SHIM))
    made = make(root, "dpo", **{"run.processes": "2", "run.parallelism": "fsdp2"})
    assert_alike(made, expected)
    assert made.manifest["processes"] == 2
    assert made.manifest["metrics"]["preference_accuracy"] == expected.manifest["metrics"]["preference_accuracy"]
    assert [path.name for path in made.path.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.long
def test_sharded_adapters_in_bfloat16_begin_at_their_reference(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is a model of its own, sharded by layers before the adapter's base is; sums stay in float32."""
    root, facts = tmp_path / "store", tmp_path / "facts"
    expected = without(alone, root, "dpo")  # in float32, with all weights: alike before the first step
    monkeypatch.setenv("PYTHONPATH", str(SHIM))
    monkeypatch.setenv("FSDP_ON_CPU_FACTS", str(facts))
    words = {"dpo.precision": "bfloat16", "dpo.peft": "lora"}  # and the same pairs
    made = make(root, "dpo", **words, **{"run.processes": "2", "run.parallelism": "fsdp2"})
    start = log(made)[0]
    assert start["loss"] == pytest.approx(log(expected)[0]["loss"], rel=NARROW)
    assert abs(start["rewards/chosen"]) < NARROW * 10
    told = [[json.loads(line) for line in (facts / f"{rank}.jsonl").open(encoding="utf-8")] for rank in range(2)]
    for models in told:
        assert [model["units"] > 2 for model in models] == [True, True]  # the reference, the learner
        types = {(model["param"], model["reduce"], model["output"]) for model in models}
        assert types == {("torch.bfloat16", "torch.float32", "None")}
    first, second = ([model["before"] for model in models] for models in told)
    assert first[0] == first[1]
    assert first[0] not in second  # the second process has read no weights


def reward_alone(root: Path, peft: str, **run: Any) -> Resolved:
    """Return a run of a base and a reward model: pipelines that have one go on to a stage that cannot be sharded."""
    words = {key: value for key, value in WORDS.items() if not key.startswith(("dpo.", "sft-only.", "merge."))}
    # A few steps: a head with random weights on a quick base makes much of the order of sums.
    words |= {"pipeline": "rlhf", "out": str(root), "reward.epochs": "0.3"}
    words |= {"reward.peft": peft}
    resolved = resolve(words, REPOSITORY)
    stages = {"base": {"kind": "base"}, "reward": {"kind": "reward", "from": "base"}}
    facts = {"name": "rewards", "description": "a judge", "stages": stages, "exam": ["base"], "publish": "base"}
    nodes = (pipeline := Pipeline.model_validate(facts)).nodes()
    settings = {node.name: resolved.config.stages[node.name] for node in nodes}
    where = resolved.config.run.model_copy(update=run)
    config = resolved.config.model_copy(update={"stages": settings, "run": where, "pipeline": pipeline.name})
    return replace(resolved, config=config, pipeline=pipeline, nodes=nodes)


@pytest.mark.long
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_a_sharded_reward_model_is_what_one_process_makes(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SHIM))
    made = []
    for number, run in enumerate(({}, {"processes": 2, "parallelism": "fsdp2"})):
        root = tmp_path / str(number)
        without(alone, root, "sft")
        resolved = reward_alone(root, peft, **run)
        freeze(resolved)
        made.append(run_stage(resolved, "reward", Console("quiet")))
    assert_alike(*made)
    assert made[1].manifest["processes"] == 2
    assert made[0].manifest["metrics"]["ranking_accuracy"] == made[1].manifest["metrics"]["ranking_accuracy"]


@pytest.mark.long  # test_parallel.py shows it for one process
def test_a_silent_fallback_is_refused(alone: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    without(alone, root, "dpo")
    with pytest.raises(LaunchError, match=r"run.parallelism=fsdp2, but accelerate holds the model as ddp .*on the CPU"):
        make(root, "dpo", **{"run.processes": "2", "run.parallelism": "fsdp2"})
    assert not list((root / "artifacts").glob("dpo-*"))


@pytest.mark.long
def test_stopped_and_killed_processes_go_on_to_the_same_result(alone: Path, tmp_path: Path) -> None:
    """A signal saves and ends with 75; a killed process is named; one process then ends what two had started."""
    root = tmp_path / "store"
    expected = without(alone, root, "cpt")
    plan = freeze(resolve({**WORDS, "out": str(root), "run.processes": "2"}, REPOSITORY))
    words = ["stage", str(plan), "cpt", "run.checkpoint_minutes=0.0001"]
    first = start(words)
    when(root, 2, first)
    first.send_signal(signal.SIGUSR1)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 75, output
    assert "Stopped. Finished stages are kept" in output
    saved = newest(root)

    second = start(words)
    when(root, saved + 2, second)
    processes = [int(line) for line in children(second.pid) if "common stage" in command(int(line))]
    victim = next(pid for pid in processes if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(victim, signal.SIGKILL)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "Stage cpt: process 2 of 2 was killed by SIGKILL (where memory ran out, the system kills like" in output
    assert "Traceback" not in output

    made = make(root, "cpt")
    assert made.manifest["processes"] == 1
    assert_alike(made, expected)


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "common", *words],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def newest(root: Path) -> int:
    whole = (root / "artifacts" / ".work").glob("cpt-*/trainer/checkpoint-*/done.json")
    return max((int(path.parent.name.split("-")[1]) for path in whole), default=0)


def when(root: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint of a step, or of a later one, is whole."""
    deadline = time.monotonic() + 900
    while newest(root) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.005)


def children(pid: int) -> list[str]:
    """Return the numbers of all processes below one."""
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="utf-8").split():
            found += [child, *children(int(child))]
    return found


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
