"""Resolve runs with options of TRL pasted into one stage.

Usage: `settings_of(pasted("sft", "num_train_epochs: 3"), "sft")["epochs"]`.
"""

from __future__ import annotations

from typing import Any

import yaml

from common.config.overrides import flatten
from common.config.resolve import Resolved, resolve
from common.config.trl_block import told_lines
from tests.conftest import REPOSITORY


def run(**words: str) -> Resolved:
    return resolve({"domain": "medical", "pipeline": "full", **words}, REPOSITORY)


def pasted(stage: str, text: str, pipeline: str = "full", **words: str) -> Resolved:
    """Resolve a run with a block for one stage on the command line."""
    return run(**{"pipeline": pipeline, f"{stage}.train": yaml.safe_dump(yaml.safe_load(text)), **words})


def settings_of(found: Resolved, stage: str) -> dict[str, Any]:
    return flatten(found.config.stages[stage].model_dump(mode="json"))


def told(found: Resolved) -> str:
    return "\n".join(told_lines(found.origins))
