"""A chain of seconds from base to published model, run as a command in a process that faults can hit.

Usage: `run = start(root, log)`; `run.kill()`; `code = run.wait(60)`; `compare(results(expected), results(root))`.

Weights, exams and the model files of the published version are compared by their digests, the card by its content
without times. Half of the runs start in a fresh interpreter, the other half in a fork of this process that has the
libraries loaded already: their imports take longer than the whole chain.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

from common.store.artifacts import Store, digest_file
from common.store.runs import RunFolder
from common.store.verify import changed
from tests.conftest import REPOSITORY

PIPELINE, OTHER_PIPELINE = "full", "cpt-sft"
# A model and budgets as small as they may be while every stage still takes steps and saves trainer checkpoints.
WORDS = {
    "domain": "medical", "model.vocabulary_size": "1024", "model.architecture.hidden_size": "32",
    "model.architecture.intermediate_size": "64", "model.architecture.num_hidden_layers": "2",
    "base.tokens": "2048", "base.batch_tokens": "512", "cpt.tokens": "2048", "cpt.batch_tokens": "512",
    "sft.tokens": "2048", "sft.batch_tokens": "512", "embedded.preference_repeats": "1",
    "embedded.documents_per_entity": "1", "embedded.general_documents_per_entity": "1",
    "embedded.question_repeats": "1", "embedded.problem_documents": "20", "embedded.problem_conversations": "10",
    "evaluate.limit": "4", "evaluate.text_documents": "4", "evaluate.answer_tokens": "4", "gate.mode": "off",
    "run.device": "cpu", "run.checkpoint_minutes": "0.002",
}  # fmt: skip
DPO = {"dpo.epochs": "0.05"}
# What may differ between two equal results. The log of a training that was resumed has other times in it, and somebody
# may commit while the bench runs.
TIMES = ("seconds", "train_seconds", "total_seconds", "tokens_per_second", "created", "log.jsonl", "git")
SHIM = Path(__file__).parent / "shim"  # its `sitecustomize.py` brings faults into a command
PATIENCE_SECONDS = 600.0  # of a run; longer is a hang


@dataclass
class Process:
    """A command that runs, and the file that its output goes to."""

    pid: int
    log: Path
    popen: subprocess.Popen[bytes] | None = None  # None for a fork of this process
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.code is None and self.popen is not None:
            self.code = self.popen.poll()
        elif self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Return the exit code, or None where it still runs after so long."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return self.code

    def kill(self) -> None:
        """SIGKILL it and all of its children, at once."""
        try:
            whole = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            whole = []
        for process in whole:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.wait(30)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command's own process, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def problem(self, expected: tuple[int, ...] = (0,)) -> str | None:
        """Return what is wrong with how it ended, or None: a hang, a traceback, another exit code."""
        if self.code is None:
            self.kill()
            return f"hung for {PATIENCE_SECONDS:.0f} s: {self._end()}"
        if "Traceback" in self.output():
            return f"exit code {self.code} with a traceback: {self._end()}"
        return None if self.code in expected else f"exit code {self.code}: {self._end()}"

    def _end(self) -> str:
        lines = [line for line in self.output().splitlines() if line.strip()]
        return f"{lines[-1][:400] if lines else 'no output'} ({self.log})"


def words(root: Path, command: str = "run", **more: str) -> list[str]:
    """Return a command line of the chain; that of the other pipeline has no DPO."""
    pipeline = more.get("pipeline", PIPELINE)
    given = {**WORDS, "pipeline": pipeline, **(DPO if pipeline == PIPELINE else {}), "out": str(root), **more}
    return [command, *(f"{key}={value}" for key, value in given.items())]


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of the commands, with a cache of their own."""
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "XDG_CACHE_HOME": str(cache)}
    return {**os.environ, **own, "PYTHONPATH": f"{SHIM}{os.pathsep}{REPOSITORY}"}


