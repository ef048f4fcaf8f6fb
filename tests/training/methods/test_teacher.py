"""A teacher computes in the precision of the model that learns from it, and gives float32 logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.schema import Config
from common.training.methods.teacher import teacher_of


@pytest.mark.parametrize(("precision", "expected"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_a_teacher_computes_as_the_learner_does(
    precision: str, expected: torch.dtype, model: Any, tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    AcceleratorState._reset_state()
    context: Any = SimpleNamespace(config=config, parent_artifact=SimpleNamespace(path=tmp_path))
    try:
        accelerator = Accelerator(mixed_precision=precision, cpu=True)
        teacher = teacher_of(context, SimpleNamespace(accelerator=accelerator))
    finally:
        AcceleratorState._reset_state()
    seen = []
    teacher.model.layers[0].mlp.down_proj.register_forward_hook(lambda _, given, out: seen.append(out.dtype))
    logits_BTV = teacher(torch.tensor([[1, 2, 3]]), use_cache=False).logits
    assert seen == [expected]
    assert (logits_BTV.dtype, logits_BTV.requires_grad) == (torch.float32, False)
    assert not teacher.training
