"""The environment of a run: the Hub where it is needed, and the defaults of OpenMP before anything reads them."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from common.config.schema import RunSettings
from common.engine import environment
from tests.conftest import REPOSITORY

LOADS = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch"):
            assert os.environ.get("OMP_WAIT_POLICY") and os.environ.get("GOMP_SPINCOUNT"), name

sys.meta_path.insert(0, Watch())
from common.cli.main import main
assert "numpy" not in sys.modules, "the command line alone loads numpy"
assert main(["plan", "domain=medical", f"out={sys.argv[1]}"]) == 0
print(sorted({"numpy", "torch"} & sys.modules.keys()))
"""


def offline() -> set[bool]:
    """Return what the Hub's clients believe, all of them together."""
    constants = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    return {huggingface_hub.is_offline_mode(), *constants, os.environ.get("HF_HUB_OFFLINE") == "1"}


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may ask a Hub that answers."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(environment, "_kept_off", False)
    monkeypatch.setattr(environment, "hub_answers", lambda: True)
    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("_online")
def test_a_run_without_the_hub_does_not_keep_the_next_one_off_it() -> None:
    run = RunSettings(device="cpu")
    environment.prepare(run, asks_hub=False)
    assert offline() == {True}
    environment.prepare(run, asks_hub=True)  # the next domain of `domain=all`
    assert offline() == {False}
    with environment.hub_restored():
        environment.prepare(run, asks_hub=False)
        assert offline() == {True}
    assert offline() == {False}


@pytest.mark.usefixtures("_online")
def test_a_user_who_keeps_off_the_hub_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with environment.hub_restored():
        environment.prepare(RunSettings(device="cpu"), asks_hub=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_plan_loads_no_numeric_library_and_none_comes_before_the_defaults_of_openmp(tmp_path: Path) -> None:
    without = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", LOADS, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=without, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a connection that is left behind
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"])
def test_a_hub_that_never_answers_properly_is_given_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.sendall(answer)
                    clients.append(client)
                    if answer:
                        client.shutdown(socket.SHUT_WR)

        clients: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        assert not environment.hub_answers()
        assert time.monotonic() - started < 10
        for client in clients:
            client.close()
    time.sleep(0.2)
    gc.collect()
