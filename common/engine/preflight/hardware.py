"""The hardware that a profile was made for, compared with this machine before anything is spent.

Usage: `found = missing(resolved)`, a phrase each; `explanation(resolved, found)` is the message about them.

`common.machine` finds what there is, without torch, so that planning stays instant. The profile's author says what it
needs at least; what a run is expected to take is `common.cost`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.config.folders import names_in, pass_over, read_named
from common.config.resolve import Resolved
from common.config.schema import Needs
from common.config.validation import validated
from common.cost.hardware import GIB
from common.engine.environment import VISIBLE, environment
from common.errors import ConfigError, RecipeError
from common.machine import cards, main_memory, unused_gpu, visible
from common.store.runs import run_of
from common.training.distributed import ranks


@dataclass(frozen=True)
class Machine:
    """What there is here, in GiB; None where nothing says."""

    gpus: tuple[float | None, ...]  # memory of each that this process may use
    host_memory: float | None
    disk: float | None  # free, where results go


def machine_at(root: Path) -> Machine:
    """Return what this machine has; `root` is where results go."""
    folder = next((place for place in (root, *root.absolute().parents) if place.is_dir()), None)
    disk = None if folder is None else shutil.disk_usage(folder).free / GIB
    gpus = visible(cards(), environment().get(VISIBLE))
    memory = main_memory()
    sizes = tuple(None if card.memory is None else card.memory / GIB for card in gpus)
    return Machine(sizes, memory / GIB if memory else None, disk)


def find_missing(needs: Needs, machine: Machine, *, made: float = 0.0, only_cpu: bool = False) -> list[str]:
    """Return what a machine lacks, one phrase each; `made` GiB of the disk's need are results that are there already.

    `only_cpu` says that GPUs are not to be used.
    """
    found = list(_lacking_gpus(needs, () if only_cpu else machine.gpus))
    if machine.host_memory is not None and machine.host_memory < needs.host_memory_gb:
        found.append(f"{needs.host_memory_gb:g} GiB of main memory (here {machine.host_memory:.1f})")
    wanted = needs.disk_gb - made
    if machine.disk is not None and machine.disk < wanted:
        found.append(f"{wanted:.0f} GiB of free disk (here {machine.disk:.1f})")
    return found


def _lacking_gpus(needs: Needs, gpus: tuple[float | None, ...]) -> Iterator[str]:
    if needs.device != "cuda":
        return
    many = max(1, needs.gpus)
    what = f"{many} CUDA GPU{'s' if many > 1 else ''}"
    large = f" of {needs.gpu_memory_gb:g} GiB" if needs.gpu_memory_gb else ""
    if len(gpus) < many:
        yield f"{what}{large} (here {len(gpus) or 'none'})"
    elif known := [memory for memory in gpus if memory is not None]:
        smallest = sorted(known, reverse=True)[:many][-1]
        if smallest < needs.gpu_memory_gb:
            yield f"{what}{large} (here {smallest:.1f} GiB)"


def missing(resolved: Resolved) -> list[str]:
    """Return what this machine lacks for a run, one phrase each."""
    config, alone = resolved.config, ranks.size() == 1
    machine = machine_at(resolved.out)
    # A scheduler may show each process that shares a stage its own GPU alone.
    needs = config.needs if alone else config.needs.model_copy(update={"gpus": min(1, config.needs.gpus)})
    found = find_missing(needs, machine, made=_made(resolved), only_cpu=config.run.device == "cpu")
    if config.run.device == "cuda" and not machine.gpus and needs.device != "cuda":
        found.append("a CUDA GPU (run.device=cuda; here none)")
    if config.run.machines < needs.machines:
        found.append(f"{needs.machines} machines (run.machines={config.run.machines})")
    each = -(-config.run.processes // config.run.machines)
    if alone and config.run.device != "cpu" and machine.gpus and each > len(machine.gpus):
        found.append(f"a GPU for each of {each} processes (run.processes; here {len(machine.gpus)})")
    return found


def explanation(resolved: Resolved, found: list[str]) -> str:
    """Return the message about what this machine lacks."""
    others = [name for name in runnable(resolved) if name != resolved.config.profile]
    instead = f"Profiles that run here: {', '.join(others)}" if others else "No profile was made for less"
    idle = f" {line}" if (line := unused_gpu()) else ""
    return (
        f"profile={resolved.config.profile} needs {'; '.join(found)}.{idle} {instead}. Overrides such as "
        "needs.gpu_memory_gb=<GiB> or needs.device=cpu replace what the profile asks for."
    )


def runnable(resolved: Resolved) -> list[str]:
    """Return the profiles that this machine has everything for."""
    folder = resolved.repository / "pipelines" / "profiles"
    machine = machine_at(resolved.out)
    fitting = []
    for name in names_in(folder):
        path = folder / f"{name}.yaml"
        try:
            values = read_named(folder, "profile", name, "sections of settings")
            needs = validated(Needs, values.get("needs", {}), path=path, prefix="needs")
        except RecipeError as error:
            pass_over(path, str(error))
            continue
        if needs.machines == 1 and not find_missing(needs, machine):
            fitting.append(name)
    return fitting


def check_out(resolved: Resolved) -> None:
    """Check that results can be written where they go, and that nothing shipped is there. Raises ConfigError."""
    out, repository = resolved.out, resolved.repository
    shipped = [repository / name for name in ("common", "domains", "pipelines")]
    if any(out.resolve() == folder or folder in out.resolve().parents for folder in map(Path.resolve, shipped)):
        raise ConfigError(f"out={out} is among the files of this program. Give a folder of its own for results.")
    there = next(place for place in (out, *out.parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"out={out}: {there} is a file. Give a folder for results.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"out={out}: {there} cannot be written. Give another folder, or make this one writable.")


def _made(resolved: Resolved) -> float:
    """Return the GiB of this run's results that are there."""
    view = run_of(resolved).path
    files = (path for link in view.glob("*") if link.is_dir() for path in link.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) / GIB
