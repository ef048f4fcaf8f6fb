"""Runs of checkpoints whose facts are written here, as profiles write theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.config.resolve import Resolved, resolve
from common.cost import hardware
from common.cost.outlook import Outlook
from tests.conftest import REPOSITORY

FACTS = {
    "qwen3-0.6b": {
        "model_type": "qwen3", "parameters": 596_049_920, "vocab_size": 151_936, "hidden_size": 1024,
        "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "tie_word_embeddings": True, "max_position_embeddings": 40_960,
    },
    "llama-8b": {
        "model_type": "llama", "parameters": 8_030_261_248, "vocab_size": 128_256, "hidden_size": 4096,
        "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "tie_word_embeddings": False, "max_position_embeddings": 131_072,
    },
}  # fmt: skip
LONG = {
    f"{stage}.{key}": value
    for stage in ("cpt", "sft")
    for key, value in {
        "sequence_length": "4096", "batch_tokens": "65536", "tokens": "1000000",
        "train.gradient_checkpointing": "true", "adapter.lora.modules_to_save": "null",
    }.items()
}  # fmt: skip


def run_of(model: str, gpu: str, **words: str) -> Resolved:
    """Return a run of a checkpoint of which the facts alone are known, in rows of 4,096 tokens."""
    facts = json.dumps({**FACTS[model], "licence": "mit", "chat_template": "own"})
    given = {"model.path": "owner/name", "model.revision": "0" * 40, "model.facts": facts, "run.hardware": gpu}
    return resolve({"domain": "medical", "pipeline": "full", **given, **LONG, **words}, REPOSITORY)


def outlook_of(model: str, gpu: str, **words: str) -> Outlook:
    return Outlook.of(run_of(model, gpu, **words))


@pytest.fixture(autouse=True)
def _a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no GPU of the machine that tests decide what is planned for."""
    found: Any = lambda: None  # noqa: E731 # a stand-in for a cached function
    monkeypatch.setattr(hardware, "gpu_here", found)
