"""How fast rows become packed tokens, against the tokenizer by itself and TRL's own preparation, and in which memory.

Usage: `just bench tokens`; `megabytes=20` sets how much text is generated for the speeds (0: none), `memory=20,200` for
the memory, `rounds=3` how often each is measured, in turns.

With `OMP_NUM_THREADS=1` seconds are those of the processor on one thread, which others on the machine hardly change.
Without it they are those of the clock, and all cores work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from common.models.tokenizer import WORDS, train_tokenizer
from tests.conftest import REPOSITORY

VOCABULARY, LENGTH = 16_000, 2048
ENDINGS = ("", "", "", ",", ".", "s", "ed")
WORDS_OF_TEXT = 300  # on average
BARE, TRL, GROWTH, OPENING = 0.8, 1.5, 1.1, 0.5  # limits: shares of speeds, of memory, seconds


def texts(megabytes: float, seed: int = 0) -> Iterator[str]:
    """Yield generated texts of common English words, most of them short and some long."""
    rng = random.Random(seed)
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if not line.startswith("#") for word in line.split()]
    size = 0
    while size < megabytes * 1e6:
        number = 1 + int(rng.expovariate(1 / WORDS_OF_TEXT))
        text = " ".join(
            f"{word}{rng.choice(('', '', '', ',', '.', 's', 'ed'))}" for word in rng.choices(words, k=number)
        )
        size += len(text) + 1
        yield text


class Generated:
    """A corpus of generated texts."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return ({"text": text, "source": "generated"} for text in texts(self.megabytes))

    def counts(self, role: str) -> dict[str, Any]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()


def make(corpus: Any, tokenizer: Any, folder: Path) -> tuple[Any, str]:
    """Prepare all rows of a corpus as a stage does; return what opens them."""
    from common.training.rows.prepared import prepare as prepare_rows
    from common.training.rows.reader import Reader

    context: Any = SimpleNamespace(
        corpus=corpus, config=SimpleNamespace(seed=0), stage="cpt", work=folder, shared=None, inputs={}, benchmarks=()
    )
    reader = Reader(context, tokenizer, "cpt", chat_only=False)
    return context, prepare_rows(reader, assistant_only=False, sequence_length=LENGTH, budget=None)


def prepare(corpus: Any, tokenizer: Any, folder: Path) -> Any:
    """Prepare all rows of a corpus as a stage does, and return them."""
    from common.training.rows.prepared import open_prepared

    return open_prepared(*make(corpus, tokenizer, folder))


class Given(Generated):
    """A corpus of texts that are in memory already."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return ({"text": text, "source": "generated"} for text in self._texts)


def _by_trl(dataset: Any, tokenizer: Any, folder: Path) -> Any:
    """Return what SFTTrainer makes of a data set before it trains, without its cache of earlier runs."""
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer.__new__(SFTTrainer)
    trainer._tokenizer, trainer.chat_template, trainer.completion_only_loss = tokenizer, None, False
    config = SFTConfig(
        output_dir=str(folder), max_length=LENGTH, packing=True, packing_strategy="bfd_split", report_to=[],
        use_cpu=True, bf16=False,
    )  # fmt: skip
    return trainer._prepare_dataset(dataset, tokenizer, config, True, None, "train")


def _clock() -> float:
    return time.process_time() if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter()


def _seconds(call: Callable[[], Any]) -> float:
    started = _clock()
    call()
    return _clock() - started


def speeds(megabytes: float, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way to make tokens, in turns."""
    import datasets

    given = list(texts(megabytes))
    tokenizer = train_tokenizer(given[:2000], VOCABULARY, LENGTH)
    datasets.disable_progress_bars()
    found: dict[str, list[float]] = {"bare": [], "ours": [], "TRL": []}
    with tempfile.TemporaryDirectory() as place:
        rows = datasets.Dataset.from_dict({"text": given})
        rows.save_to_disk(f"{place}/rows")

        def bare() -> None:
            for first in range(0, len(given), 1000):
                tokenizer(given[first : first + 1000], verbose=False)

        def ours() -> None:
            prepare(Given(given), tokenizer, Path(place) / "ours")

        def trl() -> None:
            _by_trl(datasets.load_from_disk(f"{place}/rows"), tokenizer, Path(place) / "trl")

        prepare(Given(given[:100]), tokenizer, Path(place) / "ours")  # what is imported and compiled on first use
        _by_trl(rows.select(range(100)), tokenizer, Path(place) / "trl")
        datasets.disable_caching()
        for _ in range(rounds):
            for name, way in (("bare", bare), ("ours", ours), ("TRL", trl)):
                found[name].append(_seconds(way))
                shutil.rmtree(Path(place) / "ours", ignore_errors=True)
    return found


def measure(megabytes: float, folder: Path) -> dict[str, float]:
    """Prepare generated text in this process; return its peak memory (bytes) and the seconds that opening takes."""
    from common.training.rows.prepared import open_prepared

    tokenizer = train_tokenizer(texts(2), VOCABULARY, LENGTH)
    started = time.perf_counter()
    made = prepare(Generated(megabytes), tokenizer, folder)
    seconds = time.perf_counter() - started
    peak = peak_memory()
    rows = len(made.rows)
    context: Any = SimpleNamespace(work=folder, shared=None)
    started = time.perf_counter()
    opened = cast(Any, open_prepared(context, "cpt"))
    first = opened.rows[rows // 2]
    assert len(first["input_ids"]) == sum(first["seq_lengths"])
    return {"peak": peak, "opening": time.perf_counter() - started, "seconds": seconds, "rows": rows}


def peak_memory() -> float:
    """Return the most memory that this program had (bytes). That of `getrusage` begins with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _measured(megabytes: float) -> dict[str, float]:
    """Return the same of a process by itself."""
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, "-m", "tests.bench.tokens", str(megabytes), place]
        done = subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(megabytes: str = "20", memory: str = "20,200", rounds: str = "3") -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
    missed = 0

    def line(what: str, found: float, unit: str, limit: float, is_reached: bool) -> None:
        nonlocal missed
        missed += not is_reached
        print(f"  {'ok  ' if is_reached else 'MISS'} {what:<44} {found:.2f} {unit} (limit {limit} {unit})", flush=True)

    found = speeds(float(megabytes), int(rounds)) if float(megabytes) else {}
    for name, seconds in found.items():
        print(f"       {name:<44} {float(megabytes) / statistics.median(seconds):.2f} MB/s")
    for name, what, least in (("bare", "the bare tokenizer", BARE), ("TRL", "TRL's preparation", TRL)):
        if found:
            times = statistics.median(b / a for a, b in zip(found["ours"], found[name], strict=True))
            line(f"tokenised and packed, of {what}", times, "x", least, times >= least)
    sizes = [float(size) for size in memory.split(",") if size]
    measured = [_measured(size) for size in sizes]
    for size, facts in zip(sizes, measured, strict=True):
        print(f"       peak memory with {size:g} MB of text {facts['peak'] / 1e6:,.0f} MB in {facts['seconds']:.0f} s")
    if measured:
        growth = measured[-1]["peak"] / measured[0]["peak"]
        line(f"memory, {sizes[-1]:g} MB of text against {sizes[0]:g} MB", growth, "x", GROWTH, growth <= GROWTH)
        opening = measured[-1]["opening"]
        line(f"opening what was prepared of {sizes[-1]:g} MB", opening, "s", OPENING, opening <= OPENING)
    return missed


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]), Path(sys.argv[2]))))
