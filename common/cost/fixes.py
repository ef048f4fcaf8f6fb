"""Changes of the configuration that may make a stage fit, the cheapest first.

Usage: `for fix in possible_fixes(outlook, "cpt"): config = with_fixes(outlook.resolved, "cpt", [fix])`.

Whether a stage fits with them is `common.cost.limits`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.config.batches import batch_of
from common.config.kinds import kind_of
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import EvaluateSettings, LearningSettings, PreferenceSettings
from common.config.variants import with_overrides
from common.cost.outlook import Outlook
from common.errors import ConfigError
from common.machine import cards, visible

SMALL_OPTIMIZER = "adamw_bnb_8bit"
MOST_PROCESSES = 64
GPUS_OF_A_MACHINE = 8


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A change that may make a stage fit; of several with the same key the last one counts."""

    key: str
    section: str  # of the stage on the command line
    run: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)  # settings of the stage
    train: Mapping[str, Any] = field(default_factory=dict)
    instead: tuple[str, ...] = ()  # keys of changes that it does not go with

    @property
    def overrides(self) -> dict[str, str]:
        """The change as words of the command line: values by key."""
        parts = (("run", self.run), (self.section, self.own), (f"{self.section}.train", self.train))
        given = {f"{part}.{key}": value for part, values in parts for key, value in values.items()}
        return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in given.items()}

    @property
    def setting(self) -> str:
        """The change as on the command line."""
        return " ".join(f"{key}={value}" for key, value in self.overrides.items())

    def is_allowed(self, resolved: Resolved) -> bool:
        """Whether a run may be changed so: methods and settings of its stages may exclude it."""
        try:
            with_overrides(resolved, self.overrides)
        except ConfigError:
            return False
        return True


def with_fixes(resolved: Resolved, stage: str, fixes: Iterable[Fix]) -> Config:
    """Return a run's configuration with some changes. An adapter comes with all that layers say of one."""
    config = resolved.config
    run, own = config.run, config.stages[stage]
    train: dict[str, Any] = {}
    for fix in fixes:
        run = run.model_copy(update=fix.run)
        train |= fix.train
        if "peft" in fix.own:
            again = with_overrides(resolved, {f"{stage}.peft": fix.own["peft"]})
            own = own if again is None else again.stages[stage]
            own = type(own).model_validate({**own.model_dump(), **fix.own})
        else:
            own = own.model_copy(update=fix.own)
    if train:
        assert isinstance(own, LearningSettings)
        own = own.model_copy(update={"train": {**own.train, **train}})
    return config.model_copy(update={"run": run, "stages": {**config.stages, stage: own}})


def possible_fixes(outlook: Outlook, stage: str) -> Iterator[Fix]:
    """Yield what may help a stage and is allowed, the cheapest first; of a size the largest first."""
    return (fix for fix in _fixes(outlook, stage) if fix.is_allowed(outlook.resolved))


def _fixes(outlook: Outlook, stage: str) -> Iterator[Fix]:
    settings, run = outlook.config.stages[stage], outlook.config.run
    if isinstance(settings, EvaluateSettings):
        for size in _halves(settings.batch_size):
            yield Fix(key="batch_size", section="evaluate", own={"batch_size": size})
        return
    work = outlook.settings[stage].work
    if work is None or not isinstance(settings, LearningSettings):
        return
    unit = work.length * (2 if isinstance(settings, PreferenceSettings) else 1)
    for tokens in _halves(work.tokens):
        if tokens >= unit:
            yield Fix(key="micro", section=stage, run={"micro_batch_tokens": tokens})
    if work.checkpointing and work.keeps_frozen:
        yield Fix(key="frozen", section=stage, run={"keep_frozen": False})
    if not work.checkpointing:
        yield Fix(key="checkpointing", section=stage, train={"gradient_checkpointing": True})
    if "8bit" not in work.optimizer:
        yield Fix(key="optimizer", section=stage, train={"optim": SMALL_OPTIMIZER}, instead=("processes",))
    kind = kind_of(outlook.settings[stage].kind)
    # A stage that generates while it trains needs a whole model in each process.
    if kind.shareable and not kind.online and outlook.hardware.device == "cuda":
        if run.processes > 1 and run.parallelism == "ddp":
            yield Fix(key="processes", section=stage, run={"parallelism": "fsdp2"})
        batch, processes = batch_of(stage, settings), 2 * run.processes
        while processes <= _most_processes(outlook):
            if batch is not None and batch.fits(processes):
                machines = max(run.machines, processes // GPUS_OF_A_MACHINE)
                more = {"machines": machines} if machines > run.machines else {}
                yield Fix(key="processes", section=stage, run={"processes": processes, "parallelism": "fsdp2", **more})
            processes *= 2
    if settings.adapts:
        for peft in ("lora", "qlora")[("full", "lora", "qlora").index(settings.peft) :]:
            yield Fix(key="peft", section=stage, own={"peft": peft}, instead=("processes",) if peft == "qlora" else ())


def _most_processes(outlook: Outlook) -> int:
    """Return the largest number of processes: one per GPU, where the run is planned for this machine's."""
    if not outlook.hardware.here:
        return MOST_PROCESSES
    return outlook.config.run.machines * len(visible(cards(), os.environ.get("CUDA_VISIBLE_DEVICES")))


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size
