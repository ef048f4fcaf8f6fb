"""What this machine has: GPUs as the driver lists them, processor flags, main memory. Without torch, for plans.

Usage: `if cpu_kind() in BFLOAT16_KINDS: ...`; `visible(cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 15.0  # seconds that nvidia-smi may take; it is slow where no process keeps the driver awake
CPUINFO = Path("/proc/cpuinfo")
# Kinds of CPU by the flag of the best instructions that they have for matrix products, the best first.
CPU_KINDS = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512": "avx512f", "arm_bf16": "bf16", "avx2": "avx2"}
BFLOAT16_KINDS = ("amx", "avx512_bf16", "arm_bf16")  # that compute in bfloat16; torch emulates it on the others


def cpu_lines() -> tuple[str, ...]:
    """Return what Linux says of the processors, line by line; nothing on other systems."""
    try:
        return tuple(CPUINFO.read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the flags of the first processor in lower case; none on a system that does not list them."""
    listed = next((line for line in cpu_lines() if line.startswith(("flags", "Features"))), "")
    return frozenset(listed.partition(":")[2].lower().split())


def cpu_kind() -> str:
    """Return the best kind that the first processor is and torch may use; `avx2`, the plainest, for all others.

    `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` keep torch and oneDNN from instructions that the processor has.
    """
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    kinds = list(CPU_KINDS)
    if os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in ("default", "avx2"):
        kinds = ["avx2"]
    elif onednn and onednn not in ("DEFAULT", "ALL") and "AMX" not in onednn:
        wide, narrow = onednn.startswith("AVX512"), onednn.endswith(("BF16", "FP16")) or onednn.startswith("AVX10")
        kinds = kinds[1:] if narrow else ["avx512", "avx2"] if wide else ["avx2"]
    return next((kind for kind in kinds if CPU_KINDS[kind] in cpu_flags()), "avx2")


def cores() -> int:
    """Return the processors that this process may use, a container's limit counted."""
    # Linux alone says which ones; elsewhere all count.
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return min(found, max(1, round(int(quota) / int(period)))) if quota != "max" else found
    except (OSError, ValueError):
        return found


def main_memory() -> float:
    """Return the bytes of this machine's memory that a run may have, a container's limit counted; 0 if not known."""
    try:
        total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return 0.0
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        said = limit.read_text(encoding="utf-8").strip()
        return min(total, float(said)) if said.isdigit() else total
    except OSError:
        return total


@dataclass(frozen=True)
class Card:
    """A GPU as the driver lists it."""

    name: str  # empty where only the driver's folder names it
    uuid: str
    memory: float | None  # bytes; None where the driver does not say
    capability: float | None = None  # compute capability, such as 7.5; None where the driver does not say


def cards() -> tuple[Card, ...]:
    """Return the GPUs of this machine that torch can use: all that the driver lists, or none with a CPU build."""
    return driver_cards() if torch_has_cuda() else ()


def unused_gpu() -> str | None:
    """Say which GPU is idle because torch was built without CUDA, and what to do; None where that is not so."""
    if torch_has_cuda() or not (found := driver_cards()):
        return None
    name = found[0].name or "a GPU"
    return f"This machine has {name}, but torch here is built without CUDA. Install a CUDA build of torch to use it."


@functools.cache
def torch_has_cuda() -> bool:
    """Whether torch was built for CUDA or ROCm, as its version file says; true where it says nothing. Imports nothing.

    The file is read as text, since importing torch takes seconds that a plan does not have.
    """
    spec = importlib.util.find_spec("torch")
    try:
        text = Path(spec.origin).with_name("version.py").read_text("utf-8") if spec and spec.origin else ""
    except OSError:
        return True
    built = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(.+)$", text, re.MULTILINE)
    return not built or any(value.strip() != "None" for value in built)


@functools.cache
def driver_cards() -> tuple[Card, ...]:
    """Return all GPUs of this machine in the order of `nvidia-smi`; where that fails, as many as its driver counts."""
    asked = ["nvidia-smi", "--query-gpu=uuid,memory.total,compute_cap,name", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        return tuple(card_of(line) for line in said.splitlines() if line.count(",") >= 3)
    except (OSError, subprocess.SubprocessError):
        return (Card("", "", None),) * len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def card_of(line: str) -> Card:
    """Return the GPU of a line such as `GPU-5f…, 23034, 8.9, NVIDIA L4` (MiB; `[N/A]` where nothing is known)."""
    uuid, mebibytes, capability, name = (part.strip() for part in line.split(",", 3))
    memory = float(mebibytes) * 2**20 if mebibytes.isdigit() else None
    return Card(name, uuid, memory, float(capability) if capability.replace(".", "", 1).isdigit() else None)


def visible(found: Sequence[Card], named: str | None) -> tuple[Card, ...]:
    """Return the cards that CUDA_VISIBLE_DEVICES leaves to a process, in its order; `named` None leaves all.

    A part of a card (MIG) goes as the smallest card.
    """
    if named is None:
        return tuple(found)
    kept: list[Card] = []
    for name in filter(None, (part.strip() for part in named.split(","))):
        number = int(name) if name.isdigit() else None
        if name.startswith("-") or (number is not None and number >= len(found)):
            break  # CUDA sees none from here on
        if number is not None:
            kept.append(found[number])
        elif found:
            exact = (card for card in found if card.uuid.startswith(name))
            kept.append(next(exact, min(found, key=lambda card: card.memory or 0.0)))
    return tuple(kept[: len(found)])
