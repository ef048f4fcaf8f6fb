"""Attention by device: documents of a row cannot see each other with any of them, and models get their own back."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from common.config.schema import RunSettings
from common.errors import ConfigError
from common.training.speed import attention, documents
from common.training.speed.attention import (
    FP32,
    UNPACKED,
    VARLEN,
    check_there,
    chosen,
    register,
    varlen_attention,
    with_attention,
)

IDS = [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 19, 20]]
POSITIONS = [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 5, 6, 7]]
SHORT = [[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 0, 1, 2, 3, 0]]  # short enough for rows of their own


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, **options}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, **config)
    )


def one_by_one(
    query: Any, key: Any, value: Any, borders: Any, _: Any, longest: int, __: int, *, scale: float,
    window_size: tuple[int, int], enable_gqa: bool,
) -> Any:  # fmt: skip
    """What the kernel of CUDA computes: each document by itself, causally. Shapes (tokens, heads, size)."""
    assert window_size == (-1, 0)
    documents = list(itertools.pairwise(borders.tolist()))
    assert longest == max(end - start for start, end in documents)
    found = []
    for start, end in documents:
        states = [x[start:end].transpose(0, 1)[None] for x in (query, key, value)]
        seen = scaled_dot_product_attention(
            states[0], states[1], states[2], is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
        found.append(seen[0].transpose(0, 1))
    return torch.cat(found)


@pytest.fixture
def with_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the variable-length attention over a kernel that runs on a CPU."""
    register()
    monkeypatch.setitem(AttentionInterface._global_mapping, VARLEN, functools.partial(varlen_attention, one_by_one))
    monkeypatch.setattr(documents, "_last", None)


def logits(model: Any, **given: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.tensor(IDS), use_cache=False, **given).logits


@pytest.mark.usefixtures("with_reference")
@pytest.mark.parametrize("rows", [POSITIONS, SHORT])
@pytest.mark.parametrize(
    ("name", "dtype", "close"),
    [(FP32, "float32", 1e-5), (UNPACKED, "float32", 1e-5), (VARLEN, "float32", 1e-5), (VARLEN, "bfloat16", 0.03)],
)
def test_packed_documents_are_as_far_apart_as_with_transformers_own(
    name: str, dtype: str, close: float, rows: list[list[int]]
) -> None:
    model = llama().to(getattr(torch, dtype)).eval()
    positions = {"position_ids": torch.tensor(rows)}
    expected = logits(model, **positions)
    leaking = logits(model)
    model.set_attn_implementation(name)
    found = logits(model, **positions)
    assert torch.allclose(found, expected, atol=close)
    assert not torch.allclose(found, leaking, atol=close)


@pytest.mark.usefixtures("with_reference")
@pytest.mark.parametrize(
    ("name", "dtype", "close"), [(UNPACKED, "float32", 1e-5), (VARLEN, "float32", 1e-5), (VARLEN, "bfloat16", 0.03)]
)
@pytest.mark.parametrize("apart", [True, False])
def test_two_answers_read_the_prompt_that_stands_before_the_first(
    name: str, dtype: str, close: float, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_PLACES", 9.0 if apart else 0.0)
    monkeypatch.setattr(documents, "MOST_SCORES", 9.0)
    model = llama().to(getattr(torch, dtype)).eval()
    prompt, first, second = [5, 6, 7], [8, 9], [10, 11, 12]
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([[*prompt, *one]])).logits[0] for one in (first, second)]
        model.set_attn_implementation(name)
        positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5]])
        found = model(input_ids=torch.tensor([[*prompt, *first, *second]]), position_ids=positions).logits[0]
    assert torch.allclose(found[:5], expected[0], atol=close)
    assert torch.allclose(found[5:], expected[1][3:], atol=close)


@pytest.mark.usefixtures("with_reference")
def test_documents_are_found_once_for_all_layers_and_anew_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    starts = documents.starts_of

    def counted(positions: Any) -> Any:
        calls.append(1)
        return starts(positions)

    monkeypatch.setattr(documents, "starts_of", counted)
    model = llama().to(torch.bfloat16).eval()
    model.set_attn_implementation(VARLEN)
    for positions in (POSITIONS, POSITIONS[::-1]):
        logits(model, position_ids=torch.tensor(positions))
    assert len(calls) == 2


