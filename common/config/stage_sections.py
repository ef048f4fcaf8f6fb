"""What each layer says of one stage: run-wide, by kind, by name, and what holds only with an adapter.

Usage: `for values in values_of(node, layer, adapted=is_adapted(node, layers)): ...`, as `common.config.build` does.

It neither reads files nor validates values; of the blocks whose keys belong to a library's class it checks the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from common.config.base import PRECISIONS, SPELLINGS, Peft, StageSettings
from common.config.folders import is_path
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.trl_options import (
    check_installed,
    check_lora_options,
    check_quantization_options,
    check_train_options,
    package_of,
)
from common.errors import ConfigError, did_you_mean

RUN_WIDE = {"peft": get_args(Peft), "precision": PRECISIONS}  # settings that hold for every stage
ADAPTER = "adapter"  # in a stage's section: what holds only where it trains an adapter


@dataclass(frozen=True)
class Layer:
    """One source of settings: where it comes from, and its nested keys."""

    label: str
    values: Mapping[str, Any]
    profile: str = ""  # that it is made for, and so for the model of it
    stage: str = ""  # that it is made for alone, whatever other stages take its settings


def label_of(key: str, origins: Mapping[str, str]) -> str:
    """Return the layer that set a key, with its file where the label does not say it; "" where none did."""
    label = origins.get(key, "")
    if not label.startswith("domain "):
        return label
    domain = label.removeprefix("domain ").partition(",")[0]
    return f"{label}; {domain if is_path(domain) else f'domains/{domain}'}/stages.yaml"


def section_names(node: Node) -> list[str]:
    """Return the sections that hold for a stage, the most particular last."""
    kind = [node.kind] if kind_of(node.kind).settings.by_kind else []
    return list(dict.fromkeys([*kind, node.settings, node.name]))


def values_of(node: Node, layer: Layer, *, adapted: bool) -> Iterator[Mapping[str, Any]]:
    """Yield what a layer says of a stage, the most particular last.

    A run-wide `precision` holds for every stage that trains, a run-wide `peft` for every one that can train an adapter.
    In each section, the block `adapter` holds for stages that do: their rates and sizes are not those of full
    fine-tuning.
    """
    if layer.stage not in ("", node.name):
        return
    settings = kind_of(node.kind).settings
    can = settings.adapts
    for name, holds in (("precision", bool(settings.trainer)), ("peft", can)):
        if holds and name in layer.values:
            value, choices = layer.values[name], RUN_WIDE[name]
            if name == "precision":
                value = SPELLINGS.get(str(value), value)
            if value not in choices:
                *most, last = choices
                near = did_you_mean(str(value), choices)
                hint = "" if near.startswith(" Known") else near  # they are listed already
                expected = f"{', '.join(most)} or {last}"
                raise ConfigError(f"{name} ({layer.label}): expected {expected}; got {value!r}.{hint}")
            yield {name: value}
    for key in section_names(node):
        values = layer.values.get(key, {})
        if can and ADAPTER in values:
            block = values[ADAPTER]
            if not isinstance(block, Mapping):
                raise ConfigError(f"{key}.{ADAPTER} ({layer.label}): expected keys below it, got {block!r}.")
            yield {name: value for name, value in values.items() if name != ADAPTER}
            if adapted:
                yield block
        elif values:
            yield values


def adapters_alone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the blocks `adapter` of a layer's sections, without what else the sections hold."""
    sections = {key: section for key, section in values.items() if isinstance(section, Mapping)}
    return {key: {ADAPTER: section[ADAPTER]} for key, section in sections.items() if ADAPTER in section}


def is_adapted(node: Node, layers: Sequence[Layer]) -> bool:
    """Whether the last layer that says so lets a stage train an adapter."""
    choices = [
        values["peft"] for layer in layers for values in values_of(node, layer, adapted=False) if "peft" in values
    ]
    return bool(choices) and choices[-1] != "full"


def check_options(settings: StageSettings, node: Node, origin: Callable[[str], str]) -> None:
    """Check the blocks whose keys are those of a library's class. Raises ConfigError.

    `origin` gives the layer that set a key.
    """
    train = getattr(settings, "train", {})
    if settings.trainer:
        check_train_options(settings.trainer, train, stage=node.name, origin=origin)
    if (lora := getattr(settings, "lora", None)) is not None:
        check_lora_options(lora, stage=node.name, origin=origin)
    if (quantization := getattr(settings, "quantization", None)) is not None:
        check_quantization_options(quantization, stage=node.name, origin=origin)
        check_installed(f"{node.name}.peft=qlora")
    optimizer = str(train.get("optim", ""))
    if package := package_of(optimizer):
        check_installed(f"{node.name}.train.optim={optimizer}", package)
