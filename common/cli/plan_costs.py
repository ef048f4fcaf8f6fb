"""A plan's costs as text: memory of a stage's phases in a cell, times, and the totals below the table.

Usage: `memory_of(outlook, "cpt")`; `for line in totals(plan): print(line)`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.config.answering import LabelSettings
from common.config.kinds import kind_of
from common.config.schema import ModelSettings
from common.config.stages import EvaluateSettings
from common.cost.hardware import GIB
from common.cost.limits import disk_needed, needed_of, uncertain
from common.cost.outlook import Outlook
from common.engine.fingerprint import task_folders
from common.evaluation.hub_tasks import hub_tasks
from common.machine import unused_gpu
from common.models.facts import whole_of, without_template

if TYPE_CHECKING:
    from common.engine.plan import Plan, Step

MAIN = ("save", "merge")  # phases that are in main memory, wherever a run trains
UNSURE = 0.25  # share that rows decide, from which on a figure is shown as a bound


def memory_of(outlook: Outlook, stage: str) -> str:
    """Return the peaks of a stage's phases in GiB, such as `train 18.3, save 33.1 host`; empty where nothing is known.

    On a GPU a phase counts what a process needs there, and `host` is main memory, of all of a machine's processes
    together: where results are saved and merged, or where an exam puts weights that a GPU has no room for. On a CPU
    everything is. `<` stands where the longest rows are taken, and rows decide much.
    """
    cells = []
    for name, need in outlook.phases(stage).items():
        most = "<" if need.device_total - need.device_sure > UNSURE * need.device_total and name not in MAIN else ""
        device, host = (size / GIB for size in needed_of(outlook, name, need))
        if outlook.hardware.device == "cpu":
            cells.append(f"{name} {most}{host:.1f}")
        elif name in MAIN:
            cells.append(f"{name} {host:.1f} host")
        else:
            weights = f" and {host:.1f} host" if GIB * device < need.device_total else ""
            cells.append(f"{name} {most}{device:.1f}{weights}")
    return ", ".join(cells)


def shortly(seconds: float) -> str:
    """Return a time for a cell."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def tokens_of(step: Step) -> str:
    """Return the tokens of a stage for a cell: a budget as it is, what follows from the lengths of rows as `~1.2M`."""
    if step.tokens is None:
        return "?" if kind_of(step.node.kind).roles and kind_of(step.node.kind).makes_model else ""
    return "" if not step.tokens else rounded(step.tokens) if step.counted else f"{step.tokens:,}"


def rounded(number: float) -> str:
    """Return a number that is about right, such as `~12k` or `~1.2M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"~{number / size:.{1 if number < 10 * size else 0}f}{unit}"
    return f"~{number:.0f}"


@dataclass(frozen=True)
class Total:
    """What the stages of some runs need together; amounts that nobody knows are left out, and `unknown` counts them."""

    stages: int = 0
    tokens: int = 0
    counted: bool = False  # some tokens follow from the lengths of rows
    seconds: float = 0.0
    unknown: int = 0  # stages without a time
    disk: float | None = 0.0  # bytes; None where nothing is known of a model
    price: float | None = None

    @classmethod
    def of(cls, made: Plan, shared: set[str] | None = None) -> Total:
        """Return what a run needs. With `shared` stages whose fingerprints are among them are left out, and added."""
        outlook, to_do = made.outlook, made.to_do
        if shared is not None:
            to_do = [step for step in to_do if step.fingerprint is None or step.fingerprint not in shared]
            shared.update(step.fingerprint for step in to_do if step.fingerprint is not None)
        seconds = [step.seconds for step in to_do if step.seconds is not None]
        disk = None if outlook.unknown else disk_needed(outlook, [step.node.name for step in to_do])
        return cls(
            len(to_do), sum(step.tokens or 0 for step in to_do), any(step.counted for step in to_do), sum(seconds),
            len(to_do) - len(seconds), disk, None if outlook.unknown else outlook.price(sum(seconds)),
        )  # fmt: skip

    def __add__(self, other: Total) -> Total:
        disk = None if self.disk is None or other.disk is None else self.disk + other.disk
        prices = [price for price in (self.price, other.price) if price is not None]
        return Total(
            self.stages + other.stages, self.tokens + other.tokens, self.counted or other.counted,
            self.seconds + other.seconds, self.unknown + other.unknown, disk, sum(prices) if prices else None,
        )  # fmt: skip

    @property
    def tokens_shown(self) -> str:
        return rounded(self.tokens) if self.counted and self.tokens else f"{self.tokens:,}"


def totals(made: Plan) -> list[str]:
    """Return the lines below a plan's table: time, disk, price, what it is estimated for, and what may not fit."""
    outlook, total = made.outlook, Total.of(made)
    parts = [f"{total.stages} stages", f"{total.tokens_shown} tokens"]
    if not total.unknown:
        parts.append(f"about {duration(total.seconds)}")
    elif outlook.unknown:
        parts.append("time unknown: this model has not run here (the domain's README.md estimates GPU hours)")
    else:
        parts.append(f"about {duration(total.seconds)} without those marked ?")
    if total.disk is not None:
        parts.append(f"{total.disk / GIB:.1f} GiB of disk")
    if total.price is not None:
        parts.append(f"{'at least ' if total.unknown else 'about '}{total.price:,.2f} for GPUs")
    names = [step.node.name for step in made.to_do]
    return [
        ", ".join(parts),
        *_rows(outlook, names),
        *_basis(outlook),
        *_part(outlook.config.model),
        *_template(outlook.config.model),
        *uncertain(outlook, names),
    ]


