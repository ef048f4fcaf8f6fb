"""Advantage-weighted regression against its definition in float64, and the head that learns with the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.config.batches import unshardable
from common.config.resolve import resolve
from common.config.schema import Config
from common.errors import ConfigError
from common.training.fit import fit, trainer_for
from common.training.loop.loss_guard import LossSpikeGuard
from common.training.methods.losses.advantage_weighted import AdvantageWeightedSettings, head, term
from tests.conftest import REPOSITORY
from tests.training.methods.losses.test_self_distillation import softmax
from tests.training.methods.losses.test_unlikelihood import batch
from tests.training.methods.scored import built, context

METHODS = {"advantage_weighted": {"by": "bad", "beta": 0.5}}


@pytest.mark.parametrize(("better", "beta", "alpha"), [("lower", 0.3, 0.5), ("higher", 0.2, 0.8), ("lower", 1e-3, 0.5)])
def test_it_is_the_definition(better: Literal["lower", "higher"], beta: float, alpha: float) -> None:
    settings = AdvantageWeightedSettings(by="bad", better=better, beta=beta, alpha=alpha)
    reads = head(3, settings)
    with torch.no_grad():
        reads.weight.copy_(torch.tensor([[0.3, -0.2, 0.1]]))
        reads.bias.fill_(0.05)
    hidden = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    given = replace(batch(), head=reads, outputs=SimpleNamespace(hidden_states=(None, hidden)))
    probabilities = softmax(given.logits_BTV.detach().double().numpy())
    values = hidden.detach().double().numpy() @ np.array([0.3, -0.2, 0.1]) + 0.05
    scores, following = given.scores["bad"].double().numpy(), given.next_BT.numpy()
    total, weights, errors, slope = 0.0, 0.0, 0.0, 0.0
    for place in np.ndindex(following.shape):
        if following[place] == -100:
            continue
        reward = scores[place] if better == "higher" else -scores[place]
        weight = 1.0 if np.isnan(reward) else min(np.exp((reward - values[place]) / beta), 1000)
        total -= alpha * weight * np.log(probabilities[place][following[place]])
        weights += weight
        if not np.isnan(reward):
            errors += (values[place] - reward) ** 2
            slope += (1 - alpha) * 2 * (values[place] - reward)  # of the loss by the bias: the advantage has no part
    found, measured = term(given, settings)
    assert float(found.detach()) == pytest.approx(total + (1 - alpha) * errors, rel=1e-4)
    assert float(measured["weight"]) == pytest.approx(weights, rel=1e-4)
    assert float(measured["error"]) == pytest.approx(errors, rel=1e-5)
    found.backward()
    assert float(reads.bias.grad) == pytest.approx(slope, rel=1e-5)


def test_without_a_score_it_is_the_usual_loss_and_the_head_still_has_a_gradient() -> None:
    settings = AdvantageWeightedSettings(by="bad", alpha=1.0)
    reads = head(3, settings)
    outputs = SimpleNamespace(hidden_states=(torch.ones(2, 5, 3),))
    given = replace(batch(torch.full((2, 5), float("nan"))), head=reads, outputs=outputs)
    found, _ = term(given, settings)
    usual = torch.nn.functional.cross_entropy(
        given.logits_BTV.flatten(0, 1), given.next_BT.flatten(), ignore_index=-100, reduction="sum"
    )
    assert float(found.detach()) == pytest.approx(float(usual.detach()), rel=1e-6)
    found.backward()
    assert float(reads.bias.grad) == 0.0  # under DDP each process has one


def test_the_head_learns_the_reward_and_is_no_part_of_the_result(
    tokenizer: Any, model: Any, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, note = [], LossSpikeGuard.note

    def noted(self: LossSpikeGuard, *given: Any, **more: Any) -> None:
        compared.append(self.usual)
        note(self, *given, **more)

    monkeypatch.setattr(LossSpikeGuard, "note", noted)
    given = context(tmp_path / "a", config, METHODS, epochs=4, train={"learning_rate": 0.02})
    names = set(model.state_dict())
    trained = fit(given, model, tokenizer, built(given, tokenizer))
    numbers = trained.measured["methods"]["advantage_weighted"]["measured"]
    assert numbers["error"] < 0.05  # rewards are -1 and -0.1; of their mean the error is 0.18
    assert set(trained.model.state_dict()) == names
    assert set(compared) == {max}  # losses that differ by batch are no spikes


def test_a_training_that_goes_on_has_the_head_of_its_checkpoint(
    tokenizer: Any, model: Any, config: Config, tmp_path: Path
) -> None:
    given = context(tmp_path / "a", config, METHODS, train={"save_steps": 2, "save_strategy": "steps"})
    trainer = trainer_for(given, model, tokenizer, built(given, tokenizer), tmp_path / "trainer")
    trainer.train()
    whole = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    saved = sorted((tmp_path / "trainer").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    kept = load_file(str(saved[0] / "model.safetensors"))
    assert kept["head_of_advantage_weighted.bias"].abs() > 0
    again = trainer_for(given, trainer.model, tokenizer, built(given, tokenizer), tmp_path / "trainer")
    again.train(resume_from_checkpoint=str(saved[0]))
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, whole[name]), name


def test_what_it_does_not_go_with_is_refused() -> None:
    for other in ("unlikelihood", "reward_weighted"):
        with pytest.raises(ConfigError, match=r"cpt\.methods: \w+ and \w+ cannot be on together; keep one\."):
            resolve({"domain": "medical", "cpt.methods": f"[{other}, advantage_weighted]"}, REPOSITORY)
    words = {"domain": "medical", "cpt.methods": "[advantage_weighted]"}
    with pytest.raises(ConfigError, match=r"peft=lora keeps an adapter alone"):
        resolve({**words, "cpt.peft": "lora"}, REPOSITORY)
    config = resolve({**words, "run.processes": "2", "run.parallelism": "fsdp2"}, REPOSITORY).config
    assert unshardable(config.stages["cpt"], config.run) == "methods.advantage_weighted"
