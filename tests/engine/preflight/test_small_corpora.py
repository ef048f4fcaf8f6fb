"""A large model on little text is warned of, and nobody else."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.resolve import resolve
from common.data.sizes import RowSizes
from common.engine.preflight.small_corpora import small_corpora
from tests.conftest import REPOSITORY

FACTS = {
    "model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
    "tie_word_embeddings": False, "max_position_embeddings": 4096, "licence": "mit", "chat_template": "own",
}  # fmt: skip


class Sized:
    def __init__(self, size: float | None) -> None:
        self.size = size

    def of(self, role: str) -> Any:
        return None if self.size is None else SimpleNamespace(rows=self.size / 1000, mean_bytes=1000.0)


@pytest.mark.parametrize(
    ("parameters", "size", "warned"),
    [
        (6_738_415_616, 40e6, True),  # Llama-2-7B
        (6_738_415_616, 200e6, False),
        (6_738_415_616, None, False),  # on the Hub
        (1_100_048_384, 40e6, False),
    ],
)
def test_less_than_100_mb_for_7_billion_parameters(parameters: int, size: float | None, warned: bool) -> None:
    given = {"model.path": "owner/name", "model.revision": "0" * 40}
    given["model.facts"] = json.dumps({**FACTS, "parameters": parameters})
    run = resolve({"domain": "medical", "pipeline": "full", **given}, REPOSITORY)
    found = list(small_corpora(run, run.nodes, cast(RowSizes, Sized(size))))
    assert [line.partition(":")[0] for line in found] == (["cpt"] if warned else [])
    assert not warned or "40.0 MB of domain text for a model of 6.7 billion parameters" in found[0]
