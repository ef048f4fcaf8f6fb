"""Start the processes that share a stage with `accelerate launch`, pass signals on to them, and say why one died.

Usage: `launch(resolved, "cpt", plan, console, forced=False)` where `needed(node.kind, resolved.config.run)`.

Every process runs `python -m common stage <plan> <stage>`, as a scheduler would; the first one holds the lock and
commits the result. On several machines a scheduler starts them, under torchrun or `accelerate launch`, with the same
words. The processes find each other by `common.training.distributed.ranks`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Protocol

from common.config.overrides import ALLOW_CODE
from common.config.resolve import Resolved
from common.config.schema import RunSettings
from common.console import Console
from common.cost.hardware import CORES_TOLD
from common.engine.environment import environment
from common.errors import ConfigError, LaunchError
from common.stage import SHARED_KINDS
from common.training.distributed import ranks
from common.training.loop.stopping import SIGNALS, Preempted

FOLDER = "DOMAIN_RECIPES_PROCESSES"  # environment: where each process leaves its output and why it failed
SET_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"  # environment, whatever the value
TEMPORARY = 75  # exit code of a run that was asked to stop and may be started again (EX_TEMPFAIL of sysexits.h)
LINES = 12  # of a dead process's output that are shown
GRACE_SECONDS = 600.0  # that processes have to save a checkpoint once they are asked to stop
WATCH_SECONDS = 0.2
# How torchrun names the process that failed first.
ROOT_CAUSE = re.compile(r"Root Cause.*?\brank\s*:\s*(\d+) .*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def needed(kind: str, run: RunSettings) -> bool:
    """Whether a stage is to be shared by processes that are not started yet."""
    return kind in SHARED_KINDS and run.processes > 1 and ranks.size() == 1


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
    if run.machines > 1:
        raise ConfigError(_by_scheduler(run, stage, plan))
    folder = Path(tempfile.mkdtemp(prefix="processes-"))
    words = [f"out={resolved.out}", *(["force=true"] if forced else [])]
    words += [f"{ALLOW_CODE}={resolved.config.domain}"] if resolved.code_allowed else []
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_file(resolved.repository, run)),
        "--num_machines", "1", "--num_processes", str(run.processes),
        "--main_process_port", "0",  # a free one
        "--module", "common", "stage", str(plan.resolve()), stage, *words,
    ]  # fmt: skip
    try:
        with (folder / "launcher.log").open("w") as errors:
            told = {**environment(), **_cores(run), **_path_to(resolved.repository), FOLDER: str(folder)}
            process = subprocess.Popen(
                command, env=told, stderr=errors,  # in this folder, where relative paths of the settings start
                start_new_session=True,  # signals reach the processes through this one, in good order
            )  # fmt: skip
            code = _watch(process, folder, run, console)
        if code:
            raise LaunchError(_why(stage, run, folder, code))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cores(run: RunSettings) -> dict[str, str]:
    """Tell the processes all cores of the run: torchrun leaves one thread to each, and none knows of the others."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return {CORES_TOLD: str(run.threads or (told if told.isdigit() else os.cpu_count() or 1))}


def _path_to(repository: Path) -> dict[str, str]:
    """Let the processes import `common` from here, and nothing from the current folder, which may be any."""
    path = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def configure(repository: Path, run: RunSettings) -> None:
    """Set for a process that torchrun started what `accelerate launch` sets for those of its own.

    Raises ConfigError for DeepSpeed, whose settings only `accelerate launch` hands on.
    """
    if ranks.size() == 1 or SET_BY_ACCELERATE in os.environ:
        return
    if run.parallelism == "zero3":
        raise ConfigError(
            "run.parallelism=zero3: start the processes with `accelerate launch --config_file "
            f"{config_file(repository, run)}`, not with torchrun, or use run.parallelism=fsdp2."
        )
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--config_file", str(config_file(repository, run)), "--num_processes", str(ranks.size()), "common"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    found = prepare_multi_gpu_env(arguments)
    os.environ.update({key: value for key, value in found.items() if key.startswith(("ACCELERATE_", "FSDP_"))})


def _by_scheduler(run: RunSettings, stage: str, plan: Path) -> str:
    each = run.processes // run.machines
    return (
        f"run.machines={run.machines}: start stage {stage} on every machine, for instance with `torchrun "
        f"--nnodes={run.machines} --nproc-per-node={each} --rdzv-backend=c10d --rdzv-endpoint=<host>:<port> -m common "
        f"stage {plan} {stage}`; then go on with the same command as now."
    )


