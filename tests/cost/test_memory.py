"""Memory by phase: more work needs more, shards share it out, adapters and small optimizers save what they should."""

from __future__ import annotations

import pytest

from common.config.resolve import resolve
from common.cost.memory import Need
from common.cost.outlook import Outlook
from tests.conftest import REPOSITORY
from tests.cost.conftest import outlook_of

GIB = 2**30
MICRO = {"run.micro_batch_tokens": "8192", "cpt.train.gradient_checkpointing": "true"}


def train(model: str = "llama-8b", gpu: str = "h100-sxm", stage: str = "cpt", **words: str) -> Need:
    return outlook_of(model, gpu, **{**MICRO, **words}).phases(stage)["train"]


def test_weights_gradients_and_moments_are_sixteen_bytes_a_parameter() -> None:
    need = train()
    held = need.device["weights"] + need.device["optimizer"]
    assert held == 12 * 8_030_261_248
    assert need.device["gradients"] >= 4 * 8_030_261_248
    assert need.device["bfloat16 copies"] == 2 * (8_030_261_248 - 128_256 * 4096 - 4096 - 32 * 2 * 4096)


def test_more_tokens_at_once_need_more_and_checkpointing_less() -> None:
    sizes = [train(**{"run.micro_batch_tokens": str(tokens)}).device_total for tokens in (4096, 8192, 16_384)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    plain = train(**{"cpt.train.gradient_checkpointing": "false"})
    assert plain.device["activations"] > 8 * train().device["activations"]


@pytest.mark.parametrize("parallelism", ["fsdp2", "zero3"])
def test_shards_share_out_what_is_kept_and_not_what_is_computed(parallelism: str) -> None:
    words = {"run.parallelism": parallelism}
    one, eight = train(), train(**words, **{"run.processes": "8"})
    for name in ("weights", "optimizer"):
        assert eight.device[name] == one.device[name] / 8
    assert eight.device["activations"] == one.device["activations"]
    assert eight.device_total < one.device_total / 3
    assert train(**words, **{"run.processes": "16"}).device_total < eight.device_total


def test_copies_of_ddp_share_nothing_and_have_buckets() -> None:
    one, two = train(), train(**{"run.processes": "2"})
    assert two.device["weights"] == one.device["weights"]
    assert two.device["buckets of DDP"] == 4 * 8_030_261_248
    assert two.host["loading"] == 2 * one.host["loading"]


def test_of_fsdp2_one_process_reads_and_its_reference_too() -> None:
    whole, words = 4 * 8_030_261_248, {"run.processes": "8", "run.parallelism": "fsdp2"}
    assert train(**words).host["loading"] == whole
    assert train(stage="dpo", **words).host["loading"] == 2 * whole
    assert train(**{**words, "run.parallelism": "zero3"}).host["loading"] == 8 * whole


def test_adapters_save_gradients_and_quantised_copies_weights() -> None:
    full, lora, qlora = train(), train(**{"cpt.peft": "lora"}), train(**{"cpt.peft": "qlora"})
    assert lora.device["weights"] == full.device["weights"]
    assert lora.device["optimizer"] < full.device["optimizer"] / 40
    assert 5 * GIB < qlora.device["weights"] < full.device["weights"] / 3
    small = train(**{"cpt.train.optim": "adamw_bnb_8bit"})
    assert small.device["optimizer"] == pytest.approx(full.device["optimizer"] / 4, rel=0.02)


def test_a_second_model_is_counted_where_there_is_one() -> None:
    whole = 4 * 8_030_261_248
    assert "reference" not in train(stage="dpo").device
    quantised = train(stage="dpo", **{"dpo.peft": "qlora"}).device
    assert 0 < quantised["reference"] < whole  # it is read before the first step, and leaves
    assert sum(quantised.values()) > whole + quantised["weights"]
    reinforced = {"pipeline": "grpo"}
    assert train(stage="grpo", **reinforced).device["reference"] == whole
    assert "reference" not in train(stage="grpo", **reinforced, **{"grpo.train.beta": "0"}).device
    assert "reference" not in train(stage="grpo", **reinforced, **{"grpo.peft": "lora"}).device
    judged = outlook_of("llama-8b", "h100-sxm", pipeline="rlhf").phases("rlhf")
    assert judged["train"].device["reward models"] == judged["generate"].device["reward models"] == whole


def test_keys_and_values_grow_with_the_answers() -> None:
    sizes = [
        outlook_of("qwen3-0.6b", "l4", pipeline="grpo", **{"grpo.answer_tokens": str(length)}).phases("grpo")[
            "generate"
        ]
        for length in (128, 1024)
    ]
    each = 2 * 28 * 8 * 128 * 4  # both, layers, heads, their size, float32
    assert sizes[1].device["keys and values"] - sizes[0].device["keys and values"] == 16 * 8 * (1024 - 128) * each


def test_saving_gathers_shards_and_loads_the_stage_before_an_adapter() -> None:
    words = {"run.processes": "8", "run.parallelism": "fsdp2"}
    assert "gathered" in outlook_of("llama-8b", "h100-sxm", **words).phases("cpt")["save"].host
    assert "stage before" in outlook_of("llama-8b", "h100-sxm", **{"cpt.peft": "lora"}).phases("cpt")["save"].host
    plain = outlook_of("llama-8b", "h100-sxm").phases("cpt")["save"]
    assert not {"gathered", "stage before"} & set(plain.host)
    assert plain.host["clean process"] > 4 * 8_030_261_248


def test_an_exam_s_logits_follow_its_batch() -> None:
    sizes = [
        outlook_of("qwen3-0.6b", "l4", **{"evaluate.batch_size": size}).phases("exam-cpt")["eval"] for size in "48"
    ]
    assert sizes[1].device["logits"] == 2 * sizes[0].device["logits"] == 8 * 64 * 151_936 * (2 + 4)
    assert sizes[0].device["weights"] == 2 * 596_049_920
    assert sizes[0].at_most


def test_on_a_cpu_all_is_main_memory() -> None:
    outlook = Outlook.of(resolve({"domain": "medical", "run.device": "cpu"}, REPOSITORY))
    assert outlook.hardware.device == "cpu"
    phases = outlook.phases("cpt")
    assert set(phases) == {"train", "save"}
    assert 0.5 * GIB < phases["train"].device_total < GIB
    assert set(phases["save"].device) == {"libraries", "weights", "optimizer"}  # what a step took is given back
    kept = Outlook.of(resolve({"domain": "medical", "run.device": "cpu", "run.keep_heap": "false"}, REPOSITORY))
    phases = kept.phases("cpt")
    assert phases["save"].device_total == phases["train"].device_total  # the allocator keeps what it has
    assert phases["save"].host["clean process"] > 0.3 * GIB
    assert set(outlook.phases("merge")) == {"merge"}
    assert not outlook.phases("card")
