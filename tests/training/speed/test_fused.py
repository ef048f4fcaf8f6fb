"""Rotary positions and norms in fewer operations are what a model's own code computes, and are gone after training."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
import transformers
from transformers.models.cohere import modeling_cohere
from transformers.models.llama import modeling_llama

from common.config.schema import RunSettings
from common.training.speed.fused import fused

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
IDS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(0))


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model.train()


def gradients(model: Any, *, narrow: bool = False) -> list[torch.Tensor]:
    positions = torch.cat([torch.arange(5), torch.arange(7)]).expand(2, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        loss = model(input_ids=IDS, labels=IDS, position_ids=positions, use_cache=False).loss
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize(("family", "parts"), [("Llama", 1 + 5), ("Qwen3", 1 + 9), ("Mistral", 1 + 5)])
@pytest.mark.parametrize("narrow", [False, True])
def test_losses_and_gradients_are_those_of_the_model_s_own_code(family: str, parts: int, narrow: bool) -> None:
    model = model_of(family)
    own = gradients(model, narrow=narrow)
    with fused(model, RunSettings(), "cpu") as replaced:
        assert replaced == parts
        found = gradients(model, narrow=narrow)
    assert any(not torch.equal(a, b) for a, b in zip(own, found, strict=True)), "nothing was replaced"
    for a, b in zip(own, found, strict=True):
        torch.testing.assert_close(b, a, atol=3e-3 if narrow else 1e-6, rtol=3e-2 if narrow else 1e-4)
    assert all(torch.equal(a, b) for a, b in zip(own, gradients(model, narrow=narrow), strict=True))


def test_frozen_norms_and_checkpointed_layers_learn_the_same() -> None:
    model = model_of("Llama")
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" not in name)
    learned = [weight for weight in model.parameters() if weight.requires_grad]

    def grads() -> Any:
        return torch.autograd.grad(model(input_ids=IDS, labels=IDS, use_cache=False).loss, learned)

    own = grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with fused(model, RunSettings(), "cpu") as replaced:
        assert replaced == 1 + 5
        for a, b in zip(own, grads(), strict=True):
            torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-4)


def test_what_computes_something_else_stays() -> None:
    """Cohere interleaves the halves of a head, and has another norm."""
    theirs, model = modeling_cohere.apply_rotary_pos_emb, model_of("Cohere")
    with fused(model, RunSettings(), "cpu") as replaced:
        assert replaced == 0
        assert modeling_cohere.apply_rotary_pos_emb is theirs


class Shifted(modeling_llama.LlamaRMSNorm):  # type: ignore[misc] # transformers is seen as Any
    def forward(self, hidden_states: Any) -> Any:
        return hidden_states * (1 + self.weight)


class Gated(modeling_llama.LlamaRMSNorm):  # type: ignore[misc] # as above
    def forward(self, hidden_states: Any, gate: Any = None) -> Any:
        return super().forward(hidden_states) * (1 if gate is None else gate)


class Biased(modeling_llama.LlamaRMSNorm):  # type: ignore[misc] # as above
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bias = torch.nn.Parameter(torch.zeros(size))

    def forward(self, hidden_states: Any) -> Any:
        return super().forward(hidden_states) + self.bias


@pytest.mark.parametrize("norm", [Shifted, Gated, Biased])
def test_norms_that_do_more_stay(norm: Any) -> None:
    named = type(f"{norm.__name__}RMSNorm", (norm,), {})
    model = model_of("Llama")
    model.model.norm = named(32)
    with fused(model, RunSettings(), "cpu") as replaced:
        assert replaced == 1 + 4
        assert "forward" not in vars(model.model.norm)


@pytest.mark.parametrize(("family", "norms"), [("GptOss", 5), ("Olmo2", 9)])
def test_angles_of_half_a_head_and_results_in_another_type_stay(family: str, norms: int) -> None:
    """GPT-OSS takes half as many angles, OLMo gives queries back in their own type."""
    model = model_of(family)
    own = gradients(model, narrow=True)
    with fused(model, RunSettings(), "cpu") as replaced:
        assert replaced <= norms
        assert not hasattr(sys.modules[type(model).__module__].apply_rotary_pos_emb, "replaces")
        for a, b in zip(own, gradients(model, narrow=True), strict=True):
            torch.testing.assert_close(b, a, atol=3e-3, rtol=3e-2)


def test_a_copy_has_its_own_weights_and_contexts_may_lie_in_one_another() -> None:
    model, theirs = model_of("Llama"), modeling_llama.apply_rotary_pos_emb
    with fused(model, RunSettings(), "cpu"):
        copied = copy.deepcopy(model.model.norm)
        torch.nn.init.zeros_(copied.weight)
        assert torch.equal(copied(torch.ones(2, 32)), torch.zeros(2, 32))
        with fused(model_of("Llama"), RunSettings(), "cpu") as replaced:
            assert replaced == 5  # the function is ours already
    assert modeling_llama.apply_rotary_pos_emb is theirs


def test_angles_that_are_not_in_float32_go_to_the_model_s_own_code() -> None:
    q, k = torch.rand(1, 2, 3, 8), torch.rand(1, 1, 3, 8)
    angles = torch.rand(2, 1, 3, 8).bfloat16()
    own = modeling_llama.apply_rotary_pos_emb(q, k, *angles)
    with fused(model_of("Llama"), RunSettings(), "cpu"):
        assert all(map(torch.equal, own, modeling_llama.apply_rotary_pos_emb(q, k, *angles)))


def test_it_is_a_switch_for_cpus_and_for_models_that_nothing_compiles() -> None:
    model, theirs = model_of("Llama"), modeling_llama.apply_rotary_pos_emb
    for run, device, in_one_piece in (
        (RunSettings(fused_ops=False), "cpu", False), (RunSettings(), "cuda", False), (RunSettings(), "cpu", True)
    ):  # fmt: skip
        with fused(model, run, device, in_one_piece=in_one_piece) as replaced:
            assert replaced == 0
            assert modeling_llama.apply_rotary_pos_emb is theirs
    with pytest.raises(KeyError), fused(model, RunSettings(), "cpu"):
        raise KeyError
    assert modeling_llama.apply_rotary_pos_emb is theirs
    assert not any("forward" in vars(module) for module in model.modules())
