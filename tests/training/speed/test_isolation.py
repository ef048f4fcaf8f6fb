"""Models that cannot keep the documents of a row apart are found, whatever their architecture promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from common.config.schema import RunSettings
from common.errors import ConfigError
from common.training.distributed import ranks
from common.training.loop.trainer import optimized_for
from common.training.rows.packing import RowCollator
from common.training.speed import isolation, unpacking
from common.training.speed.attention import FP32, UNPACKED, register, with_attention
from common.training.speed.isolation import keeps_apart
from common.training.speed.scoring import head_of
from tests.training.speed.test_scoring import answers, scored

RUN = RunSettings()
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
OLD = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 97,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
XGLM = {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "vocab_size": 97, "bos_token_id": 1}
MIXED = {
    **SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4,
    "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 2, "sliding_window": 8,
}  # fmt: skip
MODELS: dict[str, tuple[dict[str, Any], str, bool]] = {  # what each trains with here, and whether that keeps apart
    "llama": ({**SMALL, "intermediate_size": 64}, UNPACKED, True),
    "gpt2": (OLD, UNPACKED, True),
    "gpt_bigcode": (OLD, FP32, True),  # tells its attention no positions
    "persimmon": ({**SMALL, "intermediate_size": 64, "pad_token_id": 0}, FP32, True),
    # These read documents in rows of their own: they let no attention be set, make their masks without positions, take
    # none, or carry a state along the row.
    "falcon": ({**SMALL, "alibi": False}, "sdpa", True),
    "xglm": ({**XGLM, "eos_token_id": 2}, "eager", True),
    "gpt_oss": (MIXED, "eager", True),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97}, "eager", True),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 97}, "eager", True),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}, "eager", True),
    "xlm-roberta": (  # counts positions from its padding token on
        {**SMALL, "intermediate_size": 64, "is_decoder": True, "pad_token_id": 1, "max_position_embeddings": 64},
        FP32,
        True,
    ),
    "lfm2": (
        {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        FP32,
        True,
    ),
}


def made(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{"initializer_range": 0.3, **MODELS[name][0]}))


@pytest.mark.parametrize("name", MODELS)
def test_an_architecture_trains_with_an_attention_that_keeps_documents_apart_if_there_is_one(name: str) -> None:
    model, (_, attention, apart) = made(name).train(), MODELS[name]
    with with_attention(model, RUN, "cpu") as found:
        assert found == attention
        assert keeps_apart(model) == apart
    assert model.training


@pytest.mark.parametrize("name", [name for name, (_, _, apart) in MODELS.items() if apart])
def test_a_document_in_a_row_is_read_as_it_is_alone(name: str) -> None:
    model, ids_T, lengths = made(name).eval(), torch.arange(1, 25), (9, 5, 7, 3)
    with with_attention(model, RUN, "cpu"), torch.no_grad():
        ends_T = torch.cat([torch.arange(length) for length in lengths])
        row_TV = model(input_ids=ids_T[None], position_ids=ends_T[None], use_cache=False).logits[0]
        alone_TV = [model(input_ids=ids_D[None], use_cache=False).logits[0] for ids_D in ids_T.split(lengths)]
    assert torch.allclose(row_TV, torch.cat(alone_TV), atol=1e-5)
    assert not {*model._forward_pre_hooks} | {*model.base_model._forward_pre_hooks}
    assert "forward" not in vars(model.base_model)


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_scored_as_trl_does_whether_they_can_share_rows_or_not(name: str) -> None:
    model, given = made(name).eval(), answers(0)
    theirs, _ = scored(model, head_of(RunSettings(token_metrics=True), {}), given)
    with with_attention(model, RUN, "cpu"):
        ours, _ = scored(model, head_of(RUN, {}), given)
    assert torch.allclose(ours.log_probs, theirs.log_probs, atol=1e-4)


def test_an_attention_without_positions_leaks() -> None:
    register()
    model = made("gpt_bigcode")
    model.set_attn_implementation(UNPACKED)
    assert not keeps_apart(model)


def test_of_weights_that_are_elsewhere_only_the_positions_are_known() -> None:
    with torch.device("meta"):
        assert keeps_apart(made("llama"))
        assert not keeps_apart(made("bloom"))


def test_weights_that_wait_for_their_gpu_are_tried_with_an_attention_of_the_cpu() -> None:
    register()
    model, mixing = made("llama"), made("gpt_bigcode")
    for one in (model, mixing):
        one.config._attn_implementation = "flash_attention_2"  # as it may be set where flash-attn is installed
    assert keeps_apart(model, UNPACKED)
    assert not keeps_apart(mixing, UNPACKED)
    assert model.config._attn_implementation == "flash_attention_2"


def test_a_model_of_the_same_architecture_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reference of DPO, whose weights are sharded before a first row is read."""
    assert keeps_apart(made("llama"))
    monkeypatch.setattr(isolation, "_tried", lambda *_: pytest.fail("asked again"))
    reference = made("llama")
    reference.config.pad_token_id, reference.config.use_cache = 3, False
    assert keeps_apart(reference)


