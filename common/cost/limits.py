"""What cannot fit is refused before it is begun, with the nearest setting that does, found by trying.

Usage: `check_fits(resolved, outlook, ["cpt", "sft"])` raises ConfigError; `doubts(outlook, names)` are worth a word.

Only what is sure counts: of rows whose lengths the data decides, nothing. On a CPU a stage is refused where it needs
more than the whole machine has; main memory and disk count only where the run is planned for this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.config import Config
from common.cost.hardware import GIB, main_memory
from common.cost.memory import Need
from common.cost.outlook import Outlook, setting_of
from common.errors import ConfigError
from common.launch import SHARED_KINDS
from common.layers import Resolved
from common.settings import StageSettings
from common.stage_settings import EvaluateSettings, LearningSettings, RewardedSettings

ROOM = 0.95  # share of a GPU's memory that a process can have: the rest is lost between pieces
MOST_PROCESSES = 64
Change = Callable[[Config, str], Config | None]


@dataclass(frozen=True)
class Lack:
    """A phase of a stage that does not fit."""

    stage: str
    phase: str
    needed: float  # bytes
    there: float
    of: str  # whose memory


def lacks(outlook: Outlook, stage: str, *, sure: bool = True) -> Lack | None:
    """Return the first phase of a stage that needs more than there is; with `sure` false, that may need it."""
    hardware = outlook.hardware
    for phase, need in outlook.phases(stage).items():
        needed, host = _needed(outlook, need, sure=sure)
        if hardware.device == "cuda" and needed > ROOM * hardware.memory:
            return Lack(stage, phase, needed, hardware.memory, f"a GPU ({hardware.name})")
        memory = main_memory() if hardware.here else hardware.memory if hardware.device == "cpu" else 0.0
        if memory and host > memory:
            return Lack(stage, phase, host, memory, "this machine")
    return None


def _needed(outlook: Outlook, need: Need, *, sure: bool) -> tuple[float, float]:
    """Return the bytes of a process's device, and of a machine's main memory, where a CPU computes in it."""
    device = need.device_sure if sure else need.device_total
    if outlook.hardware.device == "cuda":
        return device, need.host_total
    run = outlook.config.run
    return device, need.host_total + max(1, run.processes // run.machines) * device


def check_fits(resolved: Resolved, outlook: Outlook, stages: Sequence[str]) -> None:
    """Check memory and disk of the stages that are to be made. Raises ConfigError for the first that cannot fit."""
    for stage in stages:
        lack = lacks(outlook, stage)
        if lack is not None:
            raise ConfigError(_refusal(lack, nearest(resolved, outlook, lack)))
    _check_disk(outlook, stages)


def doubts(outlook: Outlook, stages: Sequence[str]) -> list[str]:
    """Return a line for every stage that fits, but may not with rows as long as they may be."""
    lines = []
    for stage in stages:
        lack = lacks(outlook, stage, sure=False)
        if lack is not None and lacks(outlook, stage) is None:
            word = _smaller(outlook, stage)
            lines.append(
                f"{stage}: {lack.phase} may need {_gib(lack.needed)} where rows are as long as they may be, and "
                f"{lack.of} has {_gib(lack.there)}" + (f"; {word} would do" if word else "")
            )
    return lines


def _refusal(lack: Lack, words: Sequence[str]) -> str:
    advice = f"It fits with {' '.join(words)}." if words else "No setting of this stage makes it fit; take more memory."
    if any(word.endswith(("peft=lora", "peft=qlora")) for word in words):
        advice = f"{advice.rstrip('.')}, which gives another result."
    return (
        f"Stage {lack.stage} needs {_gib(lack.needed)} for {lack.phase}, and {lack.of} has {_gib(lack.there)}. {advice}"
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def nearest(resolved: Resolved, outlook: Outlook, lack: Lack) -> list[str]:
    """Return the words that make a stage fit: the first change that does alone, else the fewest one after another."""
    tried = list(_changes(outlook, lack.stage))
    for words, change in tried:
        if (config := change(outlook.config, lack.stage)) is not None and _fits(resolved, config, lack.stage):
            return [words(config, lack.stage)]
    config, said = outlook.config, list[str]()
    for words, change in tried:
        changed = change(config, lack.stage)
        if changed is None:
            continue
        key = words(changed, lack.stage)
        said = [word for word in said if word.split("=")[0] != key.split("=")[0]] + [key]
        config = changed
        if _fits(resolved, config, lack.stage):
            return said
    return []


def _fits(resolved: Resolved, config: Config, stage: str) -> bool:
    """Whether a stage fits with another configuration of the same run."""
    return lacks(Outlook.of(replace(resolved, config=config)), stage) is None


Words = Callable[[Config, str], str]


def _changes(outlook: Outlook, stage: str) -> Iterator[tuple[Words, Change]]:
    """Yield what may help a stage, the cheapest first, each with the words that say it."""
    settings = outlook.config.stages[stage]
    if isinstance(settings, EvaluateSettings):
        for size in _halves(settings.batch_size):
            yield _word("batch_size", "evaluate."), _setting(batch_size=size)
        return
    if not isinstance(settings, LearningSettings):
        return
    work = outlook.settings[stage].work
    if work is None:
        return
    unit = work.length * (2 if getattr(settings, "batch_pairs", None) else 1)
    for tokens in _halves(work.tokens):
        if tokens >= unit:
            yield _word("run.micro_batch_tokens"), _running(micro_batch_tokens=tokens)
    if not work.checkpointing:
        yield _word("train.gradient_checkpointing"), _training(gradient_checkpointing=True)
    if "8bit" not in work.optimizer:
        yield _word("train.optim"), _training(optim="adamw_bnb_8bit")
    kind = outlook.settings[stage].kind
    if kind in SHARED_KINDS and outlook.hardware.device == "cuda":
        run = outlook.config.run
        shards = not isinstance(settings, RewardedSettings)  # they generate, which takes a whole model
        if shards and run.processes > 1 and run.parallelism == "ddp":
            yield _word("run.parallelism"), _running(parallelism="fsdp2")
        processes = max(2, 2 * run.processes)
        while shards and processes <= MOST_PROCESSES:
            if _divides(settings, processes):
                yield _both, _running(processes=processes, parallelism="fsdp2")
            processes *= 2
    if kind != "base":
        for peft in ("lora", "qlora")[("full", "lora", "qlora").index(settings.peft) :]:
            yield _word("peft"), _adapting(peft)


def _divides(settings: StageSettings, processes: int) -> bool:
    """Whether processes can share a step alike: see `common.training.options.split_batch`."""
    rows = getattr(settings, "batch_pairs", None)
    if rows is None:
        rows = settings.batch_tokens // settings.sequence_length  # type: ignore[attr-defined] # of all that train
    return int(rows) % processes == 0


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _word(key: str, section: str | None = None) -> Words:
    """Return what says a key of a configuration, as the command line takes it."""

    def words(config: Config, stage: str) -> str:
        if key.startswith("run."):
            return f"{key}={getattr(config.run, key.removeprefix('run.'))}"
        settings: Any = config.stages[stage]
        name = key.removeprefix("train.")
        value = settings.train[name] if name != key else getattr(settings, name)
        return f"{section or f'{stage}.'}{key}={str(value).lower()}"

    return words


def _both(config: Config, stage: str) -> str:
    return f"run.processes={config.run.processes} run.parallelism={config.run.parallelism}"


def _running(**values: Any) -> Change:
    def change(config: Config, stage: str) -> Config:
        return config.model_copy(update={"run": config.run.model_copy(update=values)})

    return change


def _setting(**values: Any) -> Change:
    def change(config: Config, stage: str) -> Config:
        changed = config.stages[stage].model_copy(update=values)
        return config.model_copy(update={"stages": {**config.stages, stage: changed}})

    return change


def _training(**values: Any) -> Change:
    def change(config: Config, stage: str) -> Config | None:
        settings = config.stages[stage]
        assert isinstance(settings, LearningSettings)
        return _setting(train={**settings.train, **values})(config, stage)

    return change


def _adapting(peft: str) -> Change:
    """Return the change to an adapter, with the defaults that its settings fill in; sharing is as it was before."""

    def change(config: Config, stage: str) -> Config | None:
        settings = config.stages[stage]
        given: Mapping[str, Any] = settings.model_dump()
        changed = type(settings).model_validate({**given, "peft": peft})
        return config.model_copy(update={"stages": {**config.stages, stage: changed}})

    return change


def _smaller(outlook: Outlook, stage: str) -> str:
    """Return the word for the largest batch with which a stage surely fits, or nothing."""
    for words, change in _changes(outlook, stage):
        changed = change(outlook.config, stage)
        if changed is None or outlook.shape is None:
            continue
        setting = outlook.settings[stage]
        fresh = setting_of(
            setting.kind, changed.stages[stage], changed, outlook.shape, setting.device, ["reward"] * setting.judges
        )
        if fresh is None:
            continue
        tried = replace(outlook, config=changed, settings={**outlook.settings, stage: fresh})
        if lacks(tried, stage, sure=False) is None:
            return words(changed, stage)
    return ""


def _check_disk(outlook: Outlook, stages: Sequence[str]) -> None:
    """Check that all results and the largest scratch of one stage have room where the run writes."""
    if not outlook.hardware.here or not stages:
        return
    needed = disk_needed(outlook, stages)
    disk = shutil.disk_usage(_existing(outlook.out))
    if needed > disk.free and disk.total:  # what is no disk has no size; writing there fails with its own message
        raise ConfigError(
            f"The run needs {_gib(needed)} of disk for its checkpoints, and {outlook.out} has {_gib(disk.free)}. Give a "
            "folder on a larger disk (out=<folder>), make room (`just gc`), or store bfloat16 (model.dtype=bfloat16)."
        )


def disk_needed(outlook: Outlook, stages: Sequence[str]) -> float:
    """Return the bytes of all results, and of the largest scratch."""
    sizes = [outlook.disk(stage) for stage in stages]
    return sum(kept for kept, _ in sizes) + max((scratch for _, scratch in sizes), default=0.0)


def _existing(path: Path) -> Path:
    """Return the nearest folder above that is there."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.is_dir())
