"""The lean head scores what TRL's does, at less cost, and goes on to it where it cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from common.config.schema import RunSettings
from common.training.speed import scoring
from common.training.speed.attention import UNPACKED, VARLEN, register
from common.training.speed.scoring import head_of, prompts_of, share_rows, unmeasured

RUN = RunSettings()


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2,
        )
    )  # fmt: skip


def batch(lengths: list[int], *, left: int = 0) -> dict[str, torch.Tensor]:
    """Sequences with padding on the right, and `left` places of it on the left; the latter half is the answer."""
    width = left + max(lengths)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 97, (len(lengths), width), generator=generator)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, length in enumerate(lengths):
        mask[row, left : left + length] = 1
        labels[row, left + length // 2 : left + length] = ids[row, left + length // 2 : left + length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def scored(model: Any, add: Callable[..., None], given: dict[str, torch.Tensor], **options: Any) -> tuple[Any, Any]:
    """Return a head's output and the gradients of its answers' summed log-probabilities."""
    model = copy.deepcopy(model)
    add(model, **options)
    found = model(**given, use_cache=False, fused_lm_head=True)
    found.log_probs.sum().backward()
    return found, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("lengths", [[9, 9, 9, 9], [24, 5, 6, 3, 20, 4, 2, 8]])
@pytest.mark.parametrize("most_logits", [64_000_000, 97 * 5])
def test_it_scores_as_trl_does(
    lengths: list[int], left: int, most_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MOST_LOGITS", most_logits)
    model, given = llama(), batch(lengths, left=left)
    options = {"temperature": 0.7, "outputs": ("log_probs", "entropy")}
    ours, our_gradients = scored(model, head_of(RUN, {"entropy_coef": 0.1}), given, **options)
    theirs, their_gradients = scored(model, head_of(RunSettings(token_metrics=True), {}), given, **options)
    assert torch.equal(ours.label_mask, theirs.label_mask)
    assert torch.allclose(ours.log_probs, theirs.log_probs, atol=1e-5)
    assert torch.allclose(ours.entropy, theirs.entropy, atol=1e-5)
    for found, expected in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def answers(left: int) -> dict[str, torch.Tensor]:
    """Answers to a prompt of six tokens, at 0, 2 and 3, to another, at 1 and 4, and one to a prompt of its own."""
    given = batch([9, 12, 8, 11, 7, 5], left=left)
    ids, labels = given["input_ids"], given["labels"]
    for row, owner in ((2, 0), (3, 0), (4, 1)):
        ids[row, left : left + 6] = ids[owner, left : left + 6]
    for row, length in enumerate([9, 12, 8, 11, 7, 5]):
        labels[row] = -100
        start = left + (6 if row < 5 else 1)
        labels[row, start : left + length] = ids[row, start : left + length]
    return given


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("name", [UNPACKED, VARLEN, "sdpa"])
def test_answers_to_one_prompt_read_it_once_and_score_the_same(name: str, left: int) -> None:
    register()
    model, given = llama(), answers(left)
    theirs, their_gradients = scored(model, head_of(RunSettings(token_metrics=True), {}), given)
    model.set_attn_implementation(name)
    read: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda _module, args, _out: read.append(args[0].numel()))
    ours, our_gradients = scored(model, head_of(RUN, {}), given)
    assert torch.allclose(ours.log_probs, theirs.log_probs, atol=1e-5)
    for found, expected in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
    assert read[-1] == (48 if name != "sdpa" else 64)  # of 52 real tokens, 18 need not be read again


def test_prompts_end_where_labels_begin() -> None:
    given = answers(3)
    mask = given["labels"][:, 1:] != -100
    found = prompts_of(given["input_ids"], given["attention_mask"], mask)
    assert found == ([0, 1, 0, 0, 1, 5], [0, 0, 6, 6, 6, 0])
    assert prompts_of(given["input_ids"], given["attention_mask"], mask & False) == (list(range(6)), [0] * 6)
    one_token = torch.ones(2, 1, dtype=torch.long)
    assert prompts_of(one_token, one_token, torch.ones(2, 0, dtype=torch.bool)) == ([0, 1], [0, 0])


def test_answers_stand_behind_their_prompt_in_one_row() -> None:
    layout = share_rows([9, 12, 8, 11, 7, 5], [0, 1, 0, 0, 1, 5], [0, 0, 6, 6, 6, 0])
    assert layout is not None
    assert layout.width == 16
    assert [layout.rows[n] for n in (2, 3)] == [layout.rows[0]] * 2
    assert [layout.starts[n] - layout.starts[0] for n in (2, 3)] == [9, 11]
    assert layout.prompts == [layout.starts[n] for n in (0, 1, 0, 0, 1, 5)]
    assert sorted(layout.filled) == [5, 13, 16]


def test_a_batch_without_answers_still_reaches_the_weights() -> None:
    given = batch([5, 6])
    given["labels"].fill_(-100)
    found, gradients = scored(llama(), head_of(RUN, {}), given)
    assert found.log_probs.abs().sum() == 0
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_model_that_names_its_base_model_wrongly_is_scored_too() -> None:
    """TRL's head and ours look for it before anything trains, where DPO scores its reference."""
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "intermediate_size_mlp": 64, "head_dim": 8}
    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama4_text", **sizes, **shape))
    given = batch([9, 4, 12])
    ours, _ = scored(model, head_of(RUN, {}), given)
    theirs, _ = scored(model, head_of(RunSettings(token_metrics=True), {}), given)
    torch.testing.assert_close(ours.log_probs, theirs.log_probs)


def test_capped_logits_go_on_to_trl() -> None:
    model = llama()
    model.config.final_logit_softcapping = 3.0
    given = batch([9, 4])
    ours, _ = scored(model, head_of(RUN, {}), given)
    theirs, _ = scored(model, head_of(RunSettings(token_metrics=True), {}), given)
    assert torch.equal(ours.log_probs, theirs.log_probs)


def test_sequences_share_rows_whole_and_apart() -> None:
    lengths = [24, 5, 6, 3, 20, 4, 2, 8]
    layout = share_rows(lengths)
    assert layout is not None
    assert layout.num_rows * layout.width < len(lengths) * max(lengths)
    taken = [
        (row * layout.width + place)
        for row, start, length in zip(layout.rows, layout.starts, lengths, strict=True)
        for place in range(start, start + length)
    ]
    assert len(taken) == len(set(taken)) == sum(lengths)
    assert all(start + length <= layout.width for start, length in zip(layout.starts, lengths, strict=True))
    assert share_rows([16, 16, 15, 16]) is None  # nothing to be saved


def test_trainers_outside_keep_trls_head() -> None:
    from trl.trainer import dpo_trainer
    from trl.trainer.utils import add_fused_lm_head

    with scoring.scoring(RUN, {}):
        assert dpo_trainer.add_fused_lm_head is not add_fused_lm_head
    assert dpo_trainer.add_fused_lm_head is add_fused_lm_head


def test_with_every_metric_trls_head_scores() -> None:
    ours, theirs = llama(), llama()
    head_of(RUN, {})(ours)
    head_of(RunSettings(token_metrics=True), {})(theirs)
    files = [model.forward.__func__.__code__.co_filename for model in (ours, theirs)]
    assert [file == scoring.__file__ for file in files] == [True, False]


def test_what_is_not_measured_is_not_logged() -> None:
    assert "entropy" in unmeasured(RUN, {})
    assert "entropy" not in unmeasured(RUN, {"entropy_coef": 0.01})
    assert unmeasured(RunSettings(token_metrics=True), {}) == frozenset()
