"""`just gpu`: its command line, its file of results, its budget, and all its parts in tiny shapes on the CPU."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import ConfigError
from common.models.clean_load import CleanProcess
from common.store.artifacts import write_json
from tests.bench import gpu, gpu_parts
from tests.bench.figures import Figure, Part, SkippedError
from tests.bench.gpu import Request, read_results, read_words, table, work_off
from tests.bench.material import SMALL
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cpu"], r"Expected key=value, such as device=cpu; got 'cpu'\."),
        (["minute=3"], r"just gpu has no setting 'minute'\. Did you mean 'minutes'\?"),
        (["device=gpu"], r"device=gpu: expected cuda or cpu\."),
        (["minutes=soon"], r"minutes=soon: expected a number above 0, such as minutes=10\."),
        (["minutes=0"], r"minutes=0: expected a number above 0"),
        (["minutes=nan"], r"minutes=nan: expected a number above 0"),
        (["out="], r"out=: expected a file, such as out=runs/gpu\.json\."),
    ],
)
def test_bad_words_are_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_words(words)


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"format": 7, "devices": {}}', encoding="utf-8")
    assert gpu.main(["device=cpu", f"out={file}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: out={file}: this is no file of results (its format is 7, not 1).")
    assert error.count("\n") == 1
    with pytest.raises(ConfigError, match="this is no file of results"):
        read_results(tmp_path)


@pytest.mark.parametrize("place", ["/dev/null/results.json", "/proc/nothing/results.json", "{tmp}/" + 300 * "a"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "Worker", lambda: pytest.fail("something was run"))
    file = place.format(tmp=tmp_path)
    assert gpu.main(["device=cpu", f"out={file}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: out={file}: ")
    assert error.count("\n") == 1


def checking(note: str) -> None:
    """Start what a training starts, write down who runs, and never end."""
    clean = CleanProcess()
    clean.start()
    assert clean._process is not None
    write_json(Path(note), [os.getpid(), clean._process.pid])
    time.sleep(600)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_that_was_started(number: signal.Signals, tmp_path: Path) -> None:
    note = tmp_path / "processes.json"
    code = (
        "from tests.bench import gpu; from tests.bench.test_gpu import checking; gpu.stop_at_signals(); "
        f"gpu.Worker().run(checking, {str(note)!r}, seconds=300)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        end = time.monotonic() + 900
        while not note.is_file() and time.monotonic() < end:
            time.sleep(0.1)
        started = [psutil.Process(pid) for pid in json.loads(note.read_text(encoding="utf-8"))]
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert psutil.wait_procs(started, timeout=20)[1] == []
    finally:
        process.kill()


def test_without_a_gpu_the_cpu_half_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main([f"out={tmp_path / 'results.json'}"]) == 1
    assert capsys.readouterr().err.startswith("error: torch sees no CUDA device here. `just gpu device=cpu` runs")


def counted(device: str, folder: Path) -> list[Figure]:
    return [Figure("files at the start", len(list(folder.iterdir()))), Figure("process", os.getpid())]


def broken(device: str, folder: Path) -> list[Figure]:
    raise ValueError("out of memory\nand much more")


def killed(device: str, folder: Path) -> list[Figure]:
    os._exit(9)


def endless(device: str, folder: Path) -> list[Figure]:
    time.sleep(600)
    raise AssertionError


def impossible(device: str, folder: Path) -> list[Figure]:
    raise SkippedError("a package is not installed")


def request(tmp_path: Path, seconds: float = 300.0) -> Request:
    return Request("cpu", seconds, tmp_path / "new" / "results.json")


def states(results: dict[str, Any]) -> dict[str, str]:
    return {name: found["state"] for name, found in results["here"].items()}


def test_a_failed_part_leaves_a_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    parts = [
        Part("first", counted, 1), Part("broken", broken, 1), Part("killed", killed, 1),
        Part("impossible", impossible, 1), Part("last", counted, 1),
    ]  # fmt: skip
    asked, results = request(tmp_path), {}  # type: tuple[Request, dict[str, Any]]
    assert work_off(parts, asked, "here", results) == {}
    assert states(results) == dict(first="done", broken="failed", killed="failed", impossible="skipped", last="done")
    assert read_results(asked.file) == results
    lines = table(parts, results["here"], {}, judged=True)
    assert "  broken     failed: ValueError: out of memory" in lines
    assert "  impossible skipped: a package is not installed" in lines
    assert results["here"]["killed"]["error"].startswith("BrokenProcessPool: ")
    assert results["here"]["first"]["figures"][0]["found"] == 0


def test_what_is_done_is_not_run_again_under_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Part("first", counted, 1), Part("broken", broken, 1)]
    results: dict[str, Any] = {"another": {"first": {"state": "done"}}}
    work_off(parts, request(tmp_path), "here", results)
    before = json.dumps(results["here"]["first"])
    # Fixed meanwhile, with a first part that would fail.
    fixed = [dataclasses.replace(parts[0], run=broken), dataclasses.replace(parts[1], run=counted)]
    results = read_results(request(tmp_path).file)
    work_off(fixed, request(tmp_path), "here", results)
    assert states(results) == {"first": "done", "broken": "done"}
    assert json.dumps(results["here"]["first"]) == before
    assert results["another"] == {"first": {"state": "done"}}
    monkeypatch.setattr(gpu, "code_and_versions", lambda: "other code")
    work_off(fixed, request(tmp_path), "here", results)
    assert states(results)["first"] == "failed"


def test_a_part_that_cannot_fit_is_left_out_and_a_longer_one_is_stopped(tmp_path: Path) -> None:
    parts = [Part("long", counted, 900), Part("endless", endless, 1), Part("late", counted, 1)]
    results: dict[str, Any] = {}
    left_out = work_off(parts, request(tmp_path, 8.0), "here", results)
    assert left_out["long"] == "needs about 900 s, and 8 s are left"
    assert left_out["late"].startswith("needs about 1 s, and ")
    assert results["here"]["endless"]["error"].startswith("did not end within the ")
    assert "  long    left out: needs about 900 s, and 8 s are left" in table(
        parts, results["here"], left_out, judged=True
    )


def test_a_figure_says_whether_its_aim_is_reached() -> None:
    speed = Figure("ours against stock TRL", 1.25, "x", at_least=1.3)
    assert speed.line(judged=True).split("  ")[-1].strip().endswith("MISSED")
    assert "MISSED" not in speed.line(judged=False)
    assert Figure("memory", -0.1499, "share", within=0.15).line(judged=True).endswith("within 15.0%     reached")
    assert Figure("memory", -0.16, "share", within=0.15).reached is False


def test_the_aims_on_a_gpu_come_first() -> None:
    parts = [part.name for part in gpu_parts.parts_of("cuda")]
    assert parts[:3] == ["tiny chain", "attention", "cpt qwen3-1.7b"]
    for model in ("qwen3-0.6b", "qwen3-1.7b"):
        assert {f"{kind} {model}" for kind in ("cpt", "sft", "dpo", "qlora", "grpo")} <= set(parts)
    assert len(set(parts)) == len(parts)


@pytest.mark.slow
@pytest.mark.parametrize("some", [("attention", "cpt"), pytest.param((), marks=pytest.mark.long)], ids=["some", "all"])
def test_parts_run_in_tiny_shapes(some: tuple[str, ...], tmp_path: Path) -> None:
    # The chain itself runs in tests/end_to_end, in the same budgets.
    parts = [
        part for part in gpu_parts.parts_of("cpu") if part.name != "tiny chain" and part.name.startswith(some or "")
    ]
    results: dict[str, Any] = {}
    assert work_off(parts, request(tmp_path, 1800.0), "here", results) == {}
    lines = table(parts, results["here"], {}, judged=False)
    assert not [line for line in lines if "failed" in line]
    found = {part.name: {f["what"]: f for f in results["here"][part.name].get("figures", ())} for part in parts}
    for part in parts:
        assert results["here"][part.name]["state"] == "done" or part.name.startswith("plan"), part.name
    away = found["attention"]
    assert Figure(**away["ours away, of what SDPA is away"]).reached
    assert Figure(**away["control away, of what ours is away"]).reached
    for kind in {"cpt", "sft", "dpo"} & set(some or ("cpt", "sft", "dpo")):
        figures = found[f"{kind} {SMALL}"]
        assert figures["ours"]["found"] > 0
        assert any(name.startswith("ours against stock TRL") for name in figures)
