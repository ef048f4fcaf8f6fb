"""What each tracker gets, over two processes that make one run: trackio and tensorboard for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from common.training.tracking import trackers
from common.training.tracking.trackers import RunFacts, answers, tracker_of
from tests.conftest import REPOSITORY

NAME = "medical/tiny/sft/0123456789ab"
# A run that is stopped after step 3, and goes on from a checkpoint of step 2.
ATTEMPTS = ((0, (1, 2, 3)), (2, (3, 4)))


def facts_for(folder: Path) -> RunFacts:
    facts = {"stage": "sft", "train.learning_rate": 1e-3, "lora": None}
    return RunFacts(NAME, "sft-0123456789ab", "medical/tiny/full", facts, folder / "trackers", folder)


def tell(name: str, folder: Path) -> None:
    """Tell a tracker two attempts at one run, each through an object of its own."""
    for start, steps in ATTEMPTS:
        tracker = tracker_of(name, facts_for(folder))
        tracker.open(start)
        for step in steps:
            tracker.log({"train/loss": 10.0 * start + step}, step)
        tracker.close()


def test_tensorboard_takes_back_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / NAME))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 23), (4, 24)]


def test_trackio_keeps_one_run_over_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    code = (
        "import sys; from pathlib import Path; from tests.training.tracking import test_trackers as t\n"
        "start, steps = t.ATTEMPTS[int(sys.argv[1])]\n"
        "tracker = t.tracker_of('trackio', t.facts_for(Path(sys.argv[2]))); tracker.open(start)\n"
        "for step in steps: tracker.log({'train/loss': 10.0 * start + step}, step)\n"
        "tracker.close()\n"
    )
    read = (
        "from trackio.sqlite_storage import SQLiteStorage as S; import json\n"
        f"print(json.dumps([S.get_runs('{trackers.PROJECT}'), S.get_logs('{trackers.PROJECT}', '{NAME}')]))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "kept"), "PYTHONPATH": os.pathsep.join(sys.path)}
    for arguments in ([code, "0", str(tmp_path)], [code, "1", str(tmp_path)], [read]):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", *arguments], cwd=REPOSITORY, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    runs, logs = json.loads(done.stdout.strip().splitlines()[-1])
    assert runs == [NAME]
    assert [(entry["step"], entry["train/loss"]) for entry in logs] == [(1, 1), (2, 2), (3, 3), (3, 23), (4, 24)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Stand-ins for wandb and mlflow, which note what they get. They have the signatures that we call."""
    noted: list[tuple[str, Any]] = []
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)

    class Run:
        def define_metric(self, name: str, step_metric: str | None = None) -> None: ...

        def log(self, data: dict[str, Any]) -> None:
            noted.append(("log", data))

        def finish(self) -> None:
            noted.append(("finish", None))

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            noted.append(("uri", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            noted.append(("experiment", name))

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment_id: str, run_name: str) -> Any:
            noted.append(("create_run", (experiment_id, run_name)))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def update_run(self, run_id: str, status: str) -> None:
            noted.append(("update_run", (run_id, status)))

        def log_param(self, run_id: str, key: str, value: str) -> None:
            noted.append(("log_param", (key, value)))

        def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
            noted.append(("log_metric", (run_id, key, value, step)))

        def set_terminated(self, run_id: str) -> None:
            noted.append(("set_terminated", run_id))

    def init(**options: Any) -> Run:
        noted.append(("init", options))
        return Run()

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    wandb.init = init  # type: ignore[attr-defined] # a module that is made here
    mlflow.MlflowClient = Client  # type: ignore[attr-defined] # the same
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return noted


def test_wandb_gets_one_run_and_stays_offline_without_a_key(calls: list[tuple[str, Any]], tmp_path: Path) -> None:
    tell("wandb", tmp_path)
    starts = [options for call, options in calls if call == "init"]
    assert [(o["id"], o["resume"], o["mode"], o["name"]) for o in starts] == [
        ("sft-0123456789ab", "allow", "offline", NAME)
    ] * 2
    assert starts[0]["project"] == "domain-recipes"
    assert starts[0]["config"]["train.learning_rate"] == 1e-3
    assert starts[0]["dir"] == str(tmp_path / "trackers")
    assert [data for call, data in calls if call == "log"][-1] == {"train/loss": 24.0, "step": 4}
    assert [call for call, _ in calls].count("finish") == 2


@pytest.mark.parametrize(("reached", "mode"), [(True, "online"), (False, "offline")])
def test_wandb_is_online_where_there_is_a_key_and_a_network(
    reached: bool, mode: str, calls: list[tuple[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setattr(trackers, "answers", lambda address: reached)
    tell("wandb", tmp_path)
    assert calls[0][1]["mode"] == mode
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tell("wandb", tmp_path)
    assert [options["mode"] for call, options in calls if call == "init"][-1] == "disabled"


def test_mlflow_goes_on_with_the_run_that_the_scratch_notes(calls: list[tuple[str, Any]], tmp_path: Path) -> None:
    tell("mlflow", tmp_path)
    said = dict(calls)
    assert said["uri"] == (tmp_path / "trackers" / "mlruns").as_uri()
    assert said["create_run"] == ("7", NAME)
    assert [call for call, _ in calls].count("create_run") == 1
    assert said["update_run"] == ("r1", "RUNNING")
    assert said["log_metric"] == ("r1", "train/loss", 24.0, 4)
    assert ("log_param", ("train.learning_rate", "0.001")) in calls
    assert said["set_terminated"] == "r1"


def test_an_address_where_nothing_listens_does_not_answer() -> None:
    assert not answers("http://127.0.0.1:9")
    assert not answers("nonsense")
