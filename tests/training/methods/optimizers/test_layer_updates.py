"""The relative update of the lowest and the highest layers: its definition in float64, what it keeps, what is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import Step, method_of
from common.config.resolve import resolve
from common.errors import ConfigError
from common.report.chain import Chain
from common.report.method_notes import method_notes
from common.training.methods.applied import _course
from common.training.methods.optimizers.layer_updates import LayerUpdatesSettings, after_step, begin, ends
from tests.conftest import REPOSITORY, long
from tests.training.methods.conftest import Train, log, weights


def deep(number: int) -> Any:
    """Return a model of some layers of two weights, and an embedding beside them."""
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(number))
    return torch.nn.ModuleDict({"embed_tokens": torch.nn.Embedding(5, 3), "layers": layers})


def names(layers: range) -> list[str]:
    return [f"layers.{number}.{part}" for number in layers for part in ("weight", "bias")]


@pytest.mark.parametrize(
    ("number", "layers", "size"), [(26, 5, 5), (10, 5, 5), (9, 5, 1), (4, 5, 1), (1, 5, 1), (12, 7, 2), (12, 1, 1)]
)
def test_which_layers_are_measured(number: int, layers: int, size: int) -> None:
    model = deep(number)
    every = [name.replace("layers.", "model.layers.") for name, _ in model.named_parameters()]
    lowest, highest = ends(every, LayerUpdatesSettings(layers=layers))
    assert lowest == [f"model.{name}" for name in names(range(size))]
    assert highest == [f"model.{name}" for name in names(range(number - size, number))]


def inside(number: int) -> Any:
    return torch.nn.ModuleDict({"model": deep(number)})


def test_it_is_the_definition_and_keeps_what_it_measures_alone() -> None:
    model, settings = inside(10), LayerUpdatesSettings(layers=2, every=3)
    state = begin(Step(model, None, 0, 7), settings)
    assert set(state) == {f"model.{name}" for name in [*names(range(2)), *names(range(8, 10))]}
    first = {name: weight.detach().double().numpy().copy() for name, weight in model.named_parameters()}
    found = {}
    for step in range(1, 8):
        with torch.no_grad():
            for place, weight in enumerate(model.parameters()):
                weight += 0.01 * (place + 1) * torch.randn_like(weight)
        found[step] = after_step(Step(model, None, step, 7), settings, state)
    now = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}
    expected = []
    for side in (range(2), range(8, 10)):
        own = [f"model.{name}" for name in names(side)]
        moved, norm = (
            np.sqrt(sum(np.square(part).sum() for part in parts))
            for parts in ([now[name] - first[name] for name in own], [first[name] for name in own])
        )
        expected.append(moved / norm)
    assert [step for step, one in found.items() if one] == [3, 6, 7]
    assert found[7] == pytest.approx(
        {"step": 7, "lowest": expected[0], "highest": expected[1], "ratio": expected[0] / expected[1]}, rel=1e-5
    )


def test_before_anything_moves_there_is_no_ratio() -> None:
    model, settings = inside(4), LayerUpdatesSettings(every=1)
    state = begin(Step(model, None, 0, 2), settings)
    assert after_step(Step(model, None, 1, 2), settings, state) == {"step": 1, "lowest": 0.0, "highest": 0.0}


def test_frozen_weights_are_left_out_and_a_model_without_layers_is_measured_as_still() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.requires_grad_(False)
    state = begin(Step(model, None, 0, 1), LayerUpdatesSettings())
    still = after_step(Step(model, None, 1, 1), LayerUpdatesSettings(), state)
    assert still == {"step": 1, "lowest": 0.0, "highest": 0.0}


@pytest.mark.parametrize(
    ("lines", "shown"), [(0, []), (1, [0]), (3, [0, 1, 2]), (100, [0, 11, 22, 33, 44, 55, 66, 77, 88, 99])]
)
def test_the_card_shows_its_course_at_up_to_ten_steps(lines: int, shown: list[int]) -> None:
    method = method_of("layer_updates")
    written: list[dict[str, Any]] = [{"step": 1, "loss": 2.0}]
    written += [{"step": step, "layer_updates/lowest": 0.1, "layer_updates/ratio": 1.5} for step in range(lines)]
    course = _course(written, method)
    assert course == [{"step": step, "lowest": 0.1, "ratio": 1.5} for step in shown]
    facts = {"phrase": "p", "paper": "q", "settings": {}, "measured": {}, **({"course": course} if course else {})}
    notes = method_notes(Chain((), "cpt", {"cpt": {"kind": "cpt", "metrics": {"methods": {"layer_updates": facts}}}}))
    assert len(notes) == (3 if course else 2)
    if course:
        assert "Lowest" in notes[2]
        assert notes[2].count("0.1") == len(course)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cpt.peft": "lora"}, "peft=lora trains an adapter beside the layers"),
        ({"cpt.train_only": "embeddings"}, "train_only=embeddings trains rows of tokens alone, and all layers stay"),
    ],
)
def test_layers_that_stay_as_they_are_are_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"cpt\.methods\.layer_updates: {message}"):
        resolve({"domain": "medical", **words, "cpt.methods.layer_updates": "true"}, REPOSITORY)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [long("float32"), long("bfloat16")])
def test_a_training_is_the_same_with_it_and_its_course_is_measured(precision: str, train: Train) -> None:
    made = train(**{"cpt.methods.layer_updates.every": 3, "cpt.precision": precision})
    facts = made.manifest["metrics"]["methods"]["layer_updates"]
    assert [line["step"] for line in facts["course"]] == [3, 6, 8]
    moved = [line["lowest"] for line in facts["course"]]
    assert 0 < moved[0] < moved[1] < moved[2] == pytest.approx(facts["measured"]["lowest"], rel=1e-3)
    plain = train(**{"cpt.precision": precision})
    assert weights(plain) == weights(made)
    assert [line["loss"] for line in log(plain)] == [line["loss"] for line in log(made)]