def _watch(process: subprocess.Popen[bytes], folder: Path, run: RunSettings, console: Console) -> int:
    """Wait for the processes, hand signals on to them, and return the launcher's exit code."""
    asked: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    told: set[Path] = set()
    shown = 0
    deadline = 0.0
    try:
        while (code := process.poll()) is None:
            if asked:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
                _tell(folder, asked[0], told)
                if signal.SIGINT in asked[1:] or time.monotonic() > deadline:
                    _kill(process, folder)
            if console.verbosity == "verbose":
                shown = _show(folder / "0.log", shown)
            time.sleep(WATCH_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            _kill(process, folder)
            process.wait()
    if asked and not list(folder.glob("*.failure.json")):
        raise Preempted(asked[0])
    return code


def _tell(folder: Path, signum: int, told: set[Path]) -> None:
    """Send a signal to every process of this machine that is there by now and was not told.

    The launcher itself would kill them half a minute later.
    """
    for path in set(folder.glob("*.pid")) - told:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text(encoding="utf-8")), signum)
        told.add(path)


def _kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the processes, each with those that it has started, and the launcher, which has no time to do so itself.

    torchrun gives each of them a session of its own, so that none dies with the launcher.
    """
    for path in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(path.read_text(encoding="utf-8")), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _show(path: Path, shown: int) -> int:
    """Print what the first process has logged beyond the first `shown` bytes; return how many there are now."""
    if not path.is_file():
        return shown
    with path.open("rb") as log:
        log.seek(shown)
        fresh = log.read()
    sys.stderr.write(fresh.decode("utf-8", errors="replace"))
    return shown + len(fresh)


def _why(stage: str, run: RunSettings, folder: Path, code: int) -> str:
    """Say which process died first and what it said last; one that was killed brings the others down with it."""
    log = (folder / "launcher.log").read_text(encoding="utf-8", errors="replace")
    found = ROOT_CAUSE.search(log)
    which, exit_code = (int(found[1]), int(found[2])) if found else (0, code)
    failures = {int(path.name.split(".")[0]): json.loads(path.read_text(encoding="utf-8"))
                for path in folder.glob("*.failure.json")}  # fmt: skip
    if exit_code < 0 or not failures:
        return _killed(stage, run, folder, which, exit_code) if found else _not_started(stage, log, code)
    which = which if which in failures else min(failures, key=lambda number: float(failures[number]["time"]))
    told = failures[which]
    if not told["trace"]:
        return str(told["text"])
    return f"Stage {stage}: process {which + 1} of {run.processes} failed.\n{told['text']}"


def _killed(stage: str, run: RunSettings, folder: Path, which: int, exit_code: int) -> str:
    died = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
    hint = " (where memory ran out, the system kills like this)" if exit_code == -signal.SIGKILL else ""
    path = folder / f"{which}.log"
    said = _tail(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""
    last = f" It said last:\n{said}" if said else ""
    return (
        f"Stage {stage}: process {which + 1} of {run.processes} {died}{hint}; the same command goes on from the last "
        f"checkpoint.{last}"
    )


def _not_started(stage: str, log: str, code: int) -> str:
    return f"Stage {stage}: `accelerate launch` ended with exit code {code}.\n{_tail(log)}"


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LINES:])


class Failed(Protocol):
    """How a process says why it failed; false where nobody collects that, so that it is to be printed."""

    def __call__(self, text: str, *, trace: bool = False) -> bool: ...


def enter() -> Failed:
    """Set this process up as one that `launch` started, if it is one; return how it says why it failed.

    Only the first process talks to the user; what the others print, and what it logs, is kept for when they die.
    """
    given = os.environ.get(FOLDER)
    number = ranks.rank()
    if given is not None:
        with (Path(given) / f"{number}.log").open("wb") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
            if number:
                os.dup2(log.fileno(), sys.stdout.fileno())
        unnamed = Path(given) / f".{number}.pid"
        unnamed.write_text(str(os.getpid()), encoding="utf-8")
        unnamed.rename(Path(given) / f"{number}.pid")  # whole, when it is seen

    def failed(text: str, *, trace: bool = False) -> bool:
        if given is None:
            return False
        facts = {"rank": number, "time": time.time(), "text": text, "trace": trace}
        fresh = Path(given) / f".{number}.failure"
        fresh.write_text(json.dumps(facts), encoding="utf-8")
        fresh.rename(Path(given) / f"{number}.failure.json")
        return True

    return failed


def is_launched() -> bool:
    """Whether `launch` started this process, so that it is the one to show errors."""
    return FOLDER in os.environ
