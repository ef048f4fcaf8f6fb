"""Settings of pruning: its methods are written out and read back, and what it cannot be with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from common.config.pruning import PruneSettings


def made(**settings: Any) -> PruneSettings:
    return PruneSettings.model_validate({"tokens": 4096, **settings})


THIRD = {"share": 1 / 3}


@pytest.mark.parametrize(
    ("settings", "methods"),
    [
        ({}, {"adams": {}, "self_distillation": THIRD}),
        ({"methods": "reptile"}, {"reptile": {}, "adams": {}, "self_distillation": THIRD}),
        ({"methods": ["adams"]}, {"adams": {}, "self_distillation": THIRD}),
        ({"methods": {"adams": {"decay": 1e-4}, "self_distillation": {"temperature": 2.0}}},
         {"adams": {"decay": 1e-4}, "self_distillation": {"temperature": 2.0, **THIRD}}),
        ({"methods": {"adams": None}, "distillation": 0.5}, {"adams": {}, "self_distillation": {"share": 0.5}}),
        ({"zeros": "cut"}, {"self_distillation": THIRD}),
        ({"zeros": "cut", "distillation": 0, "methods": {"adams": False}}, {}),
    ],
)  # fmt: skip
def test_methods_follow_from_what_it_does(settings: dict[str, Any], methods: dict[str, Any]) -> None:
    found = made(**settings)
    assert found.methods == methods
    assert PruneSettings.model_validate(found.model_dump(mode="json")) == found


def test_the_rate_falls_to_zero_unless_something_else_is_said() -> None:
    assert made().schedule.floor == made(schedule={"kind": "linear"}).schedule.floor == 0.0
    assert made(schedule={"floor": 0.1}).schedule.floor == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft": "lora"}, r"peft is lora, and a merged adapter would fill the zeros; set peft=full"),
        ({"train_only": "embeddings"}, r"train_only is embeddings, and what is frozen cannot decay; remove"),
        ({"rope_theta": 500_000}, r"rope_theta is 500000, .*; set it in a cpt stage before"),
        ({"optimizer": "carry"}, r"optimizer is carry, and its optimizer is another; set optimizer=fresh"),
        ({"validation": {"share": 0.1, "keep": "best"}}, r"lowest loss is that of early weights"),
        ({"methods": {"adams": False}}, r"methods\.adams cannot be switched off by itself; set zeros=cut"),
        ({"methods": {"self_distillation": False}}, r"cannot be switched off by itself; set distillation=0"),
        ({"zeros": "cut", "methods": {"adams": {"decay": 1}}}, r"cut leaves it out; set methods\.adams=false too"),
        ({"distillation": 1}, r"less than 1"),
        ({"modules": []}, r"at least 1 item"),
        ({"methods": 5}, r"expected names of methods"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_with_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(**settings)
