"""CPT that makes a model read longer rows: a plain checkpoint, whole or with an adapter, and what the card gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import run_stage
from tests.conftest import REPOSITORY, long
from tests.training.methods.conftest import WORDS, based

__all__ = ("based",)
pytestmark = pytest.mark.slow
LONGER = {
    "pipeline": "cpt-only", "cpt.rope_theta": "500000", "cpt.sequence_length": "2048", "cpt.batch_tokens": "2048",
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, long({"cpt.peft": "lora"})])
def test_base_and_context_are_those_of_the_stage(more: dict[str, str], based: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(based, tmp_path / "store", symlinks=True)
    words = {key: value for key, value in WORDS.items() if not key.startswith(("sft.", "dpo."))}
    words |= LONGER | more | {"out": str(tmp_path / "store")}
    made = run_stage(resolve(words, REPOSITORY), "cpt", Console("quiet"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(made.path)
    assert loaded.config.rope_parameters == {"rope_theta": 500_000.0, "rope_type": "default"}
    assert loaded.config.max_position_embeddings == 2048
    assert AutoTokenizer.from_pretrained(made.path).model_max_length == 2048
    assert float(loaded.model.rotary_emb.inv_freq[1]) == pytest.approx(500_000 ** (-2 / loaded.config.head_dim))
    assert made.manifest["metrics"]["rope"] == {
        "base_before": 10_000.0, "base": 500_000.0, "context_before": 1024, "context": 2048, "beyond": 0.0,
    }  # fmt: skip
