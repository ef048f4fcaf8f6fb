"""Run the tasks of a pass: one after another, in processes of this machine, or by datatrove's executors elsewhere.

Usage: `with Workers(cleaning, runner.processes) as workers: run_all(cleaning, runner, workers)`.

Who runs a task decides nothing about what it writes. A task of a worker that was killed is run again. On this machine
it is a pool of `common.data.cleaning.workers`; datatrove's own waits for a worker that died without end.
"""

from __future__ import annotations

import importlib.util
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.data.cleaning.clean import Cleaning
from common.errors import ConfigError, DataError, first_line
from common.system.signals import stop_if_asked

if TYPE_CHECKING:
    from common.data.cleaning.workers import Workers

log = logging.getLogger(__name__)
LOGS = "logs"
TRIES = 3  # of a pass whose workers die: out of memory, or a node that is gone


@dataclass(frozen=True)
class Runner:
    """Where tasks run, and how many at once."""

    executor: str = "local"  # or slurm, or ray
    workers: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)  # of datatrove's executor: partition, time, …

    @property
    def processes(self) -> int:
        """How many tasks run at once on this machine."""
        return self.workers if self.executor == "local" else 1


def run_all(cleaning: Cleaning, runner: Runner, workers: Workers) -> None:
    """Run all passes, in their order. Raises DataError where tasks end without a result."""
    for this in cleaning.passes:
        run_pass(cleaning, this.number, runner, workers)
        cleaning.decide(this.number)


def run_pass(cleaning: Cleaning, number: int, runner: Runner, workers: Workers) -> None:
    """Run the tasks of a pass that are not done."""
    for _ in range(TRIES):
        left = cleaning.left(number)
        if not left:
            return
        if runner.executor != "local":
            _run_elsewhere(cleaning, number, runner, left)
        else:
            workers.run(number, left)
        stop_if_asked()
    if left := cleaning.left(number):
        raise DataError(
            f"Cleaning of {cleaning.role}: {len(left)} of {cleaning.tasks} tasks ended {TRIES} times without a result, "
            f"task {left[0]} first. A worker that ran out of memory ends so; try run.data_workers=1."
        )


def check_runner(executor: str) -> None:
    """Raise ConfigError where what an executor needs is not here, before anything is read."""
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "run.data_executor=slurm needs Slurm's command sbatch, which is not on this machine. Start the run on a "
            "node of the cluster, or use local."
        )
    if executor == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError("run.data_executor=ray needs the package ray: `pip install ray`. Or use local.")


def _run_elsewhere(cleaning: Cleaning, number: int, runner: Runner, left: list[int]) -> None:
    """Run tasks by an executor of datatrove, and wait for them. Its logs are below the folder of the cleaning."""
    from loguru import logger

    logger.remove()  # it would print a line for every step
    logs = cleaning.folder / LOGS / f"pass-{number}-{len(list((cleaning.folder / LOGS).glob('*')))}"
    step = RunTasks(cleaning, number, tuple(left))
    options = {"tasks": len(left), "workers": runner.workers, "logging_dir": str(logs)}
    try:
        if runner.executor == "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor

            SlurmPipelineExecutor([step], **{**options, **_slurm_options(), **runner.options}).run()
        else:
            from datatrove.executor.ray import RayPipelineExecutor

            RayPipelineExecutor([step], **{**options, **runner.options}).run()
    except TypeError as error:
        raise ConfigError(f"run.data_options: {first_line(error)}.") from error
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # what is left undone is tried again
        log.warning("cleaning on %s: %s; its logs are in %s", runner.executor, first_line(error), logs)


def _slurm_options() -> dict[str, Any]:
    """Return options that hold where the user gives none: this program's own environment, and waiting for the jobs."""
    program, code = Path(sys.executable).parent, Path(__file__).parents[3]
    return {
        "time": "24:00:00", "partition": "", "qos": "", "requeue": False, "sbatch_args": {"wait": ""},
        "env_command": f"export PATH={shlex.quote(str(program))}:$PATH PYTHONPATH={shlex.quote(str(code))}:$PYTHONPATH",
    }  # fmt: skip


@dataclass(frozen=True)
class RunTasks:
    """A step of a datatrove pipeline that runs the task of its rank, and passes nothing on."""

    cleaning: Cleaning
    number: int
    tasks: tuple[int, ...]

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Run one task. A datatrove pipeline calls it with the rank of its own task."""
        self.cleaning.run_task(self.number, self.tasks[rank])
        yield from ()
