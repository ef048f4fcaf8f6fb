"""What each switch for speed gains: our CPT as shipped, and with one setting changed, in turns on the same rows.

None of these changes what is learned, up to rounding. The time that torch takes to compile is left out.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import tempfile
from pathlib import Path

from tests.bench.material import models_here
from tests.bench.training import Case, our_tokens
from tests.bench.turns import alone, in_turns, ratio

STEPS, WARMUP = 60, 8
SHIPPED = "as shipped"
STAGE = "cpt"
SWITCHES = {
    "run.attention=sdpa": ("run.attention", "sdpa"),
    "run.attention=sdpa_float32": ("run.attention", "sdpa_float32"),
    "run.keep_heap=false": ("run.keep_heap", "false"),
    "run.token_metrics=true": ("run.token_metrics", "true"),
    "run.compile=layers": ("run.compile", "layers"),
    "run.workers=2": ("run.workers", "2"),
    "cpt.train.optim=adamw_torch": (f"{STAGE}.train.optim", "adamw_torch"),
    "cpt.precision=float32": (f"{STAGE}.precision", "float32"),
    "cpt.train.gradient_checkpointing=true": (f"{STAGE}.train.gradient_checkpointing", "true"),
}
ON_GPU = {"cpt.train.tf32=true": (f"{STAGE}.train.tf32", "true")}
LIGER = {"cpt.train.use_liger_kernel=true": (f"{STAGE}.train.use_liger_kernel", "true")}


def main() -> None:
    device, models = models_here()
    switches = {**SWITCHES, **(ON_GPU if device == "cuda" else {})}
    if device == "cuda" and importlib.util.find_spec("liger_kernel") is not None:
        switches |= LIGER
    with tempfile.TemporaryDirectory() as folder:
        cases = {SHIPPED: (), **{name: (setting,) for name, setting in switches.items()}}
        loops = {
            name: functools.partial(our_tokens, Case(models[0], STAGE, Path(folder), WARMUP + STEPS, settings))
            for name, settings in cases.items()
        }
        seconds = (in_turns if device == "cpu" else alone)(loops, warmup=WARMUP)
    for name in loops:
        middle = statistics.median(seconds[name])
        print(
            f"  {models[0]} {STAGE}  {name:<38} {1000 * middle:7.1f} ms a step  {ratio(seconds, SHIPPED, name):5.2f} x"
        )
