"""Trackers that cannot be loaded, fail, leave the process or hang: the stage goes on, and says so once."""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.engine.preflight.settings import check_settings
from common.engine.run import run_stage
from common.errors import ConfigError
from common.stage import StageContext
from common.system.secrets import hide
from common.training.distributed import ranks
from common.training.tracking import reporter, trackers
from common.training.tracking.reporter import facts_of, reporting
from common.training.tracking.trackers import Tracker
from tests.conftest import QUICK, REPOSITORY

FEW = {"domain": "medical", **QUICK, "base.tokens": "4096", "base.train.logging_steps": "1"}


def context_of(tmp_path: Path, *named: str, stage: str = "base") -> StageContext:
    """Return what a stage of a tiny run sees, with some trackers."""
    resolved = resolve({"domain": "medical", "run.report_to": ", ".join(named)}, REPOSITORY)
    folders = (tmp_path / "out", tmp_path / "work", tmp_path / "models")
    return StageContext(
        stage, "base", resolved.config.stages[stage], resolved.config, {}, None, open_corpus(resolved), *folders,
         Console("quiet", io.StringIO()), result_id="0123456789ab",
    )  # fmt: skip


def shown(context: StageContext) -> str:
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def noting(calls: list[Any], **raising: Callable[[], Any]) -> type[Tracker]:
    """Return a tracker that notes its calls, and does something else in some of them."""

    class Noting(Tracker):
        def _call(self, name: str, *arguments: Any) -> None:
            calls.append((name, *arguments))
            raising.get(name, lambda: None)()

        def open(self, step: int) -> None:
            self._call("open", step)

        def log(self, numbers: Any, step: int) -> None:
            self._call("log", dict(numbers), step)

        def close(self) -> None:
            self._call("close")

    return Noting


def fail(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def report(context: StageContext) -> None:
    with reporting(context) as found:
        assert found is not None
        found.open(0)
        for step in (1, 2):
            found.log({"loss": step, "text": "no number"}, step)


def test_numbers_arrive_in_order_and_the_run_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(trackers.TRACKERS, "wandb", noting(calls))
    report(context := context_of(tmp_path, "wandb"))
    assert calls == [("open", 0), ("log", {"loss": 1.0}, 1), ("log", {"loss": 2.0}, 2), ("close",)]
    assert shown(context) == ""


@pytest.mark.parametrize(
    ("call", "error", "expected"),
    [
        ("open", ImportError("no module"), "wandb is left out: ImportError: no module. The stage goes on"),
        ("open", SystemExit(1), "wandb is left out: SystemExit: 1. The stage goes on"),
        ("log", RuntimeError("https://me:secret@host/x\nmore"), "RuntimeError: https://***@host/x. The stage goes on"),
        ("log", ValueError("key 0123456789abcdef"), "ValueError: key ***. The stage goes on"),
        ("close", OSError("disk full"), "wandb is left out: OSError: disk full. The stage goes on"),
    ],
)
def test_one_that_fails_is_named_once(
    call: str, error: BaseException, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    other: list[Any] = []
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setitem(trackers.TRACKERS, "wandb", noting(calls, **{call: fail(error)}))
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", noting(other))
    report(context := context_of(tmp_path, "wandb", "mlflow"))
    assert expected in shown(context)
    assert shown(context).count("left out") == 1
    assert [name for name, *_ in calls].count(call) == 1
    assert [name for name, *_ in other] == ["open", "log", "log", "close"]


def test_one_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setitem(trackers.TRACKERS, "wandb", noting([], open=lambda: stop.wait(30)))
    monkeypatch.setattr(reporter, "WAIT", 0.3)
    started = time.monotonic()
    report(context := context_of(tmp_path, "wandb"))
    assert time.monotonic() - started < 5
    assert "wandb is left out: did not answer within 0 seconds." in shown(context)
    stop.set()


def test_only_the_first_process_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "is_main_process", lambda: False)
    with reporting(context_of(tmp_path, "wandb")) as found:
        assert found is None


def test_a_run_is_known_by_where_it_belongs(tmp_path: Path) -> None:
    about = facts_of(context_of(tmp_path, "wandb"))
    assert about.name == "medical/tiny/base/0123456789ab"
    assert about.identity == "base-0123456789ab"
    assert about.facts["train.learning_rate"] == 2.5e-3
    assert about.folder == tmp_path / "trackers"


def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    assert hide("at https://u:p@h.org/x with hf_abcdefgh") == "at https://***@h.org/x with ***"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("none", ()), ("null", ()), ("[]", ()), ("trackio", ("trackio",)), ("[wandb, mlflow]", ("wandb", "mlflow")),
        ("tensorboard, wandb", ("tensorboard", "wandb")), ("[none]", ()),
    ],
)  # fmt: skip
def test_trackers_are_named_as_people_write_them(given: str, expected: tuple[str, ...]) -> None:
    assert resolve({"domain": "medical", "run.report_to": given}, REPOSITORY).config.run.report_to == expected


