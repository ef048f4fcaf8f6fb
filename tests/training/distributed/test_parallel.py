"""What processes share of a model: the types that FSDP2 sums in, and a model whose weights come later."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from common.config.schema import ModelSettings, RunSettings
from common.errors import ConfigError
from common.models import checkpoint
from common.stages.preference import checked_pairs
from common.training.distributed.loading import load_shared
from common.training.distributed.parallel import callbacks, check, whole_model
from common.training.rows.preferences import Pair

FLAGS = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "WORLD_SIZE": "2"}


def test_where_others_wait_the_shortest_pairs_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Pair({}, [1] * length, [1] * length, 1) for length in (9, 3, 7, 2, 8)]
    run = RunSettings(processes=2, parallelism="fsdp2")
    assert checked_pairs(pairs, run) == [0, 1, 2, 3, 4]  # one process has the model on its own device
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert checked_pairs(pairs, run) == [3, 1]
    monkeypatch.setenv("RANK", "1")
    assert checked_pairs(pairs, run) == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "MULTI_CPU",
            "ddp (accelerate has no FSDP on the CPU).",
        ),
        ("MULTI_GPU", "ddp."),
        ("DEEPSPEED", "deepspeed."),
    ],
)
def test_a_silent_fallback_is_refused_before_a_model_is_read(
    kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import state

    monkeypatch.setenv("WORLD_SIZE", "2")
    found = SimpleNamespace(distributed_type=state.DistributedType[kind])
    monkeypatch.setattr(state, "AcceleratorState", lambda: found)
    (watching,) = callbacks(RunSettings(processes=2, parallelism="fsdp2"))
    with pytest.raises(ConfigError) as caught:
        watching.on_init_end(None, None, None)
    advice = "Use run.parallelism=ddp, or a machine with a GPU for each process."
    assert str(caught.value) == f"run.parallelism=fsdp2, but accelerate holds the model as {message} {advice}"
    assert callbacks(RunSettings(processes=2)) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_as_many_processes_as_were_started_train_together(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    trainer = SimpleNamespace(accelerator=SimpleNamespace(num_processes=processes), model=torch.nn.Linear(2, 2))
    trainer.model_wrapped = Mock(spec=torch.nn.parallel.DistributedDataParallel)
    if processes == 2:
        check(trainer, RunSettings(processes=2))
        with pytest.raises(ConfigError, match=r"^run\.parallelism=fsdp2, but accelerate holds the model as ddp"):
            check(trainer, RunSettings(processes=2, parallelism="fsdp2"))
    else:
        with pytest.raises(ConfigError, match="trains with 1 processes, but 2 were started"):
            check(trainer, RunSettings(processes=2))


@pytest.mark.parametrize("tied", [True, False])
def test_a_process_that_gets_weights_later_has_the_same_model_without_them(
    tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=2, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    for flag, value in FLAGS.items():
        monkeypatch.setenv(flag, value)
    run, read = RunSettings(processes=2, parallelism="fsdp2"), []
    theirs = LlamaForCausalLM.from_pretrained

    def noted(*args: object, **options: object) -> object:
        read.append(args)
        return theirs(*args, **options)

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", noted)
    built = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        built.append(load_shared(tmp_path, ModelSettings(path=str(tmp_path)), run))
        assert len(read) == 1  # by the first process
    whole, empty = built
    shapes = [{name: (p.shape, p.dtype) for name, p in model.named_parameters()} for model in built]
    assert shapes[0] == shapes[1]
    assert (empty.lm_head.weight is empty.model.embed_tokens.weight) is tied
    assert all(torch.equal(buffer, dict(whole.named_buffers())[name]) for name, buffer in empty.named_buffers())
    assert not empty.training
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    load_shared(tmp_path, ModelSettings(path=str(tmp_path)), run)
    assert len(read) == 2  # nobody would fill it


def test_after_zero3_the_first_process_reads_models_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers goes on to share out what is read, as long as the trainer's arguments live."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.integrations import deepspeed

    monkeypatch.setenv("WORLD_SIZE", "2")
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))
    told = Mock(is_zero3=lambda: True)
    deepspeed.set_hf_deepspeed_config(told)
    accelerator = SimpleNamespace(
        get_state_dict=lambda wrapped: wrapped.state_dict(), unwrap_model=lambda wrapped, **_: wrapped
    )
    trainer = SimpleNamespace(accelerator=accelerator, model=model, model_wrapped=model)
    run = RunSettings(processes=2, parallelism="zero3")

    def load(folder: Path) -> Any:
        return checkpoint.load_model(folder, ModelSettings(path="x"))

    try:
        assert deepspeed.is_deepspeed_zero3_enabled()
        found = whole_model(trainer, run, tmp_path, load)
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert all((a == b).all() for a, b in zip(found.parameters(), model.parameters(), strict=True))
