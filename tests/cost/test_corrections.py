"""Speeds that were seen correct later plans; the file survives a round trip, and a broken one counts as none."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.resolve import resolve
from common.cost.corrections import NAME, Corrections, Pace
from common.cost.outlook import Outlook, pace_of
from common.cost.pace import Stopwatch
from common.cost.speed import other_seconds, step_seconds, token_seconds
from common.engine.plan import make_plan
from common.store.artifacts import Artifact
from tests.conftest import REPOSITORY
from tests.cost.conftest import outlook_of

HERE = Pace("cpt", "full", "bfloat16", 1_000_000, "cpu-2")


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    Corrections(tmp_path).note(HERE, estimated=2.0, seen=8.0)
    found = Corrections(tmp_path)
    assert found.share(HERE) == 0.25
    other = dataclasses.replace(HERE, kind="sft")
    assert found.share(other) == 0.25  # the nearest that is known
    found.note(other, estimated=1.0, seen=1.0)
    found.note(HERE, estimated=1.0, seen=2.0)
    assert [Corrections(tmp_path).share(pace) for pace in (HERE, other)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"kind": "base"}, True), ({"parameters": 3_000_000}, True), ({"parameters": 340_000}, True),
        ({"kind": "dpo"}, False), ({"parameters": 76_192}, False), ({"parameters": 3_100_000}, False),
        ({"precision": "float32"}, False), ({"peft": "lora"}, False), ({"hardware": "h100-sxm"}, False),
        ({"hardware": "cpu-avx512_bf16-2"}, False), ({"processes": 2}, False),
    ],
)  # fmt: skip
def test_a_speed_is_carried_over_to_what_is_near(change: dict[str, Any], known: bool, tmp_path: Path) -> None:
    found = Corrections(tmp_path)
    found.note(HERE, estimated=2.0, seen=4.0)
    assert found.share(dataclasses.replace(HERE, **change)) == (0.5 if known else None)


def test_a_share_is_bounded_and_files_of_short_measurements_count_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = Corrections(tmp_path)
    for seen, share in ((100.0, 0.2), (0.01, 5.0)):
        found.note(HERE, estimated=1.0, seen=seen)
        assert Corrections(tmp_path).share(HERE) == share
    (tmp_path / NAME).write_text(json.dumps({"schema": 1, "speed over estimated": {HERE.key: 0.16}}))
    assert Corrections(tmp_path).share(HERE) is None
    assert not caplog.text


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"speed over estimated": {}}', '{"schema": 2, "speed over estimated": 3}',
     *(f'{{"schema": 2, "speed over estimated": {{"{HERE.key}": {share}}}}}' for share in ('"fast"', "0", "NaN", "9")),
     '{"schema": 2, "speed over estimated": {"a": 1}}'],
)  # fmt: skip
def test_a_broken_file_counts_as_none_and_is_told(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_text(text)
    with caplog.at_level(logging.WARNING):
        found = Corrections(tmp_path)
    assert "speeds.json cannot be read" in caplog.text
    assert found.share(HERE) is None
    found.note(HERE, estimated=1.0, seen=2.0)
    assert Corrections(tmp_path).share(HERE) == 0.5


def context_of(tmp_path: Path, **words: str) -> Any:
    """Return a stage's context, as far as a stopwatch looks at it."""
    from common.console import Console
    from common.stage import StageContext

    config = resolve({"domain": "medical", "run.device": "cpu", **words}, REPOSITORY).config
    artifact = Artifact(tmp_path, {"kind": "base"})
    return StageContext(
        "cpt", "cpt", config.stages["cpt"], config, {"base": artifact}, "base", None, tmp_path, tmp_path,  # type: ignore[arg-type] # no row is read
        tmp_path / "models", Console("quiet"),
    )  # fmt: skip


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: list[float], own: float = 1.0) -> None:
    """Let the clock go on by some seconds at every look; the process has had a share of its threads' time."""
    times = [sum(seconds[:number]) for number in range(len(seconds) + 1)]
    now = [0.0]

    def look() -> float:
        now[0] = times.pop(0)
        return now[0]

    monkeypatch.setattr("time.monotonic", look)
    monkeypatch.setattr("time.process_time", lambda: own * torch.get_num_threads() * now[0])


