"""Learning-rate options of TRL's that are a schedule of ours, and those that are none."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import ConfigError
from tests.config.pasting import pasted, settings_of

MIN_LR = "lr_scheduler_type: cosine_with_min_lr, learning_rate: 1.0e-3, lr_scheduler_kwargs: "
WSD = "lr_scheduler_type: warmup_stable_decay, max_steps: 40, lr_scheduler_kwargs: "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{MIN_LR}{{min_lr_rate: 0.1}}", {"kind": "cosine", "floor": 0.1}),
        (f"{MIN_LR}{{min_lr: 1.0e-4}}", {"kind": "cosine", "floor": 0.1}),
        (f"{MIN_LR}'{{\"min_lr_rate\": 0.2}}'", {"kind": "cosine", "floor": 0.2}),
        ("lr_scheduler_type: cosine, lr_scheduler_kwargs: {num_cycles: 0.5}", {"kind": "cosine", "floor": 0.0}),
        (
            f"{WSD}{{decay_type: 1-sqrt, num_decay_steps: 10, num_stable_steps: 20, min_lr_ratio: 0.05}}",
            {"kind": "wsd", "floor": 0.05, "decay": 0.25},
        ),
    ],
)
def test_a_scheduler_of_transformers_is_a_schedule(text: str, expected: dict[str, Any]) -> None:
    found = settings_of(pasted("sft", f"{{{text}}}"), "sft")
    assert {key: found[f"schedule.{key}"] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr_scheduler_type: polynomial", "is polynomial, which no schedule here is; schedule.kind is one of cosine,"),
        ("lr_scheduler_type: cosine_with_restarts", "is cosine_with_restarts, which no schedule here is"),
        (
            "lr_scheduler_type: cosine, lr_scheduler_kwargs: {num_cycles: 2}",
            "has num_cycles, which sft.schedule cannot",
        ),
        ("lr_scheduler_type: cosine_with_min_lr", "needs one of min_lr_rate and min_lr in lr_scheduler_kwargs."),
        (f"{MIN_LR}{{min_lr: 1.0e-4, min_lr_rate: 0.1}}", "needs one of min_lr_rate and min_lr"),
        (f"{MIN_LR}'nonsense'", "is 'nonsense'; expected keys, such as min_lr_rate: 0.1."),
        (f"{MIN_LR}{{min_lr: low}}", "has min_lr=low; a share of the peak is needed: min_lr_rate."),
        (f"{WSD}{{num_decay_steps: 10}}", "with decay_type=cosine and warmup_type=linear; wsd here rises linearly"),
        (
            "lr_scheduler_type: warmup_stable_decay, lr_scheduler_kwargs: {decay_type: 1-sqrt, num_decay_steps: 10}",
            "has num_decay_steps=10, and nothing says of how many steps: set sft.schedule.decay",
        ),
        ("lr_scheduler_kwargs: {min_lr_rate: 0.1}", "is given without lr_scheduler_type; set sft.schedule instead."),
    ],
)
def test_another_shape_is_refused_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pasted("sft", f"{{{text}}}")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
