"""What a data manifest may set: what belongs to data, by a mark on the declared setting. All else is closed to it.

Usage: `check_manifest_settings(path, {"settings": {"cpt": {"tokens": 5}}}, pipeline)`, before it becomes a layer.

A manifest comes with data, from anyone. So it names no model, runs no code, writes nowhere and publishes nothing. What
is no setting at all is left to `common.config.build`, which knows the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common.config.base import OF_DATA, Frozen
from common.config.kinds import kind_of, kinds
from common.config.overrides import flatten
from common.config.pipeline import Pipeline
from common.config.schema import SCALARS, SECTIONS, section_of
from common.config.stage_sections import ADAPTER, section_names
from common.config.validation import report
from common.errors import ConfigError

# Options of a `train:` block that are a budget, a length, a rate, or which tokens of a row are learned.
TRAIN_OF_DATA = frozenset({
    "learning_rate", "weight_decay", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_ratio", "warmup_steps",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_length",
    "max_seq_length", "max_prompt_length", "max_completion_length", "num_generations", "packing",
    "assistant_only_loss", "completion_only_loss",
})  # fmt: skip
TASKS = "tasks"  # of an exam: they run code of the harness and ask the Hub, so a manifest may only leave them out
WHY = (
    "a manifest comes with data, so it sets what belongs to data alone: budgets, lengths, rates, replay, limits, "
    "rewards, the exam and model.vocabulary_size"
)


def check_manifest_settings(path: Path, blocks: Mapping[str, Any], pipeline: Pipeline) -> None:
    """Refuse what a manifest may not set. `blocks` is key in the file -> settings. Raises ConfigError."""
    closed = [(place, key) for place, values in blocks.items() for key in closed_keys(values, pipeline)]
    if not closed:
        return
    problems = [f"{place}.{key} is not for a data manifest" for place, key in closed]
    names = ", ".join(dict.fromkeys(f"{key}=…" for _, key in closed))
    where = f"Give {names} on the command line, or set it in a profile, a pipeline or the domain's stages.yaml."
    if len(problems) == 1:
        raise ConfigError(f"{path}: {problems[0]}: {WHY}. {where}")
    raise ConfigError(f"{report(path, problems)}\nFor {WHY}. {where}")


def closed_keys(values: Mapping[str, Any], pipeline: Pipeline) -> Iterator[str]:
    """Yield the keys of a manifest's settings that it may not set, with dots."""
    for name, section in values.items():
        if name in SCALARS:
            yield name
        elif isinstance(section, Mapping):
            for cls in _classes(name, pipeline):
                yield from (key for key in _closed(cls, section, name) if key != f"{name}.{TASKS}" or section[TASKS])


def _classes(name: str, pipeline: Pipeline) -> list[type[BaseModel]]:
    """Return the settings classes that a section is for; none where there is no such section."""
    if name in SECTIONS:
        return [section_of(name)]
    found = [kind_of(node.kind).settings for node in pipeline.nodes() if name in section_names(node)]
    return list(dict.fromkeys([*found, *([kinds()[name].settings] if name in kinds() else [])]))


def _closed(cls: type[BaseModel], values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        key, field = f"{prefix}.{name}", cls.model_fields.get(name)
        if name == ADAPTER and isinstance(value, Mapping):
            yield from _closed(cls, value, key)
        elif name == "train" and isinstance(value, Mapping):
            yield from (f"{key}.{option}" for option in value if option not in TRAIN_OF_DATA)
        elif field is None or OF_DATA in field.metadata:  # one that does not exist is refused with the nearest
            continue
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Frozen) and isinstance(value, Mapping):
            yield from _closed(field.annotation, value, key)
        else:
            yield from (f"{key}.{below}" if below else key for below in flatten(value))
