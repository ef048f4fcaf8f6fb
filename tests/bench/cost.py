"""What `common.cost` reckons against what is measured: memory within 15%, time within 25% after the first steps.

A Llama of 100 million random weights trains a few steps through our own stages, each in a process of its own, and what
the process held at its worst in each phase is read from the system (VmHWM, reset at every phase); the process that
loads results again counts with saving. Time is what a plan says once the first steps of a training are measured
(`speeds.json`), against the whole of it. On a CUDA device the peaks of training and exam are those of
torch.cuda.max_memory_allocated, without the context, and Qwen3-0.6B's shapes take the place of the small ones; that
half has not been run.

Before that a whole chain with small budgets shows what the first plan says of each stage, nothing measured yet, against
what it takes: of the tiny profile, and of a checkpoint in the folder that COST_MODEL names. On one thread
(OMP_NUM_THREADS=1) CPU time counts, which other work on the machine hardly changes; otherwise the time on the clock.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY, TIME = 0.15, 0.25  # largest shares that a figure may be off
MEASURED = 3  # steps that correct a plan here, after the first one
STEPS = 12  # so that the first one, in which libraries prepare themselves, does not decide
ARCHITECTURES = {
    "cpu": {
        "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_key_value_heads": 4, "vocab_size": 16_384, "tie_word_embeddings": False,
    },
    "cuda": {
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
ROWS = {"cpu": 4, "cuda": 2}  # of a step
LENGTH = {"cpu": 128, "cuda": 4096}
SMALL = {
    "domain": "medical", "pipeline": "sft-only", "run.verbosity": "quiet", "embedded.documents_per_entity": "12",
    "embedded.general_documents_per_entity": "12", "evaluate.limit": "20", "evaluate.text_documents": "64",
    "evaluate.written": "false", "run.checkpoint_minutes": "100",
}  # fmt: skip
CHAIN = {
    "domain": "medical", "run.verbosity": "quiet", "base.tokens": "100000", "cpt.tokens": "100000",
    "sft.tokens": "60000", "dpo.epochs": "0.4",
}  # fmt: skip
LARGER = {
    "profile": "smollm2-135m", "model.revision": "null", "model.facts": "null", "model.chat_template": "chatml",
    "cpt.tokens": "8192", "sft.tokens": "4096", "cpt.batch_tokens": "1024", "sft.batch_tokens": "1024",
    "dpo.epochs": "0.1", "evaluate.limit": "16", "evaluate.text_documents": "16",
}  # fmt: skip
SMALLEST = 3.0  # seconds; of shorter stages the ratio says nothing
PHASES = {"training": "train", "saving and checking": "save", "evaluating": "eval"}
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One stage that is run: its name, times the usual rows of a step, and further words."""

    name: str
    stage: str
    rows: int = 1
    words: dict[str, str] = field(default_factory=dict)


CASES = (
    Case("all weights", "base"),
    Case("all weights, twice the batch", "base", 2),
    Case("checkpointed, twice the batch", "base", 2, {"base.train.gradient_checkpointing": "true"}),
    Case("accumulated, in two passes", "base", 2, {"run.micro_batch_tokens": "half"}),
    Case("float32, without autocast", "base", 1, {"base.precision": "float32"}),
    Case("LoRA", "sft", 2, {"sft.peft": "lora"}),
    Case("exam", "exam-base"),
)


def words_of(case: Case, device: str, out: Path) -> dict[str, str]:
    """Return the command-line words of a case; the base that others start from is the first case's."""
    length, each = LENGTH[device], ROWS[device] * LENGTH[device]
    words = {**SMALL, "out": str(out), "run.device": device}
    words |= {f"model.architecture.{key}": str(value).lower() for key, value in ARCHITECTURES[device].items()}
    for stage in ("base", "sft"):
        batch = each * (case.rows if stage == case.stage else 1)
        words |= {f"{stage}.sequence_length": str(length), f"{stage}.batch_tokens": str(batch)}
        words |= {f"{stage}.tokens": str(STEPS * batch)}
    words |= case.words
    if words.get("run.micro_batch_tokens") == "half":
        words["run.micro_batch_tokens"] = str(each * case.rows // 2)
    return words


def measure(case: Case, device: str, out: Path, told: Any) -> None:
    """Run a stage in this process and send what it estimated and what it took: {phase: (bytes, bytes)}, seconds."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.cost import pace
    from common.cost.outlook import Outlook
    from common.cost.speed import other_seconds
    from common.engine.run import run_stage
    from common.training import fit
    from common.training.loop import memory
    from tests.conftest import REPOSITORY

    pace.ENOUGH = MEASURED
    resolved = resolve(words_of(case, device, out), REPOSITORY)
    found: dict[str, float] = {}
    original = memory.phase

    @contextlib.contextmanager
    def watched(name: str) -> Iterator[None]:
        begin(device)
        with original(name):
            yield
        others = [fit.clean_process._process.pid] if name == memory.SAVING and fit.clean_process._process else []
        found[PHASES[name]] = peak(device if name != memory.SAVING else "cpu", others)

    memory.phase = watched
    artifact = run_stage(resolved, case.stage, Console("quiet"), forced=True)
    fit.clean_process.close()
    outlook = Outlook.of(resolved)
    needs = {name: need for name, need in outlook.phases(case.stage).items() if name in found}
    estimated = {name: need.device_total + need.host_total for name, need in needs.items()}
    if device == "cuda":
        estimated = {name: need.device_total - need.device["CUDA"] for name, need in needs.items() if name != "save"}
    seconds = (0.0, 0.0)
    if tokens := int(artifact.manifest["tokens"]):
        setting = outlook.settings[case.stage]
        planned = outlook.seconds(case.stage, tokens)
        assert planned is not None
        seconds = planned - other_seconds(setting, outlook.hardware), float(artifact.manifest["train_seconds"])
    told.send(({name: (size, found[name]) for name, size in estimated.items()}, seconds))


def begin(device: str) -> None:
    """Let the most memory that was held begin anew."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak(device: str, others: list[int]) -> float:
    """Return the most bytes that were held since, those of other processes added."""
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated())
    return sum(_held(str(number)) for number in ("self", *others))


