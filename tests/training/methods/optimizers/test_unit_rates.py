"""ADEPT's rates: importance by hand in float64, shares by the code's formula, and an optimizer that follows them."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import Step
from common.config.resolve import resolve
from common.config.stages import CptSettings
from common.engine.preflight.settings import check_settings
from common.errors import ConfigError
from common.training.distributed import ranks
from common.training.methods.optimizers.unit_rates import (
    METHOD,
    UnitRatesSettings,
    after_step,
    before_step,
    begin,
    importance_of,
    shares_of,
)
from common.training.methods.rates import split_by_rate
from tests.conftest import REPOSITORY, kill_training
from tests.models.growth.small import IDS, small
from tests.training.methods.conftest import WORDS, Train, log, weights

OTHER = [7, 3, 2, 8, 1, 1, 4, 30]
BATCHES = [
    (torch.tensor([ids]), torch.tensor([labels])) for ids, labels in ((IDS, IDS), (OTHER, [*OTHER[:6], -100, -100]))
]


def learner() -> Any:
    """Return a model of which the last two layers learn."""
    model = small("llama")
    model.requires_grad_(False)
    for layer in model.model.layers[2:]:
        layer.requires_grad_(True)
    return model


def loss_of(model: Any, ids: Any, labels: Any) -> Any:
    """Return the mean loss of the tokens that are learned, written out."""
    scores = model(input_ids=ids).logits[0, :-1]
    targets = labels[0, 1:]
    kept = [place for place, target in enumerate(targets.tolist()) if target != -100]
    logs = scores - scores.exp().sum(-1, keepdim=True).log()
    return -sum(logs[place, targets[place]] for place in kept) / len(kept)


def test_importance_is_the_weight_times_its_mean_gradient() -> None:
    model = learner().double()
    found = importance_of(model, BATCHES)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert found.keys() == names
    gradients: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for ids, labels in BATCHES:
        model.zero_grad()
        loss_of(model, ids, labels).backward()
        for name in names:
            gradients[name].append(model.get_parameter(name).grad.abs().numpy().copy())
    for name in names:
        weight = np.abs(model.get_parameter(name).detach().numpy())
        assert found[name] == pytest.approx((weight * np.mean(gradients[name], axis=0)).mean(), rel=1e-5)


def test_no_gradient_is_left_behind() -> None:
    model = learner()
    importance_of(model, BATCHES)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        ({"a": 0.1, "b": 0.3, "c": 0.2}, {"a": 2.0, "b": 0.0, "c": 1.0}),
        ({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 1.0}),
        ({"a": 0.5}, {"a": 1.0}),
        ({"a": 0.0, "b": 4.0, "c": 1.0, "d": 2.0}, {"a": 1.0, "b": 0.0, "c": 2.0, "d": 4 / 3}),  # a: nothing is known
        ({"a": 0.0, "b": 4.0}, {"a": 1.0, "b": 1.0}),
        ({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}),
    ],
)
def test_shares_go_from_two_to_nothing(importance: dict[str, float], expected: dict[str, float]) -> None:
    assert shares_of(importance) == pytest.approx(expected)


def test_layers_that_add_nothing_yet_keep_the_rate_until_they_do() -> None:
    model = small("llama")
    model.requires_grad_(False)
    layer = model.model.layers[2].requires_grad_(True)
    for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
        torch.nn.init.zeros_(weight)
    assert set(shares_of(importance_of(model, BATCHES)).values()) == {1.0}
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(2):  # the first step moves what writes alone, and the second one the others too
        loss_of(model, *BATCHES[0]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(set(shares_of(importance_of(model, BATCHES)).values())) > 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_and_checkpointing_do_not_change_what_is_measured(checkpointing: bool) -> None:
    expected = importance_of(learner().eval(), BATCHES)
    model = learner()
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert importance_of(model, BATCHES) == pytest.approx(expected, rel=1e-5)
    assert all(module.training for module in model.modules())


def test_every_process_takes_the_shares_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner()
    monkeypatch.setattr(ranks, "broadcast", lambda shares: dict.fromkeys(shares, 0.25))
    found = begin(Step(model, None, 0, 4, BATCHES), UnitRatesSettings())
    assert {float(share) for share in found.values()} == {0.25}


def test_each_weight_moves_by_its_share_of_the_rate() -> None:
    """SGD moves a weight by rate times gradient, so what it moved says which rate it had."""
    model = learner()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    split_by_rate(optimizer, model, {}, apart=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    step, settings = Step(model, optimizer, 0, 10, BATCHES), UnitRatesSettings(every=1)
    state = begin(step, settings)
    assert {name: float(share) for name, share in state.items()} == pytest.approx(
        shares_of(importance_of(model, BATCHES))
    )
    for number in (1, 2):
        loss_of(model, *BATCHES[0]).backward()
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        shares = {name: float(share) for name, share in state.items()}
        noted = before_step(Step(model, optimizer, number, 10, BATCHES), settings, state)
        assert noted["mean_share"] == pytest.approx(np.mean(list(shares.values())))
        optimizer.step()
        for group in optimizer.param_groups:  # as the trainer sets it back
            group["lr"] = 0.5 / number
        schedule.step()
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                moved = before[name] - weight.detach()
                assert torch.allclose(moved, 0.5 / number * shares[name] * weight.grad, atol=1e-6)
        optimizer.zero_grad()
        after_step(Step(model, optimizer, number, 10, BATCHES), settings, state)
    assert {name: float(share) for name, share in state.items()} == pytest.approx(
        shares_of(importance_of(model, BATCHES))
    )  # measured again after the step
    assert shares != {name: float(share) for name, share in state.items()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"replay": 0.0}, "replay is 0; set replay above 0"),
        ({"replay": 0.2, "peft": "lora"}, "peft is lora"),
        ({"replay": 0.2, "replay_from": "lineage"}, "set replay_from=role"),
        ({"replay": 0.2, "train": {"gradient_checkpointing_kwargs": {"use_reentrant": True}}}, "use_reentrant=false"),
        ({}, "0"),
    ],
)
def test_what_it_cannot_work_with_is_said(settings: dict[str, Any], expected: str) -> None:
    stage = CptSettings.model_validate({"tokens": 4096, **settings})
    assert expected in METHOD.problem(UnitRatesSettings(), stage)
    assert not METHOD.problem(UnitRatesSettings(), CptSettings.model_validate({"tokens": 4096, "replay": 0.1}))


ON = {"cpt.replay": "0.2", "cpt.methods.unit_rates.every": "3", "cpt.methods.unit_rates.probe_tokens": "256"}


@pytest.mark.long
def test_a_killed_training_and_two_processes_make_what_one_run_makes(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(**ON)
    expected, records = weights(whole), log(whole)
    assert 0 < records[-1]["unit_rates/mean_share"] < 2
    assert whole.manifest["metrics"]["methods"]["unit_rates"]["paper"] == "arXiv 2510.10071, stage 2"
    shutil.rmtree(whole.path)
    with monkeypatch.context() as patch:
        taken = kill_training(patch, at=6)
        with pytest.raises(KeyboardInterrupt):
            train(**ON, **{"run.checkpoint_minutes": "0.00001"})
        made = train(**ON)
    assert len(taken) == 6 + 3
    assert weights(made) == expected
    shutil.rmtree(made.path)
    shared = train(**ON, **{"run.processes": "2"})
    assert shared.manifest["processes"] == 2
    for one, other in zip(records, log(shared), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)
        assert one["unit_rates/mean_share"] == pytest.approx(other["unit_rates/mean_share"], rel=2e-3)
    with pytest.raises(ConfigError, match=r"cpt\.methods\.unit_rates with run\.parallelism=fsdp2: it needs whole"):
        check_settings(resolve({**WORDS, **ON, "run.processes": "2", "run.parallelism": "fsdp2"}, REPOSITORY))
