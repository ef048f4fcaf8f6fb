"""All that a GPU can tell of this repository in ten minutes: `just gpu`; with `device=cpu` the same in tiny shapes.

Usage: `just gpu [device=cpu] [minutes=10] [out=runs/gpu.json]`.

Parts (`tests.bench.gpu_parts`) go by what they are worth. Each is written to one file when it is done, and is not run
again under the same code, torch and device. A part that fails leaves one line of its error there, and the rest goes on.
A part that cannot fit into the minutes that are left is left out. The same command goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from common.errors import ConfigError, did_you_mean, first_line
from common.store.artifacts import digest_file, fingerprint_of, write_json
from tests.bench.figures import Figure, Part, SkippedError
from tests.conftest import REPOSITORY

FORMAT = 1
DEFAULTS = {"device": "cuda", "minutes": "10", "out": "runs/gpu.json"}
STOPPING = (signal.SIGTERM, signal.SIGINT)
SLACK = 1.2  # a part may take so many times as long as it did before


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    device: str
    seconds: float
    file: Path


def read_words(words: Sequence[str]) -> Request:
    """Return what is asked for. Raises ConfigError for a word that says nothing here."""
    given = dict(DEFAULTS)
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"Expected key=value, such as device=cpu; got '{word}'.")
        if key not in DEFAULTS:
            raise ConfigError(f"just gpu has no setting '{key}'.{did_you_mean(key, DEFAULTS)}")
        given[key] = value
    if given["device"] not in ("cuda", "cpu"):
        raise ConfigError(f"device={given['device']}: expected cuda or cpu.")
    try:
        minutes = float(given["minutes"])
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise ConfigError(f"minutes={given['minutes']}: expected a number above 0, such as minutes=10.")
    if not given["out"]:
        raise ConfigError(f"out=: expected a file, such as out={DEFAULTS['out']}.")
    return Request(given["device"], 60 * minutes, (REPOSITORY / given["out"]).absolute())


def read_results(file: Path) -> dict[str, Any]:
    """Return what is known of each device, part by part. Raises ConfigError for a file that is something else."""
    try:
        if not file.exists():
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
        devices: dict[str, Any] = found["devices"]
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']}, not {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"out={file}: this is no file of results ({first_line(error)}). Name another, or remove it."
        ) from error
    return devices


def check_writable(file: Path) -> None:
    """Make the file's folder and try to write there. Raises ConfigError in one line, before anything has run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ConfigError(f"out={file}: cannot be written ({first_line(error)}). Name another file.") from error


def stop_at_signals() -> None:
    """Let SIGTERM and SIGINT end this process by an exception, so that what it has started ends with it."""

    def stop(number: int, frame: object) -> None:
        for again in STOPPING:
            signal.signal(again, signal.SIG_IGN)  # a second one would leave children behind
        raise SystemExit(128 + number)

    for number in STOPPING:
        signal.signal(number, stop)