def test_the_first_process_tells_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which have no weights of a model that is to be sharded, and would ask another question later."""
    monkeypatch.setattr(ranks, "is_main_process", lambda: False)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(isolation, "_tried", lambda *_: pytest.fail("tried"))
    for told in (True, False):
        monkeypatch.setattr(ranks, "broadcast", lambda _, told=told: told)
        monkeypatch.setattr(isolation, "_of_architecture", {})
        with torch.device("meta"):
            assert keeps_apart(made("llama")) == told


def test_shards_are_not_tried_and_have_the_answer_of_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def sharded() -> Any:
        model = made("llama")
        for weight in model.parameters():
            weight.placements = ()
        return model

    monkeypatch.setattr(isolation, "_of_architecture", {})
    assert not keeps_apart(sharded())  # pairs are scored without sharing rows
    assert keeps_apart(made("llama"))
    assert keeps_apart(sharded())


def test_with_shards_documents_get_no_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes would call layers unequally often, and wait for each other."""
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "broadcast", lambda value: value)
    model = made("falcon")
    for parallelism, apart in (("ddp", True), ("fsdp2", False)):
        run = RunSettings(processes=2, parallelism=parallelism)
        with with_attention(model, run, "cpu"):
            assert keeps_apart(model) == apart
    trainer: Any = SimpleNamespace(model=model, args=SimpleNamespace(torch_compile=False))
    trainer.data_collator = RowCollator(0, 64)
    refused = pytest.raises(ConfigError, match=r"Use run\.parallelism=ddp, another checkpoint, or cpt\.packing=trl")
    with refused, optimized_for(trainer, run, "cpt"):
        pass


def test_a_small_leak_is_seen() -> None:
    """With its usual small weights a convolution of LFM2 carries little over."""
    torch.manual_seed(0)
    sizes = {**MODELS["lfm2"][0], "initializer_range": 0.02}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **sizes)).eval()
    assert not keeps_apart(model)


def test_a_model_that_names_itself_its_base_is_read_too() -> None:
    sizes = {**MIXED, "intermediate_size_mlp": 64, "num_experts_per_tok": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama4_text", **sizes)).eval()
    ids_T, ends_T = torch.arange(1, 25), torch.cat([torch.arange(n) for n in (9, 5, 7, 3)])
    with with_attention(model, RUN, "cpu"), torch.no_grad():
        assert keeps_apart(model)
        model(input_ids=ids_T[None], position_ids=ends_T[None])


def test_packed_rows_of_a_model_that_mixes_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer(name: str, collator: object) -> Any:
        return SimpleNamespace(model=made(name), args=SimpleNamespace(torch_compile=False), data_collator=collator)

    packs = RowCollator(0, 64)
    refused = pytest.raises(ConfigError, match=r"cpt\.packing=isolated: .* bloom models do not go by positions")
    monkeypatch.setattr(unpacking, "groups_of", lambda lengths: [[0]])  # which forgets all but one document
    monkeypatch.setattr(isolation, "_of_architecture", {})
    with refused, optimized_for(trainer("bloom", packs), RUN, "cpt"):
        pass
    with optimized_for(trainer("bloom", object()), RUN, "dpo"), optimized_for(trainer("llama", packs), RUN, "cpt"):
        pass
