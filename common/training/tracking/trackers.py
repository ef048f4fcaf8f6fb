"""Programs that draw the course of a training: trackio, tensorboard, wandb and mlflow, behind one small interface.

Usage: `tracker = tracker_of("trackio", about)`; `tracker.open(step=0)`, `tracker.log({"train/loss": 1.0}, 5)`,
`tracker.close()`.

Each goes on with the run of the same stage result, in a process that was started again too. They may raise and hang:
that they stop no training is the business of `common.training.tracking.reporter`. Without a network or a key they keep
what they are given on this machine.
"""

from __future__ import annotations

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.training.patches import quiet_trackio

PROJECT = "domain-recipes"
WANDB = "https://api.wandb.ai"
PATIENCE = 5.0  # seconds that a server has to answer


@dataclass(frozen=True)
class RunFacts:
    """What a tracker gets to know of a run before its first number."""

    name: str  # domain/profile/stage/fingerprint
    identity: str  # of the run, where the tracker takes one of ours: from the stage and its fingerprint
    group: str  # of the runs of a chain
    facts: Mapping[str, Any]  # settings, by dotted key
    folder: Path  # below the store, for what stays on this machine
    scratch: Path  # of the stage: for what a run that is started again must know


class Tracker(ABC):
    """One program that gets the numbers of one run."""

    def __init__(self, about: RunFacts) -> None:
        self.about = about

    @abstractmethod
    def open(self, step: int) -> None:
        """Begin, or go on after some step."""

    @abstractmethod
    def log(self, numbers: Mapping[str, float], step: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Trackio(Tracker):
    """Kept in trackio's own folder (TRACKIO_DIR), which `trackio show` draws."""

    run: Any = None

    def open(self, step: int) -> None:
        import trackio

        if self.run is None:
            facts = dict(self.about.facts)
            with quiet_trackio():  # no measuring threads beside the training, and no page that nobody asked for
                self.run = trackio.init(
                    os.environ.get("TRACKIO_PROJECT", PROJECT), name=self.about.name, group=self.about.group,
                    config=facts, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
                )  # fmt: skip

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        if self.run is not None:
            with quiet_trackio():
                self.run.finish()
            self.run = None


class Tensorboard(Tracker):
    """A folder of events; those behind the step that a run goes on from are taken back."""

    writer: Any = None

    def open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        folder = self.about.folder / "tensorboard" / self.about.name
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=step + 1 if step else None)
        if not step:
            self.writer.add_text("settings", f"```\n{json.dumps(dict(self.about.facts), indent=1)}\n```")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Wandb(Tracker):
    """Online where there is a key and a network, else kept for `wandb sync`; WANDB_MODE decides where it is set."""

    run: Any = None

    def open(self, step: int) -> None:
        import wandb

        if self.run is not None:
            return
        self.about.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=self.about.name, id=self.about.identity,
            group=self.about.group, config=dict(self.about.facts), resume="allow", dir=str(self.about.folder),
            mode=os.environ.get("WANDB_MODE") or ("online" if self._answers(wandb) else "offline"),
        )  # fmt: skip
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log({**numbers, "step": step})  # wandb's own steps only rise, and a run may roll back

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None

    @staticmethod
    def _answers(wandb: Any) -> bool:
        key = os.environ.get("WANDB_API_KEY") or getattr(getattr(wandb, "api", None), "api_key", None)
        return bool(key) and answers(os.environ.get("WANDB_BASE_URL", WANDB))


class Mlflow(Tracker):
    """At MLFLOW_TRACKING_URI, or else in files below the store; the run's id is noted in the stage's scratch."""

    client: Any = None
    run: str | None = None

    def open(self, step: int) -> None:
        from mlflow import MlflowClient

        if self.run is not None:
            return
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (self.about.folder / "mlruns").absolute().as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        note = self.about.scratch / "mlflow-run.txt"
        if note.is_file():
            self.run = note.read_text(encoding="utf-8")
            self.client.update_run(self.run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name) if found is None else found.experiment_id
        self.run = str(self.client.create_run(experiment, run_name=self.about.name).info.run_id)
        note.write_text(self.run, encoding="utf-8")
        for key, value in self.about.facts.items():
            self.client.log_param(self.run, key, str(value)[:250])

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        if self.run is not None:
            self.client.set_terminated(self.run)
            self.run = None


TRACKERS: dict[str, type[Tracker]] = {"trackio": Trackio, "tensorboard": Tensorboard, "wandb": Wandb, "mlflow": Mlflow}


def tracker_of(name: str, about: RunFacts) -> Tracker:
    """Return a tracker by its name, which is that of its package too."""
    return TRACKERS[name](about)


def answers(address: str) -> bool:
    """Whether anything listens at an address, within some seconds."""
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=PATIENCE):
            return True
    except (OSError, ValueError):
        return False
