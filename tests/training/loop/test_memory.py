"""Memory that runs out: the error names the phase and the setting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.config.resolve import resolve
from common.errors import ResourceError
from common.training.loop import memory
from tests.conftest import REPOSITORY

TOO_MUCH = 2**60  # elements: more than any machine has


def context_of(stage: str, **words: str) -> Any:
    resolved = resolve({"domain": "medical", **words}, REPOSITORY)
    kind = next(node.kind for node in resolved.nodes if node.name == stage)
    settings = resolved.config.stages[stage]
    return SimpleNamespace(stage=stage, kind=kind, settings=settings, config=resolved.config, inputs={}, parent=None)


@pytest.mark.parametrize(
    ("stage", "phase", "words", "expected"),
    [
        (
            "cpt", memory.TRAINING, {},
            r"Stage cpt ran out of memory on this machine while training \(.+; 0\.\d GiB were expected\). Set "
            r"run.micro_batch_tokens=256 \(now 512\) or cpt.train.gradient_checkpointing=true or cpt.peft=lora, which "
            r"changes the result. The same",
        ),
        (
            "dpo", memory.TRAINING, {"run.micro_batch_tokens": "600", "dpo.train.gradient_checkpointing": "true"},
            r"Set run.micro_batch_tokens=300 \(now 600\) or dpo.peft=lora",
        ),
        (  # each of four processes reads a pair at a time already
            "dpo", memory.TRAINING, {"dpo.batch_pairs": "4", "run.processes": "4"},
            r"\)\. Set dpo.train.gradient_checkpointing=true or dpo.peft=lora",
        ),
        (
            "cpt-added", memory.TRAINING, {"pipeline": "growth", "cpt-added.train.gradient_checkpointing": "true"},
            r"\)\. Set run.micro_batch_tokens=\d+ \(now \d+\) or run.keep_frozen=false\. The same",
        ),
        (
            "cpt", memory.TRAINING, {"cpt.methods.unit_rates": "true"},
            r"or cpt.train.gradient_checkpointing=true\. The same",
        ),
        ("exam-sft", memory.EVALUATING, {}, r"while evaluating .+ expected at most\). Set evaluate.batch_size=32\."),
        (
            "sft", memory.SAVING, {},
            r"while saving and checking \(.+; \d\.\d GiB were expected\). Use a machine with more memory\.",
        ),
    ],
)  # fmt: skip
def test_what_to_change_is_said(stage: str, phase: str, words: dict[str, str], expected: str) -> None:
    context = context_of(stage, **words)
    with pytest.raises(ResourceError, match=expected), memory.explain_errors(context), memory.phase(phase):
        torch.empty(TOO_MUCH)


def test_sampling_is_told_apart_from_training() -> None:
    context = context_of("sample", pipeline="on-policy")
    expected = r"while sampling .+ Set sample.generated_tokens=32768\."
    with pytest.raises(ResourceError, match=expected), memory.explain_errors(context), memory.phase(memory.SAMPLING):
        torch.empty(TOO_MUCH)


def test_the_gpu_s_own_error_counts_and_others_pass() -> None:
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert memory.is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert memory.is_out_of_memory(
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    )
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape"), memory.explain_errors(context_of("sft")):
        raise RuntimeError("shape mismatch")
