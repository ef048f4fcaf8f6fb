"""Processes that torchrun started are set up as those of `accelerate launch`, and none outlives its launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import RunSettings
from common.console import Console
from common.engine import launch
from common.engine.launch import SET_BY_ACCELERATE, configure
from common.errors import ConfigError
from common.system.signals import Preempted, signals_restored
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture
def by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "FSDP_"))}
    monkeypatch.setattr(os, "environ", {**before, "RANK": "1", "WORLD_SIZE": "4"})


@pytest.mark.usefixtures("by_torchrun")
def test_shards_are_those_of_the_file() -> None:
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert os.environ["FSDP_VERSION"] == "2"
    assert os.environ["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    assert os.environ["RANK"] == "1"


@pytest.mark.usefixtures("by_torchrun")
def test_whole_models_need_no_more() -> None:
    configure(REPOSITORY, RunSettings(processes=4))
    assert SET_BY_ACCELERATE in os.environ
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.usefixtures("by_torchrun")
def test_what_a_launcher_has_set_stays_and_deepspeed_needs_it() -> None:
    with pytest.raises(ConfigError, match=r"zero3: start the processes with `accelerate launch --config_file .+zero3"):
        configure(REPOSITORY, RunSettings(processes=4, parallelism="zero3"))
    os.environ[SET_BY_ACCELERATE] = "no"
    configure(REPOSITORY, RunSettings(processes=4, parallelism="fsdp2"))
    assert "ACCELERATE_USE_FSDP" not in os.environ


def run(code: str, folder: Path, verbosity: str = "quiet") -> Any:
    with signals_restored():
        return launch.start_and_wait(["-c", code], {}, 2, folder, Console(verbosity))  # type: ignore[arg-type] # one of three


def test_a_second_interrupt_kills_the_processes(tmp_path: Path) -> None:
    """Every process has a session of its own, which would outlive a launcher that only ends itself."""
    deaf = (
        "import os, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"open('{tmp_path}/' + os.environ['RANK'] + '.pid', 'w').write(str(os.getpid())); time.sleep(60)"
    )

    def interrupt() -> None:
        while not all((tmp_path / f"{rank}.pid").is_file() for rank in range(2)):
            time.sleep(0.1)
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=interrupt)
    asking.start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Preempted):
        run(deaf, tmp_path / "output")
    asking.join()
    assert signal.getsignal(signal.SIGINT) is before
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{rank}.pid").read_text(encoding="utf-8")), 0)


def test_a_signal_reaches_every_process_once(tmp_path: Path) -> None:
    """A scheduler may send its signal again; a process that has saved ends with 75."""
    saving = (
        "import os, pathlib, signal, sys, time\n"
        f"path = pathlib.Path('{tmp_path}', os.environ['RANK'])\n"
        "def note(number, frame):\n  with path.open('a') as file: file.write(signal.Signals(number).name)\n"
        "signal.signal(signal.SIGUSR1, note); path.touch()\n"
        "while not path.stat().st_size: time.sleep(0.05)\n"
        "time.sleep(1); sys.exit(75)"
    )

    def preempt() -> None:
        while not all((tmp_path / str(rank)).is_file() for rank in range(2)):
            time.sleep(0.1)
        for _ in range(2):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGUSR1)

    asking = threading.Thread(target=preempt)
    asking.start()
    with pytest.raises(Preempted) as stopped:
        run(saving, tmp_path / "output")
    asking.join()
    assert stopped.value.signum == signal.SIGUSR1
    assert [(tmp_path / str(rank)).read_text(encoding="utf-8") for rank in range(2)] == ["SIGUSR1"] * 2


def test_what_the_first_process_logs_is_shown_where_that_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    writing = "import os, sys; print('attention varlen', os.environ['RANK'], file=sys.stderr)"
    assert not run(writing, tmp_path / "quiet").failures
    assert "attention" not in capfd.readouterr().err
    assert not run(writing, tmp_path / "verbose", "verbose").failures
    assert capfd.readouterr().err == "attention varlen 0\n"


REFUSING = "from common.engine import launch; from common.errors import ConfigError; import os, sys, time\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("e = ConfigError('run.x=1: too few.'); assert launch.report(e); sys.exit(1)", "run.x=1: too few."),
        ("1 / (os.environ['RANK'] == '0')", r"Stage cpt: process 2 of 2 ended with exit code 1\. .+ZeroDivisionError"),
        ("os.environ['RANK'] == '0' and time.sleep(60); print('so far', file=sys.stderr); os.abort()",
         r"Stage cpt: process 2 of 2 was killed by SIGABRT\. .+checkpoint\. Its last lines:\nso far"),
    ],
)  # fmt: skip
def test_the_process_that_died_first_is_named_with_its_last_lines(code: str, expected: str, tmp_path: Path) -> None:
    result = run(REFUSING + code, tmp_path / "output")
    assert re.fullmatch(f"{expected}.*", launch._why("cpt", RunSettings(processes=2), result), re.DOTALL)


def test_an_error_of_the_program_shows_its_last_calls(tmp_path: Path) -> None:
    code = "try:\n  [][1]\nexcept Exception as error:\n  launch.report(error)\n  raise"
    result = run(REFUSING + code, tmp_path / "output")
    told = launch._why("cpt", RunSettings(processes=2), result)
    assert re.match(r"Stage cpt: process \d of 2 failed\.\nTraceback .+\nIndexError: list index", told, re.DOTALL)


def test_processes_stop_when_their_launcher_is_killed(tmp_path: Path) -> None:
    """Nothing tells them of kill -9, and each has a session of its own."""
    worker = (
        "from common.engine import launch; import os, time; launch.enter(); "
        f"open('{tmp_path}/' + os.environ['RANK'] + '.pid', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    code = f"""
from pathlib import Path
from typing import Any
from common.console import Console
from common.engine import launch
launch.start_and_wait(["-c", {worker!r}], {{}}, 2, Path({str(tmp_path / "output")!r}), Console("quiet"))
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    files = [tmp_path / f"{rank}.pid" for rank in range(2)]
    deadline = time.monotonic() + 60
    while not all(path.is_file() and path.read_text(encoding="utf-8") for path in files):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    for path in files:
        with pytest.raises(ProcessLookupError):  # noqa: PT012 # the process goes away in its own time
            while time.monotonic() < deadline:
                os.kill(int(path.read_text(encoding="utf-8")), 0)
                time.sleep(0.1)
