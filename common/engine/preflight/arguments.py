"""Whether TRL's config classes take the values of some stages, before the first of them begins.

Usage: `check_arguments(config, nodes)`, once libraries are prepared. Names and types are `common.config.trl_options`;
what else a class refuses (two precisions at once, a device that lacks one, numbers that do not divide) only it can say.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.config.kinds import kind_of
from common.config.pipeline import Node
from common.config.schema import Config
from common.config.stages import LearningSettings, PreferenceSettings, RewardedSettings, TrainingSettings
from common.config.trl_options import CLASSES
from common.engine.preflight.backends import learning
from common.errors import ConfigError, first_line
from common.models.device import device_of
from common.training.distributed import ranks
from common.training.options import preference_options, rewarded_options, sft_options


def check_arguments(config: Config, nodes: Iterable[Node]) -> None:
    """Build the arguments of every stage that trains. Raises ConfigError for the first that its class refuses.

    Only a process that trains by itself does: building them takes hold of a GPU, and meets the other processes.
    """
    if ranks.size() > 1 or (config.run.processes > 1 and device_of(config.run) == "cuda"):
        return
    kinds = {node.name: node.kind for node in nodes}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in learning(config, kinds):
            try:
                _class_of(settings)(**_options(name, kinds[name], settings, config, Path(folder)))
            except (TypeError, ValueError, ImportError) as error:
                raise ConfigError(f"{name}.train: TRL refuses these options: {first_line(error)}") from error


def _class_of(settings: LearningSettings) -> Any:
    package, path, name = CLASSES[settings.trainer][-1]
    return getattr(importlib.import_module(f"{package}.{path.removesuffix('.py').replace('/', '.')}"), name)


def _options(name: str, kind: str, settings: LearningSettings, config: Config, folder: Path) -> dict[str, Any]:
    """Return the options that a stage gives its class. The numbers of steps and pairs are not known yet."""
    defaults = kind_of(kind).defaults
    if isinstance(settings, TrainingSettings):
        return {**defaults, **sft_options(settings, config, folder, steps=100, stage=name)}
    if isinstance(settings, PreferenceSettings):
        return {**defaults, **preference_options(settings, config, folder, num_pairs=1000, stage=name)}
    assert isinstance(settings, RewardedSettings), f"a stage of kind {kind} has no trainer"
    return {**defaults, **rewarded_options(settings, config, folder, stage=name)}
