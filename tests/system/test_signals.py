import signal
import subprocess
import sys
import time

import pytest

from common.system import signals
from common.system.signals import HANGUP, Preempted, code_of, signals_restored, stop_if_asked, stop_on_signals
from tests.conftest import REPOSITORY

# A command that waits in an import, before the program has begun to do anything, with a thread that waits longer.
WAITING = """
import signal, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may be to outlive their terminal
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "common.cli.catalogue":
            threading.Thread(target=time.sleep, args=(60,)).start()
            print("waiting", flush=True)
            for _ in range(600):  # a signal between two of Python's instructions interrupts the next sleep alone
                time.sleep(0.1)
sys.meta_path.insert(0, Slow())
from common.cli.main import module_main
sys.exit(module_main())
"""


@pytest.mark.parametrize(
    ("number", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGINT", 130)]
)  # fmt: skip
def test_a_signal_in_the_first_seconds_ends_a_run_as_later_ones_do(number: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "plan", "domain=medical"],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    started = time.monotonic()
    process.send_signal(signal.Signals[number])
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (code, False)
    assert "Stopped. Finished stages are kept." in errors
    assert time.monotonic() - started < 20


def test_a_program_that_is_to_outlive_its_terminal_does() -> None:
    code = "from common.system.signals import SIGNALS; print(*(number.name for number in SIGNALS))"
    nohup = f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); exec({code!r})"
    found = subprocess.run([sys.executable, "-c", nohup], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout == "SIGTERM SIGUSR1 SIGINT\n"


def test_a_signal_that_was_swallowed_stops_at_the_next_look() -> None:
    with signals_restored():
        stop_on_signals()
        stop_if_asked()
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted) as caught:
            stop_if_asked()
        stop_on_signals()
        stop_if_asked()
    assert code_of(caught.value) == 75
    assert code_of(KeyboardInterrupt()) == 130
    assert (signal.SIGHUP in signals.SIGNALS) == bool(HANGUP)
