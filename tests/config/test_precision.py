"""Which precision a stage trains in: chosen by the device, or said run-wide, by stage, or in TRL's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config import precision
from common.config.precision import native
from common.config.resolve import Resolved, resolve
from common.config.stages import LearningSettings
from common.cost.hardware import TABLE
from common.engine.frozen_plan import freeze, thaw
from common.errors import ConfigError
from common.machine import Card
from tests.conftest import REPOSITORY

# What stands in for a machine: its GPUs, and what its CPU is.
MACHINES = {
    "avx2": ([], "avx2"), "avx512": ([], "avx512"), "avx512_bf16": ([], "avx512_bf16"), "amx": ([], "amx"),
    "arm_bf16": ([], "arm_bf16"), "t4": ([Card("Tesla T4", "GPU-a", 2.0**34, 7.5)], "avx2"),
    "a100": ([Card("NVIDIA A100-SXM4-40GB", "GPU-a", 4e10, 8.0)], "avx2"),
    "h100": ([Card("NVIDIA H100 80GB HBM3", "GPU-a", 8e10, 9.0)], "avx2"),
    "unknown gpu": ([Card("", "", None)], "avx2"),
}  # fmt: skip


def on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, kind = MACHINES[name]
    monkeypatch.setattr(precision, "cards", lambda: gpus)
    monkeypatch.setattr(precision, "visible", lambda found, named: tuple(found))
    monkeypatch.setattr(precision, "cpu_kind", lambda: kind)


def run(**words: str) -> Resolved:
    given = {key.replace("__", "."): value for key, value in words.items()}
    return resolve({"domain": "medical", "pipeline": "full", **given}, REPOSITORY)


def chosen(**words: str) -> dict[str, str]:
    """Return what each stage that trains computes in."""
    stages = run(**words).config.stages
    return {name: found.precision for name, found in stages.items() if isinstance(found, LearningSettings)}


@pytest.mark.parametrize(
    ("name", "expected", "because"),
    [
        ("avx2", "float32", "this CPU has no bfloat16"), ("avx512", "float32", "this CPU has no bfloat16"),
        ("avx512_bf16", "bfloat16", "as this CPU computes"), ("amx", "bfloat16", "as this CPU computes"),
        ("arm_bf16", "bfloat16", "as this CPU computes"), ("t4", "float16", "Tesla T4 has no bfloat16"),
        ("a100", "bfloat16", "as this GPU computes"), ("h100", "bfloat16", "as this GPU computes"),
        ("unknown gpu", "bfloat16", "as this GPU computes"),
    ],
)  # fmt: skip
def test_each_kind_of_device_has_its_precision(
    name: str, expected: str, because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(name, monkeypatch)
    found = run()
    assert set(chosen().values()) == {expected}
    assert found.origins["cpt.precision"] == f"auto: {because}"


def test_the_device_that_a_run_is_planned_for_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    on("t4", monkeypatch)
    assert set(chosen(run__device="cpu").values()) == {"float32"}
    assert set(chosen(run__hardware="h100-sxm").values()) == {"bfloat16"}
    on("avx2", monkeypatch)
    assert set(chosen(run__device="cuda").values()) == {"bfloat16"}
    assert chosen(profile="qwen3-0.6b")["cpt"] == "bfloat16"  # needs a GPU


@pytest.mark.parametrize("name", TABLE)
def test_a_machine_of_the_table_has_the_precision_that_it_is_fastest_in(name: str) -> None:
    found, _ = native({"hardware": name}, {})
    assert TABLE[name].flops[found] == max(TABLE[name].flops.values())
    assert (found == "bfloat16") == (TABLE[name].slowdown < 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"precision": "float32"}, "float32"),
        ({"precision": "float32", "cpt.precision": "bfloat16"}, "bfloat16"),
        ({"precision": "float32", "cpt.precision": "auto"}, "bfloat16"),
        ({"cpt.train.bf16": "true", "precision": "float32"}, "bfloat16"),
        ({"cpt.train.bf16": "false"}, "float32"),
        ({"cpt.train.bf16": "false", "cpt.train.fp16": "false"}, "float32"),
        ({"cpt.train.bf16": "false", "cpt.train.fp16": "true"}, "float16"),
        ({"cpt.train.fp16": "true"}, "float16"),
        ({"cpt.train.fp16": "false"}, "bfloat16"),
        ({"cpt.train.fp16": "false", "precision": "float16"}, "float32"),
        ({"cpt.train.bf16": "false", "precision": "float16"}, "float16"),
        ({"cpt.train.bf16": "null"}, "bfloat16"),
        ({"precision": "fp16"}, "float16"),
        ({"precision": "fp32"}, "float32"),
        ({"cpt.precision": "fp16"}, "float16"),
        ({"cpt.precision": "bf16", "cpt.train.bf16": "true"}, "bfloat16"),
    ],
)
def test_a_stage_overrides_the_run_and_the_words_of_trl_are_taken(
    words: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("amx", monkeypatch)
    cpt: Any = run(**words).config.stages["cpt"]
    assert cpt.precision == expected
    assert not {"bf16", "fp16"} & cpt.train.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"cpt.precision": "float32", "cpt.train.bf16": "true"},
            "cpt.precision=float32 and cpt.train.bf16=true (command line) contradict each other. Leave out one.",
        ),
        (
            {"cpt.precision": "bfloat16", "cpt.train.bf16": "false"},
            "cpt.precision=bfloat16 and cpt.train.bf16=false (command line) contradict each other.",
        ),
        ({"cpt.train.bf16": "true", "cpt.train.fp16": "true"}, "cpt.train.fp16=true and cpt.train.bf16=true exclude"),
        ({"cpt.train.bf16": "yes please"}, "cpt.train.bf16 (command line): expected true or false, got 'yes please'."),
        ({"precision": "fp8"}, "precision (command line): expected auto, bfloat16, float16 or float32; got 'fp8'."),
        ({"cpt.precision": "float8"}, "cpt.precision (command line): "),
        ({"run.processes": "many"}, "run.processes (command line): expected a whole number"),
        ({"run.processes": "null"}, "run.processes (command line): expected a whole number"),
    ],
)
def test_a_contradiction_is_one_line(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(**words)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_stage_that_takes_a_model_has_no_precision(tmp_path: Path) -> None:
    assert chosen(profile="smollm2-135m", precision="float32")["base"] == "auto"
    judged = chosen(pipeline="rlhf", reward__path=str(tmp_path), precision="float32")
    assert (judged["reward"], judged["cpt"]) == ("auto", "float32")


def test_a_frozen_plan_keeps_its_precision_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on("amx", monkeypatch)
    path = freeze(run(out=str(tmp_path)))
    on("avx2", monkeypatch)
    thawed: Any = thaw(path, {"run.threads": "1"}, REPOSITORY).config.stages["cpt"]
    assert thawed.precision == "bfloat16"


def test_a_quantised_copy_is_computed_with_in_the_same_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    on("t4", monkeypatch)
    cpt: Any = run(cpt__peft="qlora").config.stages["cpt"]
    assert cpt.quantization["bnb_4bit_compute_dtype"] == "float16"
    cpt = run(cpt__peft="qlora", cpt__quantization__bnb_4bit_compute_dtype="float32").config.stages["cpt"]
    assert cpt.quantization["bnb_4bit_compute_dtype"] == "float32"
