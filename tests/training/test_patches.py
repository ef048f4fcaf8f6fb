"""What pinned libraries do without our patches; a test that fails here means that its patch may go."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from common.training import patches


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))


def test_trl_shards_a_reference_as_one_unit() -> None:
    from trl.models.utils import prepare_fsdp
    from trl.trainer import dpo_trainer

    source = inspect.getsource(prepare_fsdp)
    assert source.count("fully_shard(") == 1  # the model alone, none of its layers
    assert "fsdp2_prepare_model" not in source
    with patches.shard_references_by_layer():
        assert dpo_trainer.prepare_fsdp is patches.shard_reference
    assert dpo_trainer.prepare_fsdp is prepare_fsdp


def test_trl_computes_padding_like_tokens(model: Any) -> None:
    from trl.trainer import dpo_trainer
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model)
    read = []
    model.model.embed_tokens.register_forward_hook(lambda module, given, found: read.append(given[0].numel()))
    ids = torch.arange(20).view(2, 10)
    mask = torch.ones_like(ids)
    mask[1, 2:] = 0
    model(input_ids=ids, attention_mask=mask, labels=ids.where(mask.bool(), -100), fused_lm_head=True)
    assert read == [ids.numel()]
    with patches.score_with(print):
        assert dpo_trainer.add_fused_lm_head is print
    assert dpo_trainer.add_fused_lm_head is add_fused_lm_head


def test_transformers_splits_a_batch_over_all_visible_gpus(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    arguments._n_gpu = 2  # as transformers sets it where a process sees two
    assert arguments.train_batch_size == 8
    assert patches.use_one_gpu(arguments).train_batch_size == 4


def test_accelerate_leaves_out_autocast_for_a_model_that_it_prepared_before(model: Any) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def has_autocast() -> bool:
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        prepared = accelerator.prepare_model(model)
        found = hasattr(prepared, "_original_forward")
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        return found

    try:
        assert has_autocast()
        assert not has_autocast(), "accelerate prepares it again by itself"
        patches.forget_prepared(model)
        assert has_autocast()
    finally:
        AcceleratorState._reset_state()


def test_accelerate_sums_and_rounds_in_the_narrow_type() -> None:
    from accelerate import FullyShardedDataParallelPlugin

    wide: Any = FullyShardedDataParallelPlugin(fsdp_version=2)
    patches.sum_in_float32(wide)
    assert wide.mixed_precision_policy is None  # all is float32 already
    plugin: Any = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("bf16")
    policy = plugin.mixed_precision_policy
    assert (policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.bfloat16)
    patches.sum_in_float32(plugin)
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert policy.cast_forward_inputs


def test_torch_has_no_way_back_from_compiling() -> None:
    layer = torch.nn.Linear(2, 2)
    assert not any(name.startswith(("uncompile", "decompile")) for name in dir(layer))
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None
    patches.uncompile(layer)
    assert layer._compiled_call_impl is None
