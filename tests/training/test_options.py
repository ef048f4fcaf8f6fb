"""Options derived from settings: steps from tokens, batches from devices, rates over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.answering import GrpoSettings
from common.config.batches import Batch, micro_tokens, pair_epochs, pair_steps, rewarded_steps
from common.config.schema import Config, ModelSettings, RunSettings
from common.config.stages import CptSettings, DpoSettings
from common.errors import ConfigError
from common.training.options import preference_options, sft_options, split_batch, steps_for, without_experts

STEPS, PEAK = 100, 1.0
CONFIG = Config(domain="medical", profile="tiny", pipeline="default", model=ModelSettings(path="unused"), stages={})


def test_the_budget_is_in_tokens() -> None:
    assert steps_for(CptSettings(tokens=204_800, batch_tokens=2048), 5, "cpt") == 100
    assert steps_for(CptSettings(epochs=2, batch_tokens=2048, sequence_length=128), 32, "cpt") == 4
    with pytest.raises(ConfigError, match=r"cpt\.tokens=100 is less than one step of cpt\.batch_tokens=2048"):
        steps_for(CptSettings(tokens=100), 5, "cpt")
    with pytest.raises(ConfigError, match="neither tokens nor epochs is set"):
        steps_for(CptSettings(), 5, "cpt")


BATCH = Batch("cpt.batch_tokens", 2048, 16, "rows", tokens_each=128)


@pytest.mark.parametrize(
    ("world", "micro", "expected"),
    [(1, None, (16, 1)), (2, None, (8, 1)), (1, 4, (4, 4)), (4, 2, (2, 2)), (1, 5, (4, 4))],
)
def test_the_global_batch_does_not_change_with_devices(
    monkeypatch: pytest.MonkeyPatch, world: int, micro: int | None, expected: tuple[int, int]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    rows, accumulation = split_batch(BATCH, None if micro is None else 128 * micro)
    assert (rows, accumulation) == expected
    assert rows * accumulation * world == 16


def test_a_batch_that_cannot_be_met_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"16 rows per step, which 3 .* Set cpt\.batch_tokens=1920 or 2304, or run.p"):
        split_batch(BATCH, None)


def test_the_train_block_has_the_last_word_and_reaches_trl(tmp_path: Path) -> None:
    from trl import DPOConfig, SFTConfig

    train: dict[str, Any] = {"optim": "adafactor", "weight_decay": 0.3, "neftune_noise_alpha": 5.0, "logging_steps": 7}
    settings = CptSettings(tokens=20_480, train=train)
    made = SFTConfig(**sft_options(settings, CONFIG, tmp_path, steps=10, stage="cpt"))
    assert (made.optim, made.weight_decay, made.neftune_noise_alpha, made.logging_steps) == ("adafactor", 0.3, 5.0, 7)
    dpo = DpoSettings(train={"loss_type": ["ipo"], "beta": 0.5})
    pairs = DPOConfig(**preference_options(dpo, CONFIG, tmp_path, num_pairs=64, stage="dpo"))
    assert (pairs.loss_type, pairs.beta, pairs.max_steps) == (["ipo"], 0.5, 4)


def test_steps_and_passes_say_the_same_of_pairs_and_prompts() -> None:
    assert pair_steps(DpoSettings(steps=7), 1000) == 7
    assert pair_epochs(DpoSettings(steps=7), 56) == 2.0
    assert pair_steps(DpoSettings(epochs=2), 56) == 7
    assert rewarded_steps(GrpoSettings(steps=9), 1000) == 9
    assert rewarded_steps(GrpoSettings(epochs=2, prompts_per_step=16), 100) == 13


def test_a_forward_pass_takes_the_least_that_the_stage_or_the_run_asks_for(tmp_path: Path) -> None:
    own = CptSettings(tokens=20_480, micro_batch_tokens=256)
    assert [micro_tokens(own, RunSettings(micro_batch_tokens=size)) for size in (None, 128, 512)] == [256, 128, 256]
    made = sft_options(own, CONFIG, tmp_path, steps=10, stage="cpt")
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (2, 8)


@pytest.mark.parametrize(("experts", "weight"), [(False, 0.0), (True, None)])
def test_no_loss_of_experts_is_asked_of_a_doge_without_any(experts: bool, weight: float | None) -> None:
    from transformers import AutoModelForCausalLM, DogeConfig

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 8, "num_experts": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2}
    model = AutoModelForCausalLM.from_config(DogeConfig(is_moe=experts, **sizes, **heads))
    assert without_experts({"seed": 0}, model, "cpt").get("router_aux_loss_coef") == weight
    if not experts:
        with pytest.raises(
            ConfigError, match=r"cpt\.train\.router_aux_loss_coef is 0\.1, but this model has no experts"
        ):
            without_experts({"router_aux_loss_coef": 0.1}, model, "cpt")
