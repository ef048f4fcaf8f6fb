"""What mergekit still does that `common.training.mergekit_patches` changes. A test that fails: remove the patch."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest

from common.training.mergekit_patches import fresh_loaders, quiet_mergekit

pytestmark = pytest.mark.slow

GONE = "the library no longer does this: remove the patch"


def test_mergekit_logs_through_the_root_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    import mergekit.plan

    assert "logging.info(" in inspect.getsource(mergekit.plan), GONE
    with quiet_mergekit():
        assert not logging.getLogger().isEnabledFor(logging.INFO)
    monkeypatch.setattr(logging.getLogger("mergekit"), "level", logging.NOTSET)  # another test may have set it
    assert logging.getLogger("mergekit").isEnabledFor(logging.WARNING)


def test_mergekit_keeps_open_what_it_has_read(tmp_path: Path) -> None:
    from mergekit.common import ModelPath, ModelReference
    from mergekit.io.tasks import LoaderCache
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    reference = ModelReference(model=ModelPath(path=str(tmp_path)))
    with fresh_loaders():
        assert LoaderCache().get(reference) is LoaderCache().get(reference), GONE
    assert not LoaderCache.loaders
