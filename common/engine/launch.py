"""Start the processes that share a stage, pass signals on to them, and say which one died first and why.

Usage: `launch(resolved, "cpt", plan, console, forced=False)` where `needed(node.kind, resolved.config.run)`.

Every process runs `python -m common stage <plan> <stage>`; the first one holds the lock and commits the result. On
several machines a scheduler starts the same command under torchrun or `accelerate launch`. The processes find each
other by `common.training.distributed.ranks`.

torch.distributed.elastic starts and watches the processes and keeps their output and errors. Two things are ours:
its agent would pass a signal to whole process groups, data workers included, and kill everything 30 seconds later, so
signals are sent to the processes alone, with time to save; and it leaves processes behind when it is killed itself, so
each of them watches its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import errors
from common.config.kinds import kind_of
from common.config.resolve import Resolved
from common.config.schema import RunSettings
from common.console import Console
from common.engine.environment import environment
from common.engine.frozen_plan import frozen
from common.engine.preflight.domain_code import granted
from common.errors import ConfigError, LaunchError, RecipeError
from common.store.artifacts import write_json
from common.system.signals import SIGNALS, Preempted, signals_restored
from common.training.distributed import ranks

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext, RunProcsResult
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

LAUNCHER = "DOMAIN_RECIPES_LAUNCHER"  # environment: the number of the process that `launch` runs in
SET_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"  # environment, whatever the value
LINES = 12  # of a dead process's output that are shown
GRACE_SECONDS = 600.0  # that processes have to save a checkpoint once they are asked to stop
WATCH_SECONDS = 0.2
# A killed process is noticed up to this much later than the errors that its death causes in others.
NOTICED_SECONDS = 5


def needed(kind: str, run: RunSettings) -> bool:
    """Whether a stage is to be shared by processes that are not started yet."""
    return kind_of(kind).shareable and run.processes > 1 and ranks.size() == 1


def config_file(repository: Path, run: RunSettings) -> Path:
    """Return the file of `accelerate launch` for `run.parallelism`. Raises ConfigError where it is missing."""
    path = repository / "pipelines" / "accelerate" / f"{run.parallelism}.yaml"
    if not path.is_file():
        raise ConfigError(f"run.parallelism={run.parallelism}: {path} is missing; put it back.")
    return path


def launch(resolved: Resolved, stage: str, plan: Path, console: Console, *, forced: bool = False) -> None:
    """Run one stage in `run.processes` processes on this machine.

    Raises LaunchError with the last lines of the process that died first, Preempted where a signal stopped them, and
    ConfigError where a scheduler has to start them.
    """
    run = resolved.config.run
    allowed = list(filter(None, [granted(resolved)]))  # to run the code that this process has checked, by its digest
    if run.machines > 1:
        each = run.processes // run.machines
        raise ConfigError(
            f"run.machines={run.machines}: start stage {stage} on every machine, for instance with `torchrun "
            f"--nnodes={run.machines} --nproc-per-node={each} --rdzv-backend=c10d --rdzv-endpoint=<host>:<port> -m "
            f"common stage {' '.join([str(plan), stage, *allowed])}`; then go on with the same command as now."
        )
    settings = [f"out={resolved.out.resolve()}", *(["force=true"] if forced else []), *allowed]
    shared = accelerate_environment(resolved.repository, run, run.processes)
    # They import `common` from here, and nothing from the current folder, which may be any.
    path = [str(resolved.repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    shared |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory(prefix="processes-") as folder, signals_restored():  # elastic has its own
        own = Path(folder) / "plan.json"  # a run beside this one may write that of `runs/` meanwhile
        write_json(own, frozen(resolved))
        command = ["-m", "common", "stage", str(own), stage, *settings]
        result = start_and_wait(command, shared, run.processes, Path(folder), console)
        if result.failures:
            raise LaunchError(_why(stage, run, result))


def start_and_wait(
    arguments: list[str], shared: dict[str, str], processes: int, folder: Path, console: Console
) -> RunProcsResult:
    """Run Python with some arguments in several processes, and return how they ended; their output is in `folder`.

    Raises Preempted where a signal stopped them and none of them left an error.
    """
    from accelerate.utils import clear_environment
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std, start_processes
    from torch.distributed.elastic.utils.distributed import get_free_port

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it reports, `launch` raises
    each = {number: {"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)}
    shared = {
        **environment(), **shared, LAUNCHER: str(os.getpid()), "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port()),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(found.name for found in SIGNALS),
    }  # fmt: skip
    redirects = {number: Std.ERR if number == 0 else Std.ALL for number in range(processes)}
    logs = DefaultLogsSpecs(
        log_dir=str(folder), redirects=redirects, tee={0: Std.ERR} if console.verbosity == "verbose" else Std.NONE
    )
    context: PContext | None = None
    asked = 0
    try:
        while True:
            try:
                if context is None:
                    with clear_environment():
                        os.environ.update(shared)
                        context = start_processes(
                            "stage", sys.executable, dict.fromkeys(each, tuple(arguments)), each, logs,
                            log_line_prefixes={0: ""},
                        )  # fmt: skip
                result = context.wait(GRACE_SECONDS if asked else -1, WATCH_SECONDS)
                break
            except SignalException as signalled:
                if context is None or (asked and signalled.sigval == signal.SIGINT):
                    raise Preempted(asked or signalled.sigval) from None
                for number in () if asked else context.pids().values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signalled.sigval)
                asked = asked or signalled.sigval
    finally:
        if context is not None:
            context.close(signal.SIGKILL)  # whatever is left
    if asked and (result is None or not any(isinstance(found.message, dict) for found in result.failures.values())):
        raise Preempted(asked)
    assert result is not None, "without a signal it waits for as long as it takes"
    return result


def accelerate_environment(repository: Path, run: RunSettings, processes: int) -> dict[str, str]:
    """Return what `accelerate launch` sets in the environment of a process, by its file for `run.parallelism`."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    given = ["--config_file", str(config_file(repository, run)), "--num_processes", str(processes)]
    given += ["--num_machines", "1", "--main_process_port", "0", "common"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(given))
    found = prepare_deepspeed_cmd_env(arguments)[1] if run.parallelism == "zero3" else prepare_multi_gpu_env(arguments)
    return {key: value for key, value in found.items() if key.startswith(("ACCELERATE_", "FSDP_"))}