def test_a_pasted_report_to_is_that_of_the_run() -> None:
    words = {"domain": "medical", "pipeline": "full", "sft.train.report_to": "[wandb]", "dpo.train.report_to": "wandb"}
    found = resolve(words, REPOSITORY)
    assert found.config.run.report_to == ("wandb",)
    assert found.origins["run.report_to"] == "command line, from sft.train.report_to"
    assert resolve({**words, "run.report_to": "none"}, REPOSITORY).config.run.report_to == ()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"run.report_to": "wandbb"}, "expected trackio, tensorboard, wandb or mlflow; got 'wandbb'."),
        ({"sft.train.report_to": "all"}, "expected trackio, tensorboard, wandb or mlflow; got 'all'."),
    ],
)
def test_an_unknown_tracker_is_refused(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=r"^run\.report_to") as caught:
        resolve({"domain": "medical", **words}, REPOSITORY)
    assert expected in str(caught.value)


def test_a_tracker_that_is_not_installed_is_found_by_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    resolved = resolve({"domain": "medical", "pipeline": "full", "sft.train.report_to": "wandb"}, REPOSITORY)
    with pytest.raises(ConfigError) as caught:
        check_settings(resolved)
    assert str(caught.value) == (
        "run.report_to=wandb (command line, from sft.train.report_to): the package wandb is not installed here. Run: "
        "pip install 'domain-recipes[trackers]', or leave it out."
    )


@pytest.mark.slow
def test_a_real_stage_reports_its_losses_and_its_exam_and_is_the_same_result(tmp_path: Path) -> None:
    """tensorboard for real, and a tracker that breaks; the result is that of a run without any."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = {**FEW, "out": str(tmp_path)}
    plain = resolve(words, REPOSITORY)
    found = replace(plain, config=resolve({**words, "run.report_to": "tensorboard"}, REPOSITORY).config)
    recipes = [recipe_of(one.nodes[0], one, open_corpus(one), {}) for one in (plain, found)]
    assert recipes[0] == recipes[1]
    artifact = run_stage(found, "base", Console("quiet"))
    run_stage(found, "exam-base", Console("quiet"))
    folder = tmp_path / "trackers" / "tensorboard" / "medical" / "tiny"
    (events,) = [EventAccumulator(str(path)) for path in (folder / "base").iterdir()]
    events.Reload()
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == list(range(1, artifact.manifest["metrics"]["steps"] + 1))
    assert (folder / "base" / artifact.fingerprint[:12]).is_dir()
    (exam,) = [EventAccumulator(str(path)) for path in (folder / "exam-base").iterdir()]
    exam.Reload()
    assert "exam/general_score" in exam.Tags()["scalars"]
    assert "trackers" not in {path.name for path in artifact.path.iterdir()}
    assert not [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]
