"""A plan's costs as text: memory of a stage's phases in a cell, times, and the totals below the table.

Usage: `memory_of(outlook, "cpt")`; `for line in totals(plan): print(line)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.config.schema import ModelSettings
from common.cost.hardware import GIB
from common.cost.limits import disk_needed, needed_of, uncertain
from common.cost.outlook import Outlook
from common.models.facts import without_template

if TYPE_CHECKING:
    from common.engine.plan import Plan

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


def totals(made: Plan) -> list[str]:
    """Return the lines below a plan's table: time, disk, price, what it is estimated for, and what may not fit."""
    outlook, to_do = made.outlook, made.to_do
    names = [step.node.name for step in to_do]
    tokens = sum(step.tokens or 0 for step in to_do)
    known = [step.seconds for step in to_do if step.seconds is not None]
    missing = len(to_do) - len(known)
    parts = [f"{len(to_do)} stages", f"{tokens:,} tokens"]
    if not missing:
        parts.append(f"about {duration(sum(known))}")
    elif outlook.unknown:
        parts.append("time unknown: this model has not run here (the domain's README.md estimates GPU hours)")
    else:
        parts.append(f"about {duration(sum(known))} without those marked ?")
    if not outlook.unknown:
        parts.append(f"{disk_needed(outlook, names) / GIB:.1f} GiB of disk")
    price = outlook.price(sum(known))
    if price is not None and not outlook.unknown:
        parts.append(f"{'at least ' if missing else 'about '}{price:,.2f} for GPUs")
    return [", ".join(parts), *_basis(outlook), *_template(outlook.config.model), *uncertain(outlook, names)]


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
    if hardware.here and hardware.device == "cpu" and run.processes == 1:
        return []
    shared = f"{run.processes} x " if run.processes > 1 else ""
    held = f", {run.parallelism}" if run.processes > 1 else ""
    because = f" ({hardware.assumed}; run.hardware names another)" if hardware.assumed else ""
    return [f"Memory in GiB, of each {shared}{hardware.name}{held}; `host` is main memory of a machine{because}."]