def configure(repository: Path, run: RunSettings) -> None:
    """Set for a process that torchrun started what `accelerate launch` sets for those of its own.

    Raises ConfigError for DeepSpeed, which needs `accelerate launch` on every machine.
    """
    if ranks.size() == 1 or SET_BY_ACCELERATE in os.environ:
        return
    if run.parallelism == "zero3":
        raise ConfigError(
            "run.parallelism=zero3: start the processes with `accelerate launch --config_file "
            f"{config_file(repository, run)}`, not with torchrun, or use run.parallelism=fsdp2."
        )
    os.environ.update(accelerate_environment(repository, run, ranks.size()))


def _why(stage: str, run: RunSettings, result: RunProcsResult) -> str:
    """Say which process died first and what it said last; one that was killed brings the others down with it."""
    first = min(result.failures.values(), key=_noticed)
    process = f"process {first.local_rank + 1} of {run.processes}"
    message: Any = first.message
    if isinstance(message, dict):  # as `report` leaves it
        name, _, text = str(message["message"]).partition(": ")
        if issubclass(getattr(errors, name, Exception), RecipeError):
            return text
        return f"Stage {stage}: {process} failed.\n{_tail(message['extraInfo']['py_callstack'])}"
    died = f"was killed by {first.signal_name()}" if first.exitcode < 0 else f"ended with exit code {first.exitcode}"
    hint = " (where memory ran out, the system kills like this)" if first.exitcode == -signal.SIGKILL else ""
    output = _tail(Path(result.stderrs[first.local_rank]).read_text(encoding="utf-8", errors="replace"))
    last = f" Its last lines:\n{output}" if output else ""
    return f"Stage {stage}: {process} {died}{hint}. The same command goes on from the last checkpoint.{last}"


def _noticed(failure: ProcessFailure) -> int:
    killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM  # SIGTERM is how elastic ends the others
    return int(failure.timestamp) - (NOTICED_SECONDS if killed else 0)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LINES:])


def is_launched() -> bool:
    """Whether `launch` started this process, so that it is the one to show errors."""
    return LAUNCHER in os.environ


def enter() -> None:
    """Let a process that `launch` started stop when its launcher is gone: it saves a checkpoint, as for a scheduler."""
    if is_launched():
        threading.Thread(target=_follow, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def _follow(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def report(error: Exception) -> bool:
    """Leave an error for the launcher, as elastic's `record` does; return whether `launch` will show it."""
    if not is_launched():
        return False
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    return True
