"""With what a result was made: versions, git state, hardware, time. Never names of users or hosts.

Usage: `manifest |= provenance(repository)`.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.machine import cpu_lines

LIBRARIES = (
    "torch", "transformers", "trl", "accelerate", "datasets", "peft", "bitsandbytes", "mergekit", "lm-eval",
    "tokenizers",
)  # fmt: skip


def provenance(repository: Path) -> dict[str, Any]:
    """Return versions, git commit, hardware and the present time (UTC)."""
    return {
        "versions": versions(),
        "git": git_state(repository),
        "hardware": hardware(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
    }


@functools.cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def git_state(repository: Path) -> dict[str, Any]:
    """Return the commit and whether the tree differs from it; both None outside a git checkout.

    An installed package has none, even where the folder around it belongs to another checkout.
    """
    if not (repository / ".git").exists():
        return {"commit": None, "dirty": None}

    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]  # untracked files do not count
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit, "dirty": bool(dirty)}


@functools.cache
def hardware() -> dict[str, Any]:
    listed = next((line for line in cpu_lines() if line.startswith("model name")), "")
    cpu = listed.partition(":")[2].strip() or platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else None
    gpu = None
    torch = sys.modules.get("torch")  # asked only where a stage has loaded it
    if torch is not None and torch.cuda.is_available():
        gpu = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory, 1) if memory else None, "gpu": gpu}
