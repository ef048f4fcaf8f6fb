"""What is part of a stage's identity, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.engine.fingerprint import recipe_of
from common.engine.plan import open_corpus
from common.store.artifacts import fingerprint_of
from tests.conftest import REPOSITORY


def fingerprint(**words: str) -> str:
    """Return the fingerprint of a medical base with further words, such as base__tokens."""
    resolved = resolve({"domain": "medical", **{k.replace("__", "."): v for k, v in words.items()}}, REPOSITORY)
    return fingerprint_of(recipe_of(resolved.nodes[0], resolved.config, open_corpus(resolved), {}, REPOSITORY))


@pytest.mark.parametrize(
    ("option", "value", "changes"),
    [
        ("dataloader_drop_last", "true", True),  # leaves rows out
        ("dataloader_in_order", "false", True),
        ("logging_nan_inf_filter", "false", True),  # what the loss guard sees
        ("learning_rate", "1.0e-5", True),
        ("dataloader_pin_memory", "false", False),
        ("dataloader_prefetch_factor", "4", False),
        ("logging_steps", "7", False),
        ("log_level", "error", False),
    ],
)
def test_an_option_of_the_trainer_is_identity_unless_it_only_logs_or_loads(
    option: str, value: str, changes: bool
) -> None:
    assert (fingerprint(**{f"base__train__{option}": value}) != fingerprint()) is changes
