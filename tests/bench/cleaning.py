"""Documents per second of cleaning, with one worker and with two, against a script of datatrove's own steps.

Usage: `just bench cleaning`; `megabytes=40` sets how much text is generated, `rounds=3` how often each way is measured,
in turns; `workers=1,2` leaves a way out; `words=ours` gives the script our words in place of the quickest there are.

All read the same file and do the same: Gopher's rules of quality and repetition, MinHash with datatrove's default
buckets, and the exam is kept out. The script is `tests.bench.datatrove_script`. Each measurement is a process of its
own, without what it imports. Processor seconds of a way and its workers stand beside those of the clock: with one
worker they are the ratio that others on the machine hardly change, and with two they say whether work is done twice.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.documents import MANIFEST, write_material
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from common.stage import StageContext

BUCKETS, HASHES = 14, 8  # datatrove's defaults
BLOCKS: list[object] = [
    "gopher_quality", "gopher_repetition", {"minhash": {"buckets": BUCKETS, "hashes_per_bucket": HASHES}},
]  # fmt: skip
AGAINST_SCRIPT, OF_TWO = 1.0, 1.7  # floors
Measured = dict[str, float]


def context_of(folder: Path, work: Path, workers: int) -> StageContext:
    """Return the context of the stage that cleans the documents of a folder."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.corpora import data_folder, open_corpus
    from common.stage import StageContext

    words = {
        "domain": "medical", "pipeline": "cpt-only", "data": str(folder / MANIFEST), "run.data_workers": str(workers)
    }  # fmt: skip
    resolved = resolve(words, REPOSITORY)
    (work / "out").mkdir(parents=True)
    return StageContext(
        "data-cpt", "clean", resolved.config.stages["data-cpt"], resolved.config, {}, None, open_corpus(resolved),
        work / "out", work / "work", work / "models", Console("quiet"), data=data_folder(resolved),
    )  # fmt: skip


def ours(folder: Path, work: Path, workers: int) -> Callable[[], int]:
    """Return what cleans by our stage, and tells how many documents are left."""
    import datatrove.pipeline.dedup.minhash
    import datatrove.pipeline.filters  # noqa: F401 - what the script has imported too when its clock starts

    from common.stages import clean

    context = context_of(folder, work, workers)
    return lambda: int(clean.run(context).metrics["rows_out"])


def measure(way: str, folder: Path, work: Path) -> Measured:
    """Clean the documents of a folder in one way, and return what that took: seconds, and documents that are left."""
    if way.startswith("script"):
        from tests.bench.datatrove_script import script

        call = script(folder, work, BUCKETS, HASHES, our_words=way.endswith("ours"))
    else:
        call = ours(folder, work, int(way))
    started, used = time.perf_counter(), sum(os.times()[:4])
    left = call()
    return {"seconds": time.perf_counter() - started, "processor": sum(os.times()[:4]) - used, "left": left}


def _measured(way: str, folder: Path) -> Measured:
    """Return the same of a process by itself."""
    with tempfile.TemporaryDirectory() as work:
        words = [sys.executable, "-m", "tests.bench.cleaning", way, str(folder), work]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]  # datatrove logs each step there
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def main(megabytes: str = "40", rounds: str = "3", workers: str = "1,2", words: str = "split") -> int:
    ways = [f"script {words}", *workers.split(",")]
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        number = write_material(folder, float(megabytes), BLOCKS)
        for _ in range(int(rounds)):
            for way in ways:
                found[way].append(_measured(way, folder))
    for way, all_of_it in found.items():
        seconds, processor, left = (statistics.median(one[key] for one in all_of_it) for key in all_of_it[0])
        name = "datatrove's steps" if way.startswith("script") else f"ours, {way} worker{'s' * (way != '1')}"
        print(
            f"       {name:<24}{number / seconds:>8,.0f} documents/s, {seconds:.1f} s ({processor:.1f} of the "
            f"processor), {left:,.0f} of {number:,} left"
        )

    def ratio(of: str, to: str, key: str) -> float:
        return statistics.median(b[key] / a[key] for a, b in zip(found[of], found[to], strict=True))

    missed = 0
    for of, to, what, floor in (
        ("1", ways[0], "ours of datatrove's steps, one worker", AGAINST_SCRIPT),
        ("2", "1", "ours with two workers, of one", OF_TWO),
    ):
        if of in found and to in found:
            times = ratio(of, to, "seconds")
            missed += times < floor
            print(
                f"  {'ok  ' if times >= floor else 'MISS'} {what:<40} {times:.2f} x (floor {floor} x); in processor "
                f"seconds {ratio(of, to, 'processor'):.2f} x"
            )
    print(f"       load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return missed


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