def _rows(outlook: Outlook, names: Sequence[str]) -> list[str]:
    """Return lines that say what was not counted: rows read in part or not on this machine, and benchmarks."""
    lines = []
    if outlook.sizes is not None and (roles := outlook.sizes.sampled()):
        lines.append(f"Rows for {', '.join(roles)} are counted by a sample, as there are many.")
    assumed = [name for name in names if name in outlook.settings and outlook.settings[name].exam.assumed]
    for name in assumed:
        settings, work = outlook.config.stages[name], outlook.settings[name].exam
        if not isinstance(settings, LabelSettings):
            line = f"Exams on the Hub are not counted: {work.questions:,.0f} questions each are assumed."
        elif settings.words:
            line = f"Prompts of {name} on the Hub are not counted: {work.questions:,.0f} are assumed."
        else:
            each, prompts = work.requests / max(1, work.questions), work.questions
            line = f"Stage {name} finds its labels in its prompts: {each:,.0f} for each of {prompts:,.0f} are assumed."
        lines += [line] if line not in lines else []
    stages = [outlook.config.stages[name] for name in names]
    asked = [task for settings in stages if isinstance(settings, EvaluateSettings) for task in settings.tasks]
    if number := len(hub_tasks(asked, task_folders(outlook.resolved))):
        tasks = f"{number} benchmark task{'s' if number > 1 else ''}"
        lines.append(f"Exams also ask {tasks} of the Hub, which are not counted; evaluate.tasks=[] leaves them out.")
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
            lines.append(
                "HF_HUB_OFFLINE is set: a run on your own files goes without those whose data are not in the cache, "
                "unless you asked for them by name; others stop at once."
            )
    return lines


def _part(model: ModelSettings) -> list[str]:
    """Return a line for a checkpoint of which the language model alone is trained, as far as a plan can see."""
    kind = whole_of(model)
    return [f"The checkpoint reads more than text ({kind}): its language model alone is trained."] if kind else []


def _template(model: ModelSettings) -> list[str]:
    """Return a line for a model that brings no chat template, as far as a plan can see."""
    if model.path is None or model.chat_template != "own" or not without_template(model):
        return []
    return [
        "No chat template: the base stage gives the model chatml where its tokenizer has the tokens, else plain "
        "(model.chat_template)."
    ]


def _basis(outlook: Outlook) -> list[str]:
    """Return a line that names the machine of the figures, where that is not plain."""
    if outlook.unknown:
        return [f"Memory and disk are not estimated: nothing is known of {outlook.config.model.path} (model.facts)."]
    hardware, run = outlook.hardware, outlook.config.run
    idle = [line] if run.device != "cpu" and (line := unused_gpu()) else []
    if hardware.here and hardware.device == "cpu" and run.processes == 1:
        return idle
    shared = f"{run.processes} x " if run.processes > 1 else ""
    held = f", {run.parallelism}" if run.processes > 1 else ""
    because = f" ({hardware.assumed}; run.hardware names another)" if hardware.assumed else ""
    return [
        f"Memory in GiB, of each {shared}{hardware.name}{held}; `host` is main memory of a machine{because}.",
        *idle,
    ]
