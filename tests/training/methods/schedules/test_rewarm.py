"""Re-warming against its equations in float64, the peak that it takes from the chain, and where nothing says one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.config.resolve import resolve
from common.errors import ConfigError
from common.training.methods.schedules.rewarm import RewarmSettings, misfit, multiplier, warmup_steps
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_it_rises_in_a_line_and_falls_as_a_cosine(warmup: int, floor: float) -> None:
    steps, settings = 100, RewarmSettings(warmup=warmup, floor=floor)
    n = np.arange(steps, dtype=np.float64)
    falling = floor + (1 - floor) / 2 * (1 + np.cos(np.pi * (n - warmup) / max(1, steps - warmup)))
    expected = np.where(n < warmup, n / max(1, warmup), falling)
    assert [multiplier(step, steps, settings) for step in range(steps)] == pytest.approx(expected.tolist(), abs=1e-15)
    assert multiplier(steps, steps, settings) == pytest.approx(1.0 if warmup == steps else floor)


def test_a_warmup_below_one_is_a_share_and_one_that_is_too_long_does_not_fit() -> None:
    assert warmup_steps(1000, RewarmSettings(warmup=0.02)) == 20
    assert misfit(10, RewarmSettings(warmup=10)) == ""
    assert misfit(10, RewarmSettings(warmup=11)).startswith("warmup is 11 steps, and the stage has 10.")


def stage(name: str, **words: str) -> Any:
    resolved = resolve(
        {"domain": "medical", **{key.replace("__", "."): value for key, value in words.items()}}, REPOSITORY
    )
    return resolved.config.stages[name], resolved.origins


def test_the_peak_is_a_share_of_that_of_the_stage_before() -> None:
    settings, origins = stage("cpt", cpt__methods__rewarm__share="0.5", base__train__learning_rate="3e-3")
    assert settings.methods == {"rewarm": {"share": 0.5, "peak": 3e-3}}
    assert settings.train["learning_rate"] == 1.5e-3
    assert origins["cpt.train.learning_rate"] == "cpt.methods.rewarm"
    # of the stage before that, if that one re-warms too
    settings, _ = stage(
        "sft", cpt__methods__rewarm__share="0.5", base__train__learning_rate="3e-3", sft__methods="rewarm"
    )
    assert settings.train["learning_rate"] == 1.5e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"model.path": "owner/name", "model.revision": "0" * 40},
            r"^cpt\.methods\.rewarm: base takes a finished checkpoint, .* Set peak=<rate>",
        ),
        ({"cpt.peft": "lora"}, r"^cpt\.methods\.rewarm: this stage trains an adapter, .*; set peak=<rate>\.$"),
        ({"base.train.learning_rate": "null"}, r"base, the stage before it, says no train\.learning_rate\. Set peak"),
        (
            {"cpt.train.learning_rate": "1e-4"},
            r"cpt\.train\.learning_rate \(command line\) is set next to cpt\.methods",
        ),
    ],
)
def test_where_nothing_says_a_peak_or_two_do_it_is_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"domain": "medical", "cpt.methods.rewarm.share": "1.0", **words}, REPOSITORY)


def test_after_an_adapter_the_peak_has_to_be_said() -> None:
    words = {"domain": "medical", "cpt.peft": "lora", "sft.methods.rewarm.share": "1.0"}
    with pytest.raises(ConfigError, match=r"^sft\.methods\.rewarm: cpt, the stage before it, trains an adapter"):
        resolve(words, REPOSITORY)
    settings: Any = resolve({**words, "sft.methods.rewarm.peak": "2e-4"}, REPOSITORY).config.stages["sft"]
    assert settings.train["learning_rate"] == 2e-4