def _held(number: str) -> float:
    status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
    return 1024.0 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def run_chain(words: dict[str, str], told: Any) -> None:
    """Run a chain in this process, stage by stage, and send (stage, planned seconds, seconds taken) of each."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.plan import make_plan
    from common.engine.run import run_stage
    from common.training import fit
    from tests.conftest import REPOSITORY

    resolved = resolve(words, REPOSITORY)
    planned = {step.node.name: step.seconds or 0.0 for step in make_plan(resolved).steps}
    clock = time.process_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.monotonic
    for node in resolved.nodes:
        started = clock()
        run_stage(resolved, node.name, Console("quiet"))
        told.send((node.name, planned[node.name], clock() - started))
    fit.clean_process.close()
    told.close()


def chains() -> int:
    """Print a line per stage of each chain and one for the whole; return how many chains are further off than TIME."""
    given = os.environ.get("COST_MODEL")
    cases = {"tiny": CHAIN, **({given: {**CHAIN, **LARGER, "model.path": given}} if given else {})}
    missed = 0
    for name, words in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
            arguments = ({**words, "out": folder}, there)
            worker = multiprocessing.get_context("spawn").Process(target=run_chain, args=arguments)
            worker.start()
            there.close()
            planned = taken = 0.0
            with contextlib.suppress(EOFError):
                while True:
                    stage, expected, seconds = here.recv()
                    planned, taken = planned + expected, taken + seconds
                    if max(expected, seconds) >= SMALLEST:
                        print(f"       {stage:<14} planned {expected:6.1f} s  took {seconds:6.1f} s", flush=True)
            worker.join()
            if worker.exitcode:
                raise RuntimeError(f"the chain of '{name}' failed; its traceback is above")
        missed += _line(name, "chain", planned, taken, "s", TIME)
    return missed


def measured(case: Case, device: str, out: Path) -> tuple[dict[str, tuple[float, float]], tuple[float, float]]:
    """Return what `measure` sends, from a process of its own. Raises RuntimeError where that dies."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    worker = spawn.Process(target=measure, args=(case, device, out, there))
    worker.start()
    there.close()
    try:
        found: tuple[dict[str, tuple[float, float]], tuple[float, float]] = here.recv()
    except EOFError:
        raise RuntimeError(f"the stage of '{case.name}' failed; its traceback is above") from None
    finally:
        worker.join()
    return found


def main() -> int:
    """Print one line per figure; return how many are further off than they may be."""
    device = _device()
    missed = chains()
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            # The exam and the adapter start from the first case's base; speeds are each case's own.
            out = Path(folder) / (str(number) if case.stage == "base" else "0")
            (out / "speeds.json").unlink(missing_ok=True)
            memory, seconds = measured(case, device, out)
            for phase, (estimated, seen) in memory.items():
                missed += _line(case.name, phase, estimated / MIB, seen / MIB, "MiB", MEMORY)
            if seconds[1]:
                missed += _line(case.name, "time", seconds[0], seconds[1], "s", TIME)
    return missed


def _line(name: str, what: str, estimated: float, seen: float, unit: str, limit: float) -> int:
    off = estimated / seen - 1
    mark = "ok  " if abs(off) <= limit else "MISS"
    figures = f"estimated {estimated:7,.0f} {unit:<3}  measured {seen:7,.0f} {unit:<3}  {off:+6.1%}"
    print(f"  {mark} {name:<30} {what:<6} {figures}", flush=True)
    return int(abs(off) > limit)


def _device() -> str:
    """Return the device, asked in a process of its own: this one must not hold what others are measured on."""
    import subprocess
    import sys

    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
