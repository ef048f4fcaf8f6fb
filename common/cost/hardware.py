"""What machines can do: a table of GPUs and CPUs by name, and which one this is, found without torch.

Usage: `hardware = hardware_of(config)`; `hardware.flops`, `hardware.memory`.

Peaks of GPUs are those of the vendors' datasheets, dense 16 bits with float32 sums, and float32 without TF32, which no
stage turns on. How much of them a training reaches is `common.cost.speed`, and what was measured here corrects it
(`common.cost.corrections`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from common.config.precision import WITHOUT_BFLOAT16, is_older
from common.config.schema import Config
from common.errors import ConfigError
from common.machine import Card, cards, cores, cpu_kind, main_memory, visible

GIB = 2**30
TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Hardware:
    """One GPU, or all cores of a CPU."""

    name: str
    device: Literal["cpu", "cuda"]
    flops: Mapping[str, float]  # FLOP/s of dense matrix products, by precision
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes; of a CPU the machine's, 0 where that is not known
    here: bool = False  # it is this machine's, so that its main memory and its disk count too
    assumed: str = ""  # why it is taken, where nobody named it and it is not here

    @property
    def slowdown(self) -> float:
        """How many times faster float32 is than bfloat16: at least 1 where bfloat16 is emulated, below 1 elsewhere."""
        return self.flops["float32"] / self.flops["bfloat16"]


def _gpu(name: str, half: float, single: float, gigabytes: float, gib: float) -> Hardware:
    """Return a GPU by its TFLOP/s in 16 bits and in float32. One without bfloat16 emulates it in float32 at best."""
    bfloat16 = single if name in WITHOUT_BFLOAT16 else half
    flops = {"bfloat16": bfloat16 * TERA, "float16": half * TERA, "float32": single * TERA}
    return Hardware(name, "cuda", flops, gigabytes * GIGA, gib * GIB)


# Datasheets of NVIDIA, dense where they quote sparse figures (half of these): V100 (SXM2), T4, GA102 and Ada papers
# (3090, 4090: 16 bits with float32 sums, which GeForce runs at half rate), A10, L4, L40S, A100, H100, H200, B200 (HGX,
# per GPU). Memory in GiB is what the driver reports, which with error correction is less than the name says.
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", 65.0, 8.1, 320, 15), _gpu("v100-16gb", 125.0, 15.7, 900, 16),
        _gpu("v100-32gb", 125.0, 15.7, 900, 32), _gpu("rtx-3090", 71.0, 35.6, 936, 24),
        _gpu("rtx-4090", 165.2, 82.6, 1008, 24), _gpu("a10", 125.0, 31.2, 600, 22.5),
        _gpu("l4", 121.0, 30.3, 300, 22.5), _gpu("l40s", 362.0, 91.6, 864, 45),
        _gpu("a100-40gb", 312.0, 19.5, 1555, 40), _gpu("a100-80gb", 312.0, 19.5, 2039, 80),
        _gpu("h100-pcie", 756.0, 51.0, 2000, 79.6), _gpu("h100-sxm", 989.0, 67.0, 3350, 79.6),
        _gpu("h200", 989.0, 67.0, 4800, 140.4), _gpu("b200", 2250.0, 75.0, 8000, 179),
    )
}  # fmt: skip
# What `nvidia-smi` calls them, the longer names first; those with a Grace CPU count as the nearest.
CALLED = {
    "H100 PCIe": "h100-pcie", "H100": "h100-sxm", "H200": "h200", "B200": "b200", "A100-SXM4-40GB": "a100-40gb",
    "A100-PCIE-40GB": "a100-40gb", "A100": "a100-80gb", "L40S": "l40s", "L4": "l4", "A10": "a10",
    "RTX 3090": "rtx-3090", "RTX 4090": "rtx-4090", "GH200": "h200", "GB200": "b200", "Tesla T4": "t4",
    "V100-SXM2-32GB": "v100-32gb", "V100-PCIE-32GB": "v100-32gb", "V100": "v100-16gb",
}  # fmt: skip
# GFLOP/s of a core at about 3 GHz in the matrix products of a training, (bfloat16, float32): as measured on one thread,
# but for AMX's tiles and ARM. Emulated bfloat16 is what a whole step was seen to be slower by than in float32.
CORES = {"amx": (600, 75), "avx512_bf16": (150, 70), "avx512": (28, 70), "arm_bf16": (100, 40), "avx2": (5, 50)}
CORE_BANDWIDTH, MOST_BANDWIDTH = 8 * GIGA, 200 * GIGA
CPU_CORES = (2, 4, 8, 16, 32, 64)


def cpu(cores: int, kind: str = "avx2", memory: float = 0.0) -> Hardware:
    """Return a CPU with some cores; a name such as `cpu-8` means the plainest kind."""
    name = f"cpu-{cores}" if kind == "avx2" else f"cpu-{kind}-{cores}"
    bfloat16, float32 = (cores * rate * GIGA for rate in CORES[kind])
    flops = {"bfloat16": bfloat16, "float16": float32, "float32": float32}
    return Hardware(name, "cpu", flops, min(cores * CORE_BANDWIDTH, MOST_BANDWIDTH), memory)


CPUS = {found.name: found for kind in CORES for cores in CPU_CORES for found in [cpu(cores, kind)]}
TABLE = {**CPUS, **GPUS}


def hardware_of(config: Config) -> Hardware:
    """Return what a run is planned for: `run.hardware`, this machine's GPU, what the profile needs, or the CPU here.

    Raises ConfigError for a name that is not in the table, and for a GPU with run.device=cpu.
    """
    run = config.run
    if run.hardware is not None:
        if (name := run.hardware.lower()) not in TABLE:
            raise ConfigError(f"run.hardware={name}: the table has no such machine.{_near(name)}")
        named = TABLE[name]
        if named.device == "cuda" and run.device == "cpu":
            raise ConfigError(f"run.hardware={named.name} is a GPU, but run.device=cpu. Leave one of them out.")
        found = gpu_here() if named.device == "cuda" else cpu_here(run.threads)
        return found if found is not None and found.name == named.name else named
    gpu = gpu_here() if run.device != "cpu" else None
    if gpu is not None:
        return gpu
    if run.device == "cuda" or (run.device == "auto" and config.needs.device == "cuda"):
        return _least(config.needs.gpu_memory_gb)
    return cpu_here(run.threads)


def _near(name: str) -> str:
    """Return what may have been meant, or all names."""
    kinds = ", ".join(kind for kind in CORES if kind != "avx2")
    cpus = f"cpu-<cores> or cpu-<kind>-<cores> with {', '.join(map(str, CPU_CORES))} cores; kinds: {kinds}"
    if name.startswith("cpu"):
        return f" Say {cpus}."
    longer = [known for known in GPUS if known.startswith(name)]
    close = longer or difflib.get_close_matches(name, GPUS, n=1)
    return f" Say {' or '.join(close)}." if close else f" Known: {', '.join(GPUS)}; {cpus}."


def _least(gib: float) -> Hardware:
    """Return the smallest GPU with as much memory, the slowest of equals, since there is none here to plan for."""
    modern = [gpu for gpu in GPUS.values() if gpu.slowdown < 1]
    large = [gpu for gpu in modern if gpu.memory >= gib * GIB] or modern
    return replace(min(large, key=lambda gpu: (gpu.memory, gpu.flops["bfloat16"])), assumed="there is no GPU here")


def gpu_here() -> Hardware | None:
    """Return the first GPU that this process may use, or None where there is none that tells its name."""
    first = next(iter(visible(cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))), None)
    return gpu_called(first) if first is not None and first.name else None


def gpu_called(card: Card) -> Hardware:
    """Return what a card can do; an unknown one goes as an A10, or a T4 where it is older.

    One whose memory the driver does not tell has what the table says, or shares this machine's.
    """
    known = next((row for words, row in CALLED.items() if _has_words(card.name, words)), None)
    like = GPUS[known or ("t4" if is_older(card) else "a10")]
    memory = card.memory or (like.memory if known else main_memory() or like.memory)
    return replace(like, name=known or card.name.lower().replace(" ", "-"), memory=memory, here=True)


def _has_words(name: str, words: str) -> bool:
    """Whether a name has some words whole: an L40 is no L4."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", name, re.IGNORECASE) is not None


def cpu_here(threads: int | None = None) -> Hardware:
    """Return this machine's CPU with the cores that a run uses (see `common.engine.environment.prepare`), and all its
    memory."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    used = threads or (int(given) if given.isdigit() else 0) or cores()
    return replace(cpu(used, cpu_kind(), main_memory()), here=True)
