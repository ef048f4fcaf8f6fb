"""Peak memory of cleaning and tokenising a large corpus, the time to open what was made, and that of a check before it.

Usage: `just bench scale size=1gb` compares 100 MB of generated documents with 1 GB; `least=50mb` names the smaller,
`parts=clean,tokens,check` what is measured, `heldout=0.05` holds a share of the documents out for the exam.

Cleaning is `exact`, `minhash` and `sentences`, with one worker. What is left is tokenised and packed. Each part is a
process of its own, whose peak is the most memory that it had; pages of mapped files count, so that opening what was
made is a part of its own. The plan, and the check that a run makes before its first stage, run without anything kept of
an earlier one.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.cleaning import context_of
from tests.bench.documents import MANIFEST, documents, write_material
from tests.bench.tokens import LENGTH, VOCABULARY, make, peak_memory
from tests.conftest import REPOSITORY

BLOCKS: list[object] = ["exact", "minhash", "sentences"]
GROWTH, OPENING, CHECK = 1.1, 0.5, 5.0  # limits: of memory, of seconds
Measured = dict[str, float]
_UNITS = {"mb": 1, "gb": 1000}


def clean(folder: Path, work: Path) -> None:
    """Clean the documents."""
    from common.stages import clean

    clean.run(context_of(folder, work / "clean", 1))


def tokens(folder: Path, work: Path) -> None:
    """Tokenise and pack what cleaning has left."""
    from common.data.cleaned import Cleaned
    from common.models.tokenizer import train_tokenizer

    corpus = Cleaned(context_of(folder, work / "read", 1).corpus, {"cpt": work / "clean" / "out"})
    make(corpus, train_tokenizer(documents(2), VOCABULARY, LENGTH), work / "tokens")


def opening(folder: Path, work: Path) -> None:
    """Open the packed rows, and read one of them."""
    from common.training.rows.prepared import open_prepared

    context: Any = SimpleNamespace(work=work / "tokens", shared=None)
    made = open_prepared(context, "cpt")
    assert made is not None
    assert made.rows[len(made.rows) // 2]["input_ids"]


def check(folder: Path, work: Path) -> None:
    """Plan a run and check all that it needs, as `just run` does before its first stage."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.plan import make_plan
    from common.engine.preflight.inputs import check_inputs
    from common.engine.preflight.trial import try_rows

    words = {"domain": "medical", "pipeline": "cpt-only", "data": str(folder / MANIFEST), "out": str(work / "results")}
    resolved = resolve({**words, "evaluate.tasks": "[]"}, REPOSITORY)
    plan = make_plan(resolved)
    check_inputs(resolved, plan.corpus, [step.node for step in plan.to_do], plan.outlook.sizes)
    try_rows(plan, Console("quiet"))


PARTS: dict[str, Callable[[Path, Path], None]] = {"clean": clean, "tokens": tokens, "opening": opening, "check": check}


def measure(part: str, folder: Path, work: Path) -> Measured:
    """Return the seconds and the peak memory (bytes) of one part, in this process.

    What a part imports is no part of its seconds; of a check that is most of what it takes.
    """
    if part == "check":
        (few := work / "few").mkdir()
        write_material(few, 0.2, BLOCKS)
        check(few, few)
    elif part == "opening":
        importlib.import_module("datasets")
    started, used = time.perf_counter(), time.process_time()
    PARTS[part](folder, work)
    return {
        "seconds": time.perf_counter() - started, "processor": time.process_time() - used, "peak": peak_memory()
    }  # fmt: skip


def _measured(part: str, folder: Path, work: Path) -> Measured:
    """Return the same of a process by itself, with an empty cache."""
    words = [sys.executable, "-m", "tests.bench.scale", part, str(folder), str(work)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def megabytes(text: str) -> float:
    """Return the megabytes of a size such as 200mb or 1gb."""
    return float(text[:-2]) * _UNITS[text[-2:].lower()]


def measure_all(size: float, parts: list[str], heldout: float) -> dict[str, Measured]:
    """Return what each part takes with so many megabytes of documents."""
    with tempfile.TemporaryDirectory() as place:
        folder, work = Path(place) / "data", Path(place) / "work"
        folder.mkdir()
        work.mkdir()
        write_material(folder, size, BLOCKS, heldout=heldout)
        found = {}
        for part in parts:
            found[part] = _measured(part, folder, work)
            seconds, processor, peak = (found[part][name] for name in ("seconds", "processor", "peak"))
            print(
                f"       {size:>5,.0f} MB {part:<8} {seconds:>9,.1f} s ({processor:.1f} of the processor), peak memory "
                f"{peak / 1e6:,.0f} MB", flush=True,
            )  # fmt: skip
    return found


def main(
    size: str = "50mb", least: str = "", parts: str = "clean,tokens,opening,check", heldout: str = "0"
) -> int:  # fmt: skip
    most = megabytes(size)
    few = measure_all(megabytes(least) if least else most / 10, parts.split(","), float(heldout))
    many = measure_all(most, parts.split(","), float(heldout))
    missed = 0

    def line(what: str, found: float, unit: str, limit: float) -> None:
        nonlocal missed
        missed += found > limit
        print(
            f"  {'ok  ' if found <= limit else 'MISS'} {what:<48} {found:.2f} {unit} (limit {limit} {unit})", flush=True
        )

    for part in ("clean", "tokens"):
        if part in many:
            line(
                f"{part}: memory against that of the smaller size", many[part]["peak"] / few[part]["peak"], "x", GROWTH
            )
    for part, what, limit in (("opening", "opening what was prepared", OPENING), ("check", "plan and check", CHECK)):
        if part in many:
            line(what, many[part]["seconds"], "s", limit)
    return missed


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
