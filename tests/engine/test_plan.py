"""What a plan says where a run moves to a machine that computes in another precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.cost.shapes import shape_of
from common.data.sizes import token_bytes
from common.engine.code import code_of
from common.engine.plan import Plan, make_plan
from common.engine.run import run_stage
from common.store.artifacts import Store
from tests.conftest import QUICK, REPOSITORY


def plan_in(device: str, out: Path, monkeypatch: pytest.MonkeyPatch, **words: str) -> Plan:
    """Return a plan on a machine whose device computes in a precision."""
    monkeypatch.setattr("common.config.build.native", lambda *_: (device, "as it happens to"))
    given = {key.replace("__", "."): value for key, value in words.items()}
    return make_plan(resolve({"domain": "medical", "out": str(out), **QUICK, **given}, REPOSITORY))


def other_than(precision: str) -> str:
    return "float32" if precision == "bfloat16" else "bfloat16"


def test_a_finished_chain_says_how_to_keep_it_on_another_kind_of_machine(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in = resolve({"domain": "medical", **QUICK}, REPOSITORY).config.stages["base"].model_dump()["precision"]
    here = other_than(made_in)
    moved = plan_in(here, finished, monkeypatch)
    assert len(moved.to_do) == len(moved.steps)
    base = moved.steps[0]
    assert base.reasons == (
        f"made before in {made_in}, and this run trains in {here} (auto: as it happens to); precision={made_in} keeps "
        "that result",
        f"base.precision: {made_in} -> {here} (auto: as it happens to)",
    )
    assert plan_in(here, finished, monkeypatch, precision=made_in).to_do == []


def test_one_stage_of_another_precision_is_kept_by_its_own_setting(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in = resolve({"domain": "medical", **QUICK}, REPOSITORY).config.stages["base"].model_dump()["precision"]
    found = plan_in(made_in, finished, monkeypatch, cpt__precision=other_than(made_in))
    cpt = next(step for step in found.steps if step.node.name == "cpt")
    assert f"(command line); cpt.precision={made_in} keeps that result" in cpt.reasons[0]


def test_a_stopped_stage_says_in_which_precision_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = plan_in("bfloat16", tmp_path, monkeypatch).steps[0]
    assert before.fingerprint is not None
    Store(tmp_path).begin("base", before.fingerprint, code_of("base", REPOSITORY)["digest"])
    moved = plan_in("float32", tmp_path, monkeypatch, base__tokens="2048")
    assert moved.steps[0].reasons == ("not made yet",)  # other settings too, so it could not continue
    moved = plan_in("float32", tmp_path, monkeypatch)
    line = (
        "stopped before in bfloat16, and this run trains in float32 (auto: as it happens to); precision=bfloat16 "
        "continues with it"
    )
    assert moved.steps[0].reasons == (line,)
    artifact = run_stage(moved.resolved, "base", Console("normal"))
    said = capsys.readouterr().out
    assert f"  base: {line}\n" in said
    assert "tokens/s in float32" in said
    assert artifact.manifest["settings"]["precision"] == "float32"


def test_bfloat16_where_it_is_emulated_is_told_with_the_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from common.cli.main import main

    monkeypatch.setattr("common.cost.hardware.cpu_kind", lambda: "avx2")
    monkeypatch.setattr("common.config.precision.cpu_kind", lambda: "avx2")
    assert main(["plan", "domain=medical", f"out={tmp_path}", "run.device=cpu"]) == 0
    said = capsys.readouterr().out
    assert ", float32 (this CPU has no bfloat16)\n" in said
    assert "emulates" not in said
    words = ["run.device=cpu", "run.threads=2", "cpt.train.bf16=true"]
    assert main(["plan", "domain=medical", f"out={tmp_path}", *words]) == 0
    said = capsys.readouterr().out
    assert "; float32: base, sft-only, sft, dpo; bfloat16: cpt\n" in said
    assert "cpu-2 emulates bfloat16, about 10 times slower than float32, and cpt will train in it." in said
    assert main(["plan", "domain=medical", f"out={tmp_path}", "run.hardware=t4", "precision=bfloat16"]) == 0
    assert "t4 emulates bfloat16, no faster than float32, and base, " in capsys.readouterr().out


def test_rows_are_counted_with_the_tokenizer_of_the_planned_base_alone(finished: Path) -> None:
    """The profile's link may show another base, whose tokenizer cuts texts otherwise."""
    token_bytes_of = []
    for change in ({}, {"base.tokens": "4096"}):
        resolved = resolve({"domain": "medical", "out": str(finished), **QUICK, **change}, REPOSITORY)
        sizes = make_plan(resolved).outlook.sizes
        found = sizes.of("preference") if sizes is not None else None
        assert found is not None
        token_bytes_of.append(found.token_bytes)
    assert (finished / "runs" / "medical" / "tiny" / "demonstration" / "base" / "tokenizer.json").is_file()
    shape = shape_of(resolved.config.model)
    assert shape is not None
    estimated = token_bytes(shape.vocabulary)
    assert token_bytes_of[1] == estimated != token_bytes_of[0]
