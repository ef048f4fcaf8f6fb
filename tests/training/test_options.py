"""Options derived from settings: steps from tokens, batches from devices, rates over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.base import Schedule
from common.config.batches import Batch
from common.config.schema import Config, ModelSettings
from common.config.stages import CptSettings, DpoSettings
from common.errors import ConfigError
from common.training.options import preference_options, schedule_options, sft_options, split_batch, steps_for

STEPS, PEAK = 100, 1.0
CONFIG = Config(domain="medical", profile="tiny", pipeline="default", model=ModelSettings(path="unused"), stages={})


def rates(schedule: Schedule, tmp_path: Path) -> list[float]:
    """Return the learning rate of every step, from transformers' own scheduler."""
    import torch
    from transformers import TrainingArguments, get_scheduler

    options = schedule_options(schedule, STEPS)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, num_warmup_steps=int(arguments.warmup_steps),
        num_training_steps=STEPS, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )  # fmt: skip
    found = []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_warms_up_again_and_ends_at_its_floor(tmp_path: Path) -> None:
    found = rates(Schedule(kind="cosine", warmup=0.1, floor=0.1), tmp_path)
    assert found[0] == 0.0
    assert max(found) == found[10] == PEAK
    assert found[-1] == pytest.approx(0.1, abs=0.01)
    assert found[55] == pytest.approx(0.55, abs=0.02)


def test_wsd_holds_the_peak_and_decays_at_the_end(tmp_path: Path) -> None:
    found = rates(Schedule(kind="wsd", warmup=0.1, decay=0.2, floor=0.05), tmp_path)
    assert found[10:81] == [PEAK] * 71
    assert found[-1] < 0.2
    assert sorted(found[80:], reverse=True) == found[80:]


def test_constant_stays(tmp_path: Path) -> None:
    assert rates(Schedule(kind="constant", warmup=0.0), tmp_path) == [PEAK] * STEPS


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