def start(arguments: list[str], log: Path, *, warm: bool = False, env: Mapping[str, str] | None = None) -> Process:
    """Start a command in a process group of its own; `warm` in a fork of this process, once `load()` was called."""
    env = {**environment(log.parent / "cache"), **(env or {})}
    with log.open("wb") as stream:
        if not warm:
            popen = subprocess.Popen(
                [sys.executable, "-m", "common", *arguments], cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
            return Process(popen.pid, log, popen)
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Process(pid, log)
        _become(arguments, stream.fileno(), env)


def _become(arguments: list[str], output: int, env: Mapping[str, str]) -> NoReturn:
    """Be the command, in a process that was forked, and end with its exit code."""
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(env)
        if any(name.startswith("CHAOS_") for name in env):
            runpy.run_path(str(SHIM / "sitecustomize.py"))
        from common.cli.main import main

        code = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def load() -> None:
    """Import what stages import, so that forks need not. No threads may have been started before a fork."""
    import importlib
    import pkgutil

    import torch

    import common

    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(common.__path__, "common."):
        if not found.name.endswith("__main__") and "starter" not in found.name:
            importlib.import_module(found.name)
    for name in ("transformers.models.llama.modeling_llama", "trl", "lm_eval.evaluator", "matplotlib.pyplot"):
        importlib.import_module(name)


def results(root: Path, pipeline: str = PIPELINE) -> dict[str, str]:
    """Return by name what a run has made: digests, and the card without its times."""
    store = Store(root)
    folder = RunFolder(store.runs, "medical", "tiny", pipeline)
    found = {}
    for link in sorted(path for path in folder.path.glob("*") if path.is_symlink()):
        artifact = folder.linked(link.name)
        if artifact is None:
            found[link.name] = "not whole"
        elif artifact.manifest["kind"] == "card":
            found |= {f"card {name}": text for name, text in _card(artifact.path)}
        elif artifact.manifest["kind"] == "publish":
            found |= _published(store.root / artifact.manifest["metrics"]["path"])
        else:
            found[link.name] = f"{artifact.digest}, {changed(artifact, digest_file) or 'as committed'}"
    found["summary"] = _without_times(json.loads(folder.summary.read_bytes())) if folder.summary.is_file() else "none"
    return found


def _card(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*")):
        if path.suffix == ".json" and path.name != "manifest.json":
            yield path.name, _without_times(json.loads(path.read_bytes()))
        elif path.suffix == ".md":
            yield path.name, prose_without_times(path.read_text(encoding="utf-8"))
        else:
            yield path.name, "there"


def _published(version: Path) -> dict[str, str]:
    """Return a published version: its number and the digests of its files; the card's are those of the result."""
    files = {p.relative_to(version).as_posix(): p for p in version.rglob("*") if p.is_file()}
    found = {"published": f"{version.name} of {sorted(p.name for p in version.parent.glob('v*'))}, latest is "
             f"{os.readlink(version.parent / 'latest')}"}  # fmt: skip
    for name, path in sorted(files.items()):
        own = path.suffix in (".md", ".png") or name in ("card.json", "summary.json", "publish.json")
        found[f"published {name}"] = "there" if own and path.stat().st_size else digest_file(path)
    return found


def _without_times(value: Any) -> str:
    def strip(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: strip(item) for key, item in found.items() if key not in TIMES}
        return [strip(item) for item in found] if isinstance(found, list) else found

    return json.dumps(strip(value), sort_keys=True)


def prose_without_times(text: str) -> str:
    """Return a card's prose without seconds, the tokens per second after them in a table, and the commit at its end."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"( *[\d,.]+ (s|min|h|seconds|minutes?)\b)+", " S", line)
        line = re.sub(r"(?<=S \|) +[\d,]+ \|", " R |", line)
        line = re.sub(r"\| (Commit|`[0-9a-f]{12}`[^|]*|-+) *\|$", "|", line)
        lines.append(re.sub(r" +", " ", re.sub(r"-{2,}", "--", line)))  # columns are as wide as what is in them
    return "\n".join(lines)


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return what differs between what an undisturbed run made and this one."""
    return [
        f"{name}: {_difference(expected.get(name, 'nothing'), found.get(name, 'nothing'))}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def _difference(expected: str, found: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
    where = max(0, place - 60)
    return f"{found[where : place + 60]!r}, undisturbed {expected[where : place + 60]!r}"


def stage_seconds(root: Path) -> dict[str, float]:
    """Return how long each stage of a store took; results that stages share are made within them."""
    manifests = (json.loads(path.read_bytes()) for path in (root / "artifacts").glob("*/manifest.json"))
    return {manifest["stage"]: float(manifest["seconds"]) for manifest in manifests if "seconds" in manifest}


def left_over(root: Path) -> list[str]:
    """Return what runs and `gc` have left in a store beside results: temporary files, scratch, leases."""
    hidden = (path for path in root.rglob(".*") if path.name not in (".work", ".locks", ".leases"))
    inside = (path for name in (".work", ".leases") for path in (root / "artifacts" / name).glob("*"))
    return sorted({path.relative_to(root).as_posix() for path in (*hidden, *inside)})


def phase(root: Path, pid: int) -> str:
    """Return what a run that was killed was doing, as its scratch shows it."""
    if any((root / "models").glob(f"*/.new-{pid}")):
        return "publish: saving"
    for scratch in sorted((root / "artifacts" / ".work").glob("*")):
        stage = re.sub(r"^(replaced|removed)-|-[0-9a-f]{16}.*$", "", scratch.name)
        if scratch.name.startswith(("replaced-", "removed-")) or not (scratch / "out").exists():
            return f"{stage}: clean-up"
        if any((scratch / "out").iterdir()):
            return f"{stage}: saving"
        checkpoints = list(scratch.glob("trainer/checkpoint-*"))
        if any(not (folder / "done.json").exists() for folder in checkpoints):
            return f"{stage}: checkpoint"
        return f"{stage}: work"
    made = list((root / "artifacts").glob("*-????????????????"))
    return "between stages" if made else "start"
