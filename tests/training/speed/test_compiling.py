"""Compiled layers: the same numbers, only while a model trains, and a word where torch cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common.config.schema import RunSettings
from common.errors import ConfigError
from common.training.speed.attention import with_attention
from common.training.speed.compiling import compiled

COMPILE = RunSettings(compile="layers")


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2,
        )
    )  # fmt: skip


def loss_of(model: Any) -> Any:
    ids = torch.arange(16).view(2, 8)
    return model(input_ids=ids, position_ids=torch.arange(8).expand(2, 8), labels=ids, use_cache=False).loss


@pytest.fixture
def graphs() -> Any:
    """Return a list that takes every graph which torch hands to the backend, and that backend."""
    torch._dynamo.reset()
    seen: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    yield seen, backend
    torch._dynamo.reset()


def test_all_layers_share_what_is_compiled_and_learn_the_same(graphs: Any) -> None:
    seen, backend = graphs
    model, plain = llama(), llama()
    with with_attention(model, COMPILE, "cpu", in_one_piece=True), compiled(model, COMPILE, "cpt", backend) as layers:
        loss = loss_of(model)
    loss.backward()
    assert (layers, len(seen)) == (3, 1)
    with with_attention(plain, RunSettings(), "cpu"):
        loss_of(plain).backward()
    for (name, theirs), ours in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(theirs.grad, ours.grad, atol=1e-6), name


def test_after_training_a_model_is_as_it_was(graphs: Any) -> None:
    seen, backend = graphs
    model = llama()
    names = list(model.state_dict())
    with compiled(model, COMPILE, "cpt", backend):
        assert list(model.state_dict()) == names
    loss_of(model)
    assert not seen


def test_what_torch_cannot_compile_is_told() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler here")

    torch._dynamo.reset()
    model = llama()
    with (
        pytest.raises(ConfigError, match=r"torch cannot compile the layers of stage cpt here \(.+\)\. Use run"),
        compiled(model, COMPILE, "cpt", broken),
    ):
        loss_of(model)
    torch._dynamo.reset()
    assert loss_of(model).isfinite()


def test_a_model_without_layers_that_repeat_is_told() -> None:
    with (
        pytest.raises(ConfigError, match="Linear of stage cpt has no layers that repeat"),
        compiled(torch.nn.Linear(2, 2), COMPILE, "cpt"),
    ):
        pass
