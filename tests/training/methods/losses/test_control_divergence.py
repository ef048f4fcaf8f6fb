"""The pull of copies towards frozen layers against its definition in float64, and where it comes by itself."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from common.config.methods import LossBatch
from common.config.resolve import resolve
from common.errors import ConfigError
from common.models.growth.pairs import pairs_of
from common.training.methods.losses.control_divergence import METHOD, ControlDivergenceSettings, divergence, term
from tests.conftest import REPOSITORY
from tests.models.growth.small import IDS
from tests.models.growth.test_pairs import changed

WORDS = {"domain": "medical", "pipeline": "control-llm"}


def reference(h_p: np.ndarray, h_e: np.ndarray, form: str) -> Any:
    """At each position."""
    if form == "mse":
        return ((h_e - h_p) ** 2).mean(-1)
    norms = np.linalg.norm(h_p, axis=-1) * np.linalg.norm(h_e, axis=-1)
    away = np.maximum(0, 1 - (h_p * h_e).sum(-1) / norms)
    return np.where(away < 1, away**2 / 2, away - 0.5)


@pytest.mark.parametrize("form", ["mse", "cosine"])
def test_it_is_the_definition(form: str) -> None:
    h_p, h_e = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    h_e[0, 0], h_e[0, 1] = -h_p[0, 0], 3 * h_p[0, 1]  # beyond 1, where the smooth loss is straight; and no angle
    given = torch.tensor(h_e, requires_grad=True)
    found = divergence(torch.tensor(h_p), given, form)
    np.testing.assert_allclose(found.detach(), reference(h_p, h_e, form), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(given.grad).all()
    np.testing.assert_allclose(divergence(torch.tensor(h_p), torch.tensor(h_p), form), 0.0, atol=1e-12)


def passed(model: Any, learned: int = 5) -> LossBatch:
    ids = torch.tensor([IDS, IDS[::-1]])
    outputs = model(input_ids=ids, use_cache=False)
    next_BT = torch.full_like(ids, -100)
    next_BT[0, :learned] = 1
    return LossBatch(outputs.logits, next_BT, None, outputs, model=model)


@pytest.mark.parametrize("form", ["mse", "cosine"])
def test_the_term_is_the_mean_of_the_pairs_at_the_positions_that_are_learned(form: Literal["mse", "cosine"]) -> None:
    model = changed("dlerp").train()
    batch = passed(model)
    kept = [[one.detach().double().numpy() for one in pair.kept[:2]] for pair in pairs_of(model)]
    expected = np.mean([reference(h_p, h_e, form)[0, :5].sum() for h_p, h_e in kept])
    total, measured = term(batch, ControlDivergenceSettings(form=form, scale=0.5))
    assert float(total.detach()) == pytest.approx(0.5 * expected, rel=1e-5)
    assert float(measured["divergence"]) == pytest.approx(expected, rel=1e-5)
    total.backward()
    assert all(pair.kept is None for pair in pairs_of(model))
    assert all(float(pair.copy.mlp.up_proj.weight.grad.abs().sum()) > 0 for pair in pairs_of(model))


def test_at_a_scale_of_zero_no_distance_is_computed() -> None:
    model = changed("dlerp").train()
    total, measured = term(passed(model), ControlDivergenceSettings(scale=0))
    assert total == 0.0
    assert set(measured) == {"w"}
    assert all(pair.kept is None and pair.passes == 1 for pair in pairs_of(model))


@pytest.mark.parametrize("form", ["mse", "cosine"])
def test_it_is_the_same_however_a_step_is_split(form: Literal["mse", "cosine"]) -> None:
    """Four rows of instructions: some tokens are given, some answered, and the shorter rows are padded."""
    ids = torch.tensor([IDS, IDS[::-1], [*IDS[:4], 0, 0, 0, 0], [7, 7, 0, 0, 0, 0, 0, 0]])
    next_BT = torch.full_like(ids, -100)
    for row, (first, last) in enumerate([(1, 7), (5, 7), (2, 3), (0, 1)]):
        next_BT[row, first:last] = ids[row, first + 1 : last + 1]

    def step(each: int) -> list[float]:
        model = changed("dlerp").double().train()
        total = 0.0
        for rows, following in zip(ids.split(each), next_BT.split(each), strict=True):
            outputs = model(input_ids=rows, use_cache=False)
            batch = LossBatch(outputs.logits, following, None, outputs, model=model)
            found, _ = term(batch, ControlDivergenceSettings(form=form))
            found.backward()
            total += float(found.detach())
        return [total, *(float(pair.copy.mlp.up_proj.weight.grad.norm()) for pair in pairs_of(model))]

    whole = step(4)
    assert whole[0] > 0
    for each in (2, 1):
        assert step(each) == pytest.approx(whole, rel=1e-6)


def test_w_is_averaged_over_forward_passes_and_the_next_training_begins_its_own() -> None:
    model = changed("dlerp").train()
    seen = []
    for step in range(3):
        batch = passed(model)
        seen.append([float(pair.kept[2].detach().mean()) for pair in pairs_of(model)])
        term(batch, ControlDivergenceSettings(form="mse", scale=0.0))
        with torch.no_grad():
            for pair in pairs_of(model):
                pair.factor += step + 1
    np.testing.assert_allclose([float(pair.mean_w) for pair in pairs_of(model)], np.mean(seen, axis=0), rtol=1e-5)
    assert [int(pair.passes) for pair in pairs_of(model)] == [3, 3]
    assert METHOD.finish is not None
    METHOD.finish(model, None, None)
    assert [int(pair.passes) for pair in pairs_of(model)] == [0, 0]
    batch = passed(model)
    last = [float(pair.kept[2].detach().mean()) for pair in pairs_of(model)]
    term(batch, ControlDivergenceSettings(form="mse"))
    assert [float(pair.mean_w) for pair in pairs_of(model)] == pytest.approx(last)


def test_nothing_is_kept_outside_training() -> None:
    model = changed("lerp").eval()
    passed(model)
    assert all(pair.kept is None for pair in pairs_of(model))


def forms(**more: str) -> dict[str, Any]:
    resolved = resolve({**WORDS, **more}, REPOSITORY)
    return {name: settings.methods for name, settings in resolved.config.stages.items() if hasattr(settings, "methods")}


def test_it_comes_by_itself_behind_copies_and_its_form_by_the_kind_of_the_stage() -> None:
    found = forms()
    assert found["cpt-copies"] == {"control_divergence": {"form": "cosine"}}
    assert found["sft-copies"] == {"control_divergence": {"form": "mse"}}
    assert found["cpt"] == found["sft"] == {}
    said = forms(**{"sft-copies.methods": "{control_divergence: {form: cosine, scale: 0}}"})
    assert said["sft-copies"] == {"control_divergence": {"form": "cosine", "scale": 0.0}}
    for way in (
        {"sft-copies.methods.control_divergence": "false"},
        {"sft-copies.methods": "{control_divergence: false}"},
    ):
        with pytest.raises(ConfigError, match=r"sft-copies\.methods\.control_divergence .*\.scale=0, which leaves"):
            forms(**way)
    other = {"expand.method": "llama_pro", "pipeline": "growth", "expand.added": "2"}
    assert forms(**other)["cpt-added"] == {}


def test_without_copies_it_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"cpt\.methods\.control_divergence: no layer has a copy beside it here\. Put"
    ):
        forms(**{"cpt.methods": "[control_divergence]"})
