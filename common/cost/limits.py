"""Refuse what cannot fit before it starts, with the nearest setting that does, found by trying.

Usage: `check_fits(outlook, ["cpt", "sft"])` raises ConfigError; `uncertain(outlook, names)` may not fit.

Only what is sure counts: of rows whose lengths the data decides, nothing. On a CPU a stage is refused where it needs
more than the whole machine has; main memory and disk count only where the run is planned for this machine.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.config.batches import unshardable
from common.config.stages import LearningSettings
from common.config.variants import with_pipeline
from common.cost.fixes import Fix, possible_fixes, with_fixes
from common.cost.hardware import GIB
from common.cost.memory import Need
from common.cost.outlook import Outlook
from common.errors import ConfigError
from common.machine import main_memory
from common.models.device import ROOM as PLACED
from common.store.artifacts import Store

ROOM = 0.95  # share of a GPU's memory that a process can have: the rest is lost between pieces
PLAINEST = "sft-only"  # the pipeline with the fewest stages


@dataclass(frozen=True)
class Shortfall:
    """A phase of a stage that does not fit."""

    stage: str
    phase: str
    needed: float  # bytes
    there: float
    most: float  # bytes with the longest rows
    of: str  # whose memory, and that it has `there`


def find_shortfall(outlook: Outlook, stage: str, *, sure: bool = True) -> Shortfall | None:
    """Return the first phase of a stage that needs more than there is; with `sure` false, that may need it."""
    hardware = outlook.hardware
    for phase, need in outlook.phases(stage).items():
        needed, host = needed_of(outlook, phase, need, sure=sure)
        if hardware.device == "cuda" and needed > ROOM * hardware.memory:
            of = f"of the {_gib(hardware.memory)} of a GPU ({hardware.name}) a process can have"
            most, _ = needed_of(outlook, phase, need)
            return Shortfall(stage, phase, needed, ROOM * hardware.memory, most, of)
        memory = main_memory() if hardware.here else hardware.memory if hardware.device == "cpu" else 0.0
        if memory and host > memory:
            _, most = needed_of(outlook, phase, need)
            return Shortfall(stage, phase, host, memory, most, "this machine has")
    return None


def needed_of(outlook: Outlook, phase: str, need: Need, *, sure: bool = False) -> tuple[float, float]:
    """Return the bytes of a process's device, and of a machine's main memory, where a CPU computes in it.

    Weights of an exam that a GPU has no room for fill its share of it, and the rest stays in main memory
    (`common.models.device.offload_kwargs`).
    """
    device = need.device_sure if sure else need.device_total
    if outlook.hardware.device == "cuda":
        room = PLACED * outlook.hardware.memory
        over = max(0.0, need.device["weights"] - room) if phase == "eval" else 0.0
        return device - over, need.host_total - (need.host["loading"] if over else 0.0) + over
    run = outlook.config.run
    return device, need.host_total + max(1, run.processes // run.machines) * device


def check_fits(outlook: Outlook, stages: Sequence[str], fingerprints: Mapping[str, str | None] | None = None) -> None:
    """Check memory and disk of the stages that are to be made. Raises ConfigError for the first that cannot fit.

    A stage that was stopped has scratch on disk already; its fingerprint finds it.
    """
    for stage in stages:
        shortfall = find_shortfall(outlook, stage)
        if shortfall is not None:
            found = nearest(outlook, stage)
            raise ConfigError(_refusal(shortfall, [*found, *_less(outlook)] if found else [], _without(outlook, stage)))
    _check_disk(outlook, stages, fingerprints or {})


def uncertain(outlook: Outlook, stages: Sequence[str]) -> list[str]:
    """Return a line for stages that fit, but may not with rows as long as they may be; those alike share one."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for stage in stages:
        shortfall = find_shortfall(outlook, stage, sure=False)
        if shortfall is not None and find_shortfall(outlook, stage) is None:
            sizes = f"{_gib(shortfall.needed)}, and {shortfall.of} {_gib(shortfall.there)}"
            fixes = possible_fixes(outlook, stage)
            smaller = next((fix.setting for fix in fixes if _fits(outlook, stage, [fix], sure=False)), "")
            alike.setdefault((shortfall.phase, sizes, smaller), []).append(stage)
    return [
        f"{' '.join(names)}: with the longest rows {phase} takes {sizes}" + (f"; {setting} fits" if setting else "")
        for (phase, sizes, setting), names in alike.items()
    ]