def test_the_first_steps_correct_the_next_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"domain": "medical", "run.device": "cpu", "out": str(tmp_path)}
    before = Outlook.of(resolve(words, REPOSITORY))
    estimated = step_seconds(before.settings["cpt"], before.hardware)
    # The first step, and one in which a checkpoint was written, take longer; the median is twice what was estimated.
    ticking(monkeypatch, [2 * estimated] * 4 + [15.0] + [2 * estimated] * 46)
    watch = Stopwatch(context_of(tmp_path), 512)
    for _ in range(51):
        watch.step()
    found = Corrections(tmp_path)
    assert found.share(pace_of(before.settings["cpt"], before.hardware)) == pytest.approx(0.5, rel=1e-4)
    after = Outlook.of(resolve(words, REPOSITORY))
    times = [seen.seconds("cpt", 800_000) or 0.0 for seen in (before, after)]
    other = other_seconds(before.settings["cpt"], before.hardware)
    assert times[1] - other == pytest.approx(2 * (times[0] - other), rel=1e-3)
    planned = {step.node.name: step.seconds for step in make_plan(resolve(words, REPOSITORY)).steps}
    assert planned["cpt"] == after.seconds("cpt", 800_000)


def test_pairs_shorter_than_they_may_be_are_reckoned_by_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of 16 pairs of 40 tokens is planned as 1,280 of them, whatever sequence_length would allow."""
    context = dataclasses.replace(context_of(tmp_path), kind="dpo", stage="dpo")
    context = dataclasses.replace(context, settings=context.config.stages["dpo"])
    words = {"domain": "medical", "run.device": "cpu", "out": str(tmp_path)}
    found = Outlook.of(resolve(words, REPOSITORY))
    # Twice what this machine is estimated to need: a share beyond 5 is cut.
    seen = 2 * token_seconds(found.settings["dpo"], found.hardware) * 1280
    ticking(monkeypatch, [seen] * 60)
    watch = Stopwatch(context, 1280)
    for _ in range(51):
        watch.step()
    found = Outlook.of(resolve(words, REPOSITORY))
    other = other_seconds(found.settings["dpo"], found.hardware)
    assert found.seconds("dpo", 128_000) == pytest.approx(other + 100 * seen, rel=1e-3)


def test_a_slow_beginning_is_mended_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"domain": "medical", "run.device": "cpu", "out": str(tmp_path)}
    found = Outlook.of(resolve(words, REPOSITORY))
    pace = pace_of(found.settings["cpt"], found.hardware)
    estimated = step_seconds(found.settings["cpt"], found.hardware)
    ticking(monkeypatch, [3 * estimated] * 70 + [estimated] * 80)
    watch = Stopwatch(context_of(tmp_path), 512)
    for _ in range(150):
        watch.step()
    slow = Corrections(tmp_path).share(pace) or 0.0
    watch.finish()
    assert Corrections(tmp_path).share(pace) == pytest.approx(3 * slow, rel=1e-3)


def test_answers_are_written_a_word_at_a_time() -> None:
    words = {"pipeline": "on-policy", "sample.prompts": "1000"}
    times = [
        outlook_of("qwen3-0.6b", gpu, **words, **{"sample.answer_tokens": length}).seconds("sample", None) or 0.0
        for gpu, length in (("h200", "128"), ("l4", "128"), ("l4", "512"))
    ]
    assert 0 < times[0] < times[1] < times[2]
    assert outlook_of("qwen3-0.6b", "l4", pipeline="on-policy").seconds("sample", None) is None


@pytest.mark.parametrize(
    ("words", "steps", "seconds", "own", "recorded"),
    [
        ({}, 50, 0.3, 1.0, False), ({}, 51, 0.3, 1.0, True),  # the first step is left out
        ({}, 2, 30.0, 1.0, False), ({}, 3, 30.0, 1.0, True), ({}, 20, 1.0, 1.0, False), ({}, 21, 1.0, 1.0, True),
        ({}, 60, 0.3, 0.5, False),  # beside a process that is as busy
        ({"run.hardware": "cpu-64"}, 60, 0.3, 1.0, False),
    ],
)  # fmt: skip
def test_short_trainings_busy_and_other_machines_teach_nothing(
    words: dict[str, str], steps: int, seconds: float, own: float, recorded: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ticking(monkeypatch, [seconds] * steps, own)
    watch = Stopwatch(context_of(tmp_path, **words), 512)
    for _ in range(steps):
        watch.step()
    watch.finish()
    assert (tmp_path / NAME).exists() == recorded


def test_more_gpus_and_faster_ones_take_less_time() -> None:
    words = {"run.micro_batch_tokens": "8192", "run.parallelism": "fsdp2"}
    times = [
        outlook_of("llama-8b", gpu, **words, **{"run.processes": str(number)}).seconds("cpt", 10_000_000) or 0.0
        for gpu, number in (("a100-80gb", 8), ("h100-sxm", 8), ("h100-sxm", 16))
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] > 0
    assert outlook_of("llama-8b", "h100-sxm").seconds("dpo", None) is None
