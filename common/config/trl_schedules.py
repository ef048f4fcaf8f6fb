"""What the learning-rate options of a pasted TRL block are in a stage's `schedule`.

Usage: `kind_of_schedule(block, "lr_scheduler_type")`; rules of `common.config.trl_mappings`.

The schedules are those of transformers (`optimization.py`), which `common.training.options` makes from a `schedule`.
Those that fall in another shape than ours are refused: a shape that is nearly the same is not the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.json import parse_json
from common.config.trl_block import TrlBlock

TYPE, KWARGS = "lr_scheduler_type", "lr_scheduler_kwargs"
FALLING = {"cosine": "cosine", "linear": "linear", "cosine_with_min_lr": "cosine"}
CONSTANT = ("constant", "constant_with_warmup")
STABLE = "warmup_stable_decay"
OURS = "schedule.kind is one of cosine, linear, wsd, constant"


def kind_of_schedule(block: TrlBlock, name: str) -> None:
    """Set kind, floor and decay of the schedule, with what `lr_scheduler_kwargs` says."""
    kind = block.value(TYPE)
    if kind is None:
        return
    options = _options(block)
    if kind in FALLING:
        block.set("schedule.kind", FALLING[kind], TYPE, KWARGS)
        block.set("schedule.floor", _floor(block, kind, options), TYPE, KWARGS)
    elif kind in CONSTANT:
        block.set("schedule.kind", "constant", TYPE)
        if kind == "constant":
            block.set("schedule.warmup", 0.0, TYPE)  # transformers warms up for none, whatever else is said
    elif kind == STABLE:
        _stable(block, options)
    else:
        raise block.refused(TYPE, f"is {kind}, which no schedule here is; {OURS}.")
    if options:
        raise block.refused(KWARGS, f"has {', '.join(options)}, which {{stage}}.schedule cannot do; {OURS}.")


def scheduler_options(block: TrlBlock, name: str) -> None:
    """Options without a type of their own: for the schedule that lower layers ask for, in our words only."""
    if block.value(TYPE) is None and block.value(KWARGS):
        raise block.refused(name, f"is given without {TYPE}; set {{stage}}.schedule instead.")


def warmup(block: TrlBlock, name: str) -> None:
    """`warmup_steps`, a number or below one a share, and else `warmup_ratio`."""
    if block.value(TYPE) == "constant":
        block.tell("no effect (a constant rate has no warm-up; constant_with_warmup has)", name)
        return
    steps = block.value("warmup_steps")
    if name == "warmup_ratio" and steps:
        block.tell(f"no effect (warmup_steps={steps} counts)", name)
        return
    value = block.value(name)
    if value is None or (name == "warmup_steps" and not steps and block.value("warmup_ratio")):
        return
    block.set("schedule.warmup", float(value), name, because=" steps" if value >= 1 else "")


def _options(block: TrlBlock) -> dict[str, Any]:
    """Return the options of the schedule, also where they are JSON as on a command line. Raises ConfigError."""
    given = block.value(KWARGS) or {}
    if isinstance(given, str):
        try:
            given = parse_json(given)
        except ValueError:
            given = None
    if not isinstance(given, Mapping):
        raise block.refused(KWARGS, f"is {block.value(KWARGS)!r}; expected keys, such as min_lr_rate: 0.1.")
    return {str(key): value for key, value in given.items() if value is not None}


def _floor(block: TrlBlock, kind: str, options: dict[str, Any]) -> float:
    """Return the lowest rate as a share of the peak; takes what says so out of the options."""
    if options.get("num_cycles") == 0.5:
        del options["num_cycles"]  # half a period, from peak to floor, as everywhere
    if kind != "cosine_with_min_lr":
        return 0.0
    share, lowest = options.pop("min_lr_rate", None), options.pop("min_lr", None)
    if (share is None) == (lowest is None):
        raise block.refused(TYPE, "needs one of min_lr_rate and min_lr in lr_scheduler_kwargs.")
    if share is not None:
        return float(share)
    peak = block.now("train").get("learning_rate")
    if not peak or not isinstance(lowest, int | float):
        raise block.refused(KWARGS, f"has min_lr={lowest}; a share of the peak is needed: min_lr_rate.")
    return float(f"{lowest / peak:.10g}")


def _stable(block: TrlBlock, options: dict[str, Any]) -> None:
    """`warmup_stable_decay`: ours decays as 1-sqrt, and its lengths are shares of the steps."""
    shape, rise = options.pop("decay_type", "cosine"), options.pop("warmup_type", "linear")
    if (shape, rise) != ("1-sqrt", "linear"):
        raise block.refused(
            TYPE, f"is {STABLE} with decay_type={shape} and warmup_type={rise}; wsd here rises linearly and falls as "
            "1-sqrt. Say decay_type: 1-sqrt, or set {stage}.schedule.kind=wsd.",
        )  # fmt: skip
    block.set("schedule.kind", "wsd", TYPE, KWARGS)
    block.set("schedule.floor", float(options.pop("min_lr_ratio", 0.0)), TYPE, KWARGS)
    decay, steps = options.pop("num_decay_steps", None), block.value("max_steps", 0)
    options.pop("num_stable_steps", None)  # what is left between warm-up and decay
    if decay is None:
        return
    if steps <= 0:
        raise block.refused(
            KWARGS, f"has num_decay_steps={decay}, and nothing says of how many steps: set {{stage}}.schedule.decay to "
            "their share of all steps.",
        )  # fmt: skip
    block.set("schedule.decay", decay / steps, TYPE, KWARGS)