def _refusal(shortfall: Shortfall, settings: Sequence[str], otherwise: str) -> str:
    advice = f"It fits with {' '.join(settings)}"
    if not settings:
        advice = f"No setting of this stage makes it fit; take more memory{otherwise}"
    if any(".peft=" in setting or ".optim=" in setting for setting in settings):
        advice += ", which gives another result"
    most = f" ({_gib(shortfall.most)} with the longest rows)" if _gib(shortfall.most) != _gib(shortfall.needed) else ""
    return (
        f"Stage {shortfall.stage} needs at least {_gib(shortfall.needed)} for {shortfall.phase}{most}, and "
        f"{shortfall.of} {_gib(shortfall.there)}. {advice}."
    )


def _without(outlook: Outlook, stage: str) -> str:
    """Name the plainest pipeline where that goes without a stage of this kind, takes the same settings, and fits."""
    there = with_pipeline(outlook.resolved, PLAINEST)
    kinds = {node.name: node.kind for node in outlook.resolved.nodes}
    if there is None or kinds[stage] in {node.kind for node in there.nodes}:
        return ""
    plain = Outlook.of(there, outlook.corrections)
    fits = all(find_shortfall(plain, node.name) is None for node in there.nodes)
    settings = " ".join([f"pipeline={PLAINEST}", *_less(outlook)])
    return f", or train with SFT alone ({settings})" if fits else ""


def _less(outlook: Outlook) -> list[str]:
    """Return the setting that a profile needs where the planned GPUs are smaller than those it was made for."""
    smaller = outlook.hardware.device == "cuda" and outlook.hardware.memory < outlook.config.needs.gpu_memory_gb * GIB
    return [f"needs.gpu_memory_gb={math.floor(ROOM * outlook.hardware.memory / GIB)}"] if smaller else []


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def nearest(outlook: Outlook, stage: str) -> list[str]:
    """Return the settings that make a stage fit: the first change that does alone, else as few as do together.

    Changes are added one after another, the cheapest first; then those that are not needed are left out again, the
    dearest first.
    """
    tried = list(possible_fixes(outlook, stage))
    if alone := next((fix for fix in tried if _fits(outlook, stage, [fix])), None):
        return [alone.setting]
    chosen: dict[str, Fix] = {}
    for fix in tried:
        for key in (fix.key, *fix.instead):
            chosen.pop(key, None)
        chosen[fix.key] = fix
        if _fits(outlook, stage, chosen.values()):
            break
    else:
        return []
    for key in list(reversed(chosen)):
        fewer = [fix for other, fix in chosen.items() if other != key]
        if _fits(outlook, stage, fewer):
            del chosen[key]
    return [fix.setting for fix in chosen.values()]


def _fits(outlook: Outlook, stage: str, fixes: Iterable[Fix], *, sure: bool = True) -> bool:
    """Whether a stage fits with some changes of the same run, and may be sharded then (a quantised model may not)."""
    config = with_fixes(outlook.resolved, stage, fixes)
    settings = config.stages[stage]
    if isinstance(settings, LearningSettings) and unshardable(settings, config.run):
        return False
    changed = Outlook.of(replace(outlook.resolved, config=config), outlook.corrections)
    return find_shortfall(replace(changed, hardware=outlook.hardware), stage, sure=sure) is None


def _check_disk(outlook: Outlook, stages: Sequence[str], fingerprints: Mapping[str, str | None]) -> None:
    """Check that all results and the largest scratch of one stage have room where the run writes."""
    if not outlook.hardware.here or not stages:
        return
    out = outlook.resolved.out
    needed = disk_needed(
        outlook, stages, {stage: _scratch_there(out, stage, fingerprints.get(stage)) for stage in stages}
    )
    disk = shutil.disk_usage(_existing(out))
    if needed > disk.free and disk.total:  # what is no disk has no size; writing there fails with its own message
        raise ConfigError(
            f"The run needs {_gib(needed)} of disk for its checkpoints, and {out} has {_gib(disk.free)}. Give a folder "
            "on a larger disk (out=<folder>), make room (`just gc`), or store bfloat16 (model.dtype=bfloat16)."
        )


def disk_needed(outlook: Outlook, stages: Sequence[str], there: Mapping[str, int] | None = None) -> float:
    """Return the bytes of all results, and of the largest scratch less what of it is `there` already."""
    sizes = {stage: outlook.disk(stage) for stage in stages}
    missing = (max(0.0, scratch - (there or {}).get(stage, 0)) for stage, (_, scratch) in sizes.items())
    return sum(kept for kept, _ in sizes.values()) + max(missing, default=0.0)


def _scratch_there(out: Path, stage: str, fingerprint: str | None) -> int:
    """Return the bytes of a stage's scratch that a stopped run has left; where none has, no such folder is there."""
    work = Store(out).work_folder(stage, str(fingerprint))
    return sum(path.stat().st_size for path in work.rglob("*") if path.is_file())


def _existing(path: Path) -> Path:
    """Return the nearest folder above that is there."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.is_dir())