def code_and_versions() -> str:
    """Return what results depend on besides the device: our code, and the libraries that train."""
    files = [path for folder in ("common", "tests/bench") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    recipe: dict[str, Any] = {str(path.relative_to(REPOSITORY)): digest_file(path) for path in files}
    return fingerprint_of(
        recipe | {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    )


class Worker:
    """A process that runs parts one after another; a fresh one takes over after a failure, in whatever state it is."""

    def __init__(self) -> None:
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def run(self, function: Any, *arguments: Any, seconds: float) -> Any:
        """Return what a function returns there. Raises what it raises, or TimeoutError."""
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, initializer=os.setsid)
        try:
            return self._pool.submit(function, *arguments).result(timeout=seconds)
        except BaseException:
            for number in list(self._pool._processes or ()):
                _kill(number)
            self.close()
            raise

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _kill(number: int) -> None:
    """Kill a process with all that it has started, those in sessions of their own too (`common.models.clean_load`)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(number)
        for process in (*worker.children(recursive=True), worker):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)  # those whose parent had ended


def work_off(parts: Sequence[Part], request: Request, device: str, results: dict[str, Any]) -> dict[str, str]:
    """Run the parts that are not done and fit; write each result at once. Return why others were left out.

    `results` are those of the whole file, and what is found is added to them; `device` names the one in use.
    """
    deadline = time.monotonic() + request.seconds
    code = code_and_versions()
    known = results.setdefault(device, {})
    left_out: dict[str, str] = {}
    worker = Worker()
    try:
        for part in parts:
            before = known.get(part.name, {})
            if before.get("code") == code and before["state"] == "done":
                continue
            left, needed = deadline - time.monotonic(), part.seconds
            if before.get("state") == "done":
                needed = SLACK * before["seconds"]
            if needed > left:
                left_out[part.name] = f"needs about {needed:.0f} s, and {max(left, 0):.0f} s are left"
                continue
            print(f"  {part.name} …", flush=True)
            known[part.name] = {"code": code, **_try(worker, part, request.device, left)}
            request.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(request.file, {"format": FORMAT, "devices": results})
    finally:
        worker.close()
    return left_out


def _try(worker: Worker, part: Part, device: str, left: float) -> dict[str, Any]:
    """Return what a part found, or in one line why not."""
    started = time.monotonic()
    found: dict[str, Any]
    try:
        figures = worker.run(_in_scratch, part, device, seconds=left)
        found = {"state": "done", "figures": [asdict(figure) for figure in figures]}
    except SkippedError as error:
        found = {"state": "skipped", "error": first_line(error)}
    except TimeoutError:
        found = {"state": "failed", "error": f"did not end within the {left:.0f} s that were left"}
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        found = {"state": "failed", "error": f"{type(error).__name__}: {first_line(error)}", "trace": trace}
    found |= {"seconds": round(time.monotonic() - started, 1), "date": time.strftime("%Y-%m-%d %H:%M")}
    return found


def _in_scratch(part: Part, device: str) -> list[Figure]:
    from common.models.device import release_memory

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return part.run(device, Path(folder))
        finally:
            release_memory()


def table(parts: Sequence[Part], known: Mapping[str, Any], left_out: Mapping[str, str], *, judged: bool) -> list[str]:
    """Return the results as lines, each figure beside its aim where there is one and `judged` says so."""
    lines = []
    width = max(len(part.name) for part in parts)
    for part in parts:
        found = known.get(part.name)
        if part.name in left_out or found is None:
            lines.append(f"  {part.name:<{width}} left out: {left_out.get(part.name, 'not reached')}")
        elif found["state"] != "done":
            lines.append(f"  {part.name:<{width}} {found['state']}: {found['error']}")
        else:
            for figure in (Figure(**values) for values in found["figures"]):
                lines.append(f"  {part.name:<{width}} {figure.line(judged=judged)}".rstrip())
    return lines


def main(words: Sequence[str]) -> int:
    """Run what fits and print the table; return 1 where a part failed or an aim was missed."""
    from tests.bench.gpu_parts import name_of, parts_of

    try:
        request = read_words(words)
        results = read_results(request.file)
        check_writable(request.file)
        worker = Worker()
        try:
            name = worker.run(name_of, request.device, seconds=request.seconds)
        finally:
            worker.close()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    judged = request.device == "cuda"
    parts = parts_of(request.device)
    print(f"  {name}" if judged else f"  {name}: tiny shapes, which say that all parts run, not how fast a GPU is")
    left_out = work_off(parts, request, name, results)
    known = results[name]
    print("\n".join(["", *table(parts, known, left_out, judged=judged), "", f"  results: {request.file}"]))
    figures = [Figure(**values) for found in known.values() for values in found.get("figures", ())]
    failed = any(found["state"] == "failed" for found in known.values())
    return int(failed or (judged and any(figure.reached is False for figure in figures)))


if __name__ == "__main__":
    stop_at_signals()
    sys.exit(main(sys.argv[1:]))
