"""In which precision a stage trains: the one that was set, or what the device that a run is planned for computes in.

Usage: `precision, because = native(run, needs)`; `values = with_precision(values, below, "cpt", "command line")`.

It is decided here once, while the layers are put together: a resolved stage names its precision, and everything else
reads it there. Weights and optimizer are in float32 whatever it is; matrix products are what it says (autocast).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from common.config.base import SPELLINGS, Precision
from common.errors import ConfigError
from common.machine import BFLOAT16_KINDS, Card, cards, cpu_kind, visible

AUTO = "auto"
FLAGS: dict[str, Precision] = {"bf16": "bfloat16", "fp16": "float16"}  # options of TRL's classes
SINCE = 8.0  # compute capability of the first GPUs with bfloat16 (Ampere)
WITHOUT_BFLOAT16 = ("t4", "v100-16gb", "v100-32gb")  # of the GPUs in `common.cost.hardware`


def native(run: Mapping[str, Any], needs: Mapping[str, Any]) -> tuple[Precision, str]:
    """Return the precision that a run's device computes fastest without losing range, and why, in a few words.

    `run` and `needs` are sections as they are written. Without torch, so that planning needs none.
    """
    device, named = run.get("device", AUTO), run.get("hardware")
    if named is not None:
        return _of_name(str(named).lower())
    if device != "cpu":
        asked = run.get("processes", 1)
        used = asked if isinstance(asked, int) and asked > 0 else 1  # another value is refused with its section
        gpus = visible(cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))[:used]
        old = [gpu for gpu in gpus if is_older(gpu)]
        if old:
            return "float16", f"{old[0].name} has no bfloat16"
        if gpus:
            return "bfloat16", "as this GPU computes"
        if device == "cuda" or needs.get("device") == "cuda":
            return "bfloat16", "as the GPU computes that is planned for"
    if cpu_kind() in BFLOAT16_KINDS:
        return "bfloat16", "as this CPU computes"
    return "float32", "this CPU has no bfloat16"


def is_older(gpu: Card) -> bool:
    """Whether a GPU is known to have no bfloat16."""
    return gpu.capability is not None and gpu.capability < SINCE


def _of_name(name: str) -> tuple[Precision, str]:
    """Return the same for a machine of the table, such as `t4`, `cpu-8` or `cpu-amx-8`."""
    kind = name.removeprefix("cpu-").rpartition("-")[0]
    if name.startswith("cpu-") and kind not in BFLOAT16_KINDS:
        return "float32", f"{name} has no bfloat16"
    return ("float16", f"{name} has no bfloat16") if name in WITHOUT_BFLOAT16 else ("bfloat16", f"as {name} computes")


def with_precision(values: Mapping[str, Any], below: str | None, stage: str, label: str) -> Mapping[str, Any]:
    """Return a stage's values of one layer with what `train.bf16` and `train.fp16` say as its `precision`.

    `below` is what lower layers say. True is that precision; false takes it away, which leaves float32. Raises
    ConfigError where the layer contradicts itself.
    """
    if (spelled := str(values.get("precision"))) in SPELLINGS:
        values = {**values, "precision": SPELLINGS[spelled]}
    train = values.get("train")
    if not isinstance(train, Mapping) or not FLAGS.keys() & train.keys():
        return values
    said = {name: train[name] for name in FLAGS if train.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{stage}.train.{name} ({label}): expected true or false, got {value!r}.")
    chosen = [FLAGS[name] for name, value in said.items() if value]
    if len(chosen) > 1:
        raise ConfigError(
            f"{stage}.train.fp16=true and {stage}.train.bf16=true exclude each other. Set one of them to false."
        )
    others = {key: value for key, value in values.items() if key != "train"}
    others["train"] = {name: value for name, value in train.items() if name not in FLAGS}
    taken = [FLAGS[name] for name in said]
    if not chosen and ("bf16" in said or below in taken):
        chosen = ["float16"] if below == "float16" and "float16" not in taken else ["float32"]
    if not chosen:
        return others
    asked = values.get("precision", AUTO)
    if asked not in (AUTO, chosen[0]):
        flags = " ".join(f"{stage}.train.{name}={str(value).lower()}" for name, value in said.items())
        raise ConfigError(f"{stage}.precision={asked} and {flags} ({label}) contradict each other. Leave out one.")
    return {**others, "precision": chosen[0]}