@pytest.mark.usefixtures("with_reference")
@pytest.mark.parametrize(("name", "dtype"), [(VARLEN, "float32"), (VARLEN, "bfloat16"), (UNPACKED, "float32")])
def test_padding_and_generation_work_without_a_mask_of_documents(name: str, dtype: str) -> None:
    model = llama().to(getattr(torch, dtype)).eval()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    expected = logits(model, attention_mask=mask)[mask.bool()]
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}
    wrote = model.generate(torch.tensor(IDS), **options)
    model.set_attn_implementation(name)
    assert torch.allclose(logits(model, attention_mask=mask)[mask.bool()], expected, atol=1e-5)
    assert torch.equal(model.generate(torch.tensor(IDS), **options), wrote)


def test_fp32_attention_is_in_float32_under_autocast() -> None:
    model = llama()
    with with_attention(model, RunSettings(), "cpu") as name, torch.autocast("cpu", torch.bfloat16):
        assert name == UNPACKED
        loss = model(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS), use_cache=False).loss
        kinds = set()
        queue = [loss.grad_fn]
        while queue:
            node = queue.pop()
            kinds.add((node.name(), getattr(node, "_saved_query", torch.empty(0)).dtype))
            queue += [other for other, _ in node.next_functions if other is not None]
    assert ("ScaledDotProductFlashAttentionForCpuBackward0", torch.float32) in kinds
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("rows", "number"), [(SHORT, 5), (POSITIONS, 2)])
def test_gradients_of_documents_in_rows_of_their_own_are_those_under_a_mask(
    rows: list[list[int]], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    batches = []
    wide = attention.fp32_attention

    def seen(module: Any, query: Any, *states: Any, **options: Any) -> Any:
        batches.append(len(query))
        return wide(module, query, *states, **options)

    monkeypatch.setattr(attention, "fp32_attention", seen)
    found = []
    for name in (UNPACKED, FP32):
        model = llama()
        with with_attention(model, RunSettings(attention=name), "cpu"), torch.autocast("cpu", torch.bfloat16):
            given = {"input_ids": torch.tensor(IDS), "position_ids": torch.tensor(rows)}
            model(**given, labels=torch.tensor(IDS), use_cache=False).loss.backward()
        found.append({key: weight.grad for key, weight in model.named_parameters()})
    assert batches == [number, number]  # rows of documents where that pays, or rows as they are; one for each layer
    for key, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][key], atol=1e-3), key


def test_layers_that_see_a_window_keep_their_masks_on_a_cpu() -> None:
    config = llama().config
    config.sliding_window = 4
    assert chosen(config, RunSettings(), "cpu") == FP32


def test_what_is_compiled_in_one_piece_keeps_its_masks_on_a_cpu() -> None:
    assert chosen(llama().config, RunSettings(), "cpu", in_one_piece=True) == FP32


@pytest.mark.parametrize("option", ["attention_dropout", "attn_logit_softcapping"])
def test_what_the_kernels_of_cuda_have_not_is_left_to_others(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert chosen(llama(**{option: 0.1}).config, RunSettings(), "cuda") == "sdpa"


def test_a_model_gets_its_attention_back_after_an_error() -> None:
    model = llama()
    with pytest.raises(RuntimeError), with_attention(model, RunSettings(), "cpu"):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"


def test_what_cannot_be_had_is_said() -> None:
    config = llama().config
    assert chosen(config, RunSettings(attention="eager"), "cpu") == "eager"
    with pytest.raises(ConfigError, match=r"run.attention=varlem: there is no such attention. Did you mean 'varlen'"):
        chosen(config, RunSettings(attention="varlem"), "cpu")
    with pytest.raises(ConfigError, match=r"run.attention=varlen: its kernels need CUDA, and this stage trains on cpu"):
        chosen(config, RunSettings(attention="varlen"), "cpu")


def test_attention_that_is_not_installed_is_told_in_one_line() -> None:
    missing = r"run.attention=flash_attention_2: not available here .*Use run.attention"
    with pytest.raises(ConfigError, match=missing):
        check_there("flash_attention_2")
    with (
        pytest.raises(ConfigError, match=missing),
        with_attention(llama(), RunSettings(attention="flash_attention_2"), "cuda"),
    ):
        pass
    check_there("sdpa")
    with pytest.raises(ConfigError, match="there is no such attention"):
        chosen(llama().config, RunSettings(attention="paged|eager"), "cpu")


def test_models_without_whole_documents_or_fitting_heads_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert chosen(llama().config, RunSettings(), "cuda") == VARLEN
    assert chosen(llama(num_attention_heads=8).config, RunSettings(), "cuda") == "sdpa"  # heads of 4
    sliding = llama().config
    sliding.sliding_window = 4
    assert chosen(sliding, RunSettings(), "cuda") == "sdpa"
    with pytest.raises(ConfigError, match="layers that do not see whole documents"):
        chosen(sliding, RunSettings(attention="varlen"), "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert chosen(llama().config, RunSettings(), "cuda") == "sdpa"
