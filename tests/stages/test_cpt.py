"""CPT that makes a model read longer rows: a plain checkpoint, whole or with an adapter, and what the card gets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import long
from tests.training.methods.conftest import Train, based, train

__all__ = ("based", "train")
pytestmark = pytest.mark.slow
LONGER = {"cpt.rope_theta": 500_000, "cpt.sequence_length": 2048, "cpt.batch_tokens": 2048}


@pytest.mark.parametrize("more", [{}, long({"cpt.peft": "lora"})])
def test_base_and_context_are_those_of_the_stage(more: dict[str, Any], train: Train) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = train(**LONGER, **more)
    loaded: Any = AutoModelForCausalLM.from_pretrained(made.path)
    assert loaded.config.rope_parameters == {"rope_theta": 500_000.0, "rope_type": "default"}
    assert loaded.config.max_position_embeddings == 2048
    assert AutoTokenizer.from_pretrained(made.path).model_max_length == 2048
    assert float(loaded.model.rotary_emb.inv_freq[1]) == pytest.approx(500_000 ** (-2 / loaded.config.head_dim))
    facts = made.manifest["metrics"]["rope"]
    assert facts == {
        "base_before": 10_000.0, "base": 500_000.0, "context_before": 1024, "context": 2048, "beyond": 0.0,
    }  # fmt: skip
