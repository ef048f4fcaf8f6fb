"""Layers with a copy beside them: each interpolation against its definition in float64, and the model as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from common.config.growth import ExpandSettings
from common.errors import ConfigError
from common.models.growth.configs import grown_config, places_of
from common.models.growth.growing import grow
from common.models.growth.pair_configs import mixing_weights, require_plain_folder
from common.models.growth.pairs import dlerp_weight, learning_parts, lerp, pairs_of, slerp
from tests.models.growth.small import FAMILIES, IDS, SIZES, _norm, layer, logits_of, small, weights_of

Array = Any
Interpolation = Literal["lerp", "dlerp", "slerp"]
HOW: tuple[Interpolation, ...] = ("lerp", "dlerp", "slerp")


def settings_of(how: Interpolation, added: int = 2) -> ExpandSettings:
    return ExpandSettings(method="control_llm", added=added, interpolation=how)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def arc(a: Array, b: Array, w: Array) -> Array:
    """The slerp of the last dimension, and the lerp of all where one angle is below 1e-4."""
    cosine = (a * b).sum(-1, keepdims=True) / np.linalg.norm(a, axis=-1, keepdims=True)
    angle = np.arccos(np.clip(cosine / np.linalg.norm(b, axis=-1, keepdims=True), -1, 1))
    if (angle < 1e-4).any():
        return (1 - w) * a + w * b
    return np.sin((1 - w) * angle) / np.sin(angle) * a + np.sin(w * angle) / np.sin(angle) * b


def vectors(*shape: int, seed: int = 0) -> tuple[Any, Any]:
    a, b = np.random.default_rng(seed).normal(size=(2, *shape))
    return torch.tensor(a), torch.tensor(b)


def changed(how: Interpolation, family: str = "llama") -> Any:
    """A paired model whose copies and weights of tokens are not what they were."""
    model = grow(small(family), settings_of(how), "expand").model
    torch.manual_seed(1)
    with torch.no_grad():
        for part in learning_parts(model, trained=True):
            for weight in part.parameters() if isinstance(part, torch.nn.Module) else [part]:
                weight.add_(torch.randn_like(weight) * 0.3)
    return model


def logits(weights: dict[str, Array], config: Any) -> Array:
    """The logits (T, V) of a paired model in float64, from its definition."""
    hidden, how = weights["model.embed_tokens.weight"][IDS], config.interpolation
    for place in range(4):
        own = {name.split(f"layers.{place}.")[1]: one for name, one in weights.items() if f".layers.{place}." in name}
        if place not in config.expanded_layers:
            hidden = layer(hidden, own, config)
            continue
        parts = [{name.split(f"{part}.")[1]: one for name, one in own.items() if name.startswith(part)}
                 for part in ("original", "copy")]  # fmt: skip
        h_p, h_e = (layer(hidden, part, config) for part in parts)
        shift = np.concatenate([h_p, h_e], -1) @ own["mixer"].T if how == "dlerp" else 0.0
        w = sigmoid(shift + own["factor"])
        hidden = arc(h_p, h_e, w) if how == "slerp" else (1 - w) * h_p + w * h_e
    return _norm(hidden, weights["model.norm.weight"], config) @ weights["model.embed_tokens.weight"].T


def test_lerp_and_dlerp_are_their_definitions() -> None:
    a, b = vectors(2, 3, 4)
    np.testing.assert_allclose(lerp(a, b, 0.3).numpy(), 0.7 * a.numpy() + 0.3 * b.numpy(), atol=1e-12)
    assert torch.equal(lerp(a, a, 0.3), a)
    weight, bias = torch.linspace(-1, 1, 8, dtype=torch.float64)[None], torch.tensor([0.2], dtype=torch.float64)
    w_BT1 = dlerp_weight(a, b, weight, bias)
    both = np.concatenate([a.numpy(), b.numpy()], -1)
    np.testing.assert_allclose(w_BT1.numpy(), sigmoid(both @ weight.numpy().T + 0.2), atol=1e-12)
    assert torch.equal(
        dlerp_weight(a, b, torch.zeros(1, 8).double(), torch.zeros(1).double()), torch.full((2, 3, 1), 0.5)
    )


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
def test_slerp_is_its_definition_and_falls_back_to_lerp_where_one_angle_is_small(w: float) -> None:
    a, b = vectors(2, 3, 4)
    np.testing.assert_allclose(slerp(a, b, w).numpy(), arc(a.numpy(), b.numpy(), w), atol=1e-6)
    b[0, 1] = 2 * a[0, 1]  # an angle of 0
    np.testing.assert_allclose(slerp(a, b, w).numpy(), (1 - w) * a.numpy() + w * b.numpy(), atol=1e-6)
    rows = slerp(a, b, w, each=True).numpy()
    np.testing.assert_allclose(rows[1], arc(a[1].numpy(), b[1].numpy(), w), atol=1e-6)
    np.testing.assert_allclose(rows[0, 1], (1 + w) * a[0, 1].numpy(), atol=1e-6)


@pytest.mark.parametrize(("angle", "on_a_line"), [(0.5e-4, True), (2e-4, False)])
def test_the_border_of_the_fallback(angle: float, on_a_line: bool) -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[np.cos(angle), np.sin(angle)], [0.0, 1.0]], dtype=torch.float32)
    middle = slerp(a, b, 0.5)[1]
    assert float(middle.norm()) == pytest.approx(np.sqrt(0.5) if on_a_line else 1.0, rel=1e-5)


@pytest.mark.parametrize("other", ["equal", "opposite"])
def test_gradients_of_slerp_are_finite_at_both_ends(other: str) -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    b = (a if other == "equal" else -a).clone().requires_grad_()
    slerp(a, b, 0.5).sum().backward()
    assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", HOW)
def test_logits_stay_and_only_our_classes_load_the_result(how: Interpolation, family: str, tmp_path: Path) -> None:
    model = small(family, tie_word_embeddings=how == "dlerp")
    grown = grow(model, settings_of(how), "expand", seed=1)
    assert torch.equal(logits_of(grown.model), logits_of(model))
    assert (grown.added, grown.preserving) == ((2, 5), True)
    assert [pair.mean_w.item() for pair in pairs_of(grown.model)] == [0.5, 0.5]
    other = changed(how, family)
    other.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(logits_of(loaded), logits_of(other))
    assert f"control_{family}" not in CONFIG_MAPPING._mapping  # of transformers itself
    with pytest.raises(ConfigError, match=r"have copies beside them \(control_llm\).*Add a stage of kind collapse to"):
        require_plain_folder(tmp_path)


@pytest.mark.parametrize("how", HOW)
def test_the_whole_model_is_its_definition(how: Interpolation) -> None:
    model = changed(how)
    assert np.abs(logits(weights_of(model), model.config) - logits_of(model).numpy()).max() < 1e-3
    ids = torch.tensor([IDS])
    written = [model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*written)  # a copy has keys and values of its own


@pytest.mark.parametrize("how", HOW)
def test_gradients_of_the_lowest_copy_are_those_of_the_definition(how: Interpolation) -> None:
    """They also pass through the frozen layers above: each is held to differences of the logits in numpy."""
    model = changed(how)
    random = np.random.default_rng(0)
    out = random.normal(size=(len(IDS), SIZES["vocab_size"]))
    model.train().requires_grad_(False)
    for part in learning_parts(model, trained=False):
        part.requires_grad_(True)
    (model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0].double() * torch.tensor(out)).sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert all(".copy." in name or name.endswith("mixer") for name in gradients)
    assert len(gradients) == 2 * 9 + 2 * (how == "dlerp")
    weights = weights_of(model)
    lowest = [name for name in gradients if name.startswith("model.layers.1.copy.")]
    assert len(lowest) == 9
    for name in lowest:
        way = random.normal(size=weights[name].shape)
        ends = [logits({**weights, name: weights[name] + side * way}, model.config) for side in (1e-5, -1e-5)]
        expected = ((ends[0] - ends[1]) * out).sum() / 2e-5
        assert (gradients[name].double().numpy() * way).sum() == pytest.approx(expected, rel=2e-3, abs=1e-3), name


@pytest.mark.parametrize("how", ["lerp", "dlerp"])
def test_a_plan_counts_what_weighs_a_layer_and_its_copy(how: Interpolation) -> None:
    model = changed(how)
    pairs = pairs_of(model)
    copies = sum(weight.numel() for pair in pairs for weight in pair.copy.parameters())
    layers = copies + sum(weight.numel() for pair in pairs for weight in pair.original.parameters())
    own = sum(weight.numel() for pair in pairs for weight in pair.parameters()) - layers
    for trained in (True, False):
        parts = learning_parts(model, trained=trained)
        weights = [[part] if isinstance(part, torch.nn.Parameter) else [*part.parameters()] for part in parts]
        learned = sum(weight.numel() for part in weights for weight in part) - copies
        assert mixing_weights({**model.config.to_dict(), "train_interpolation": trained}) == (own, learned)
    assert mixing_weights(small("llama").config.to_dict()) == (0, 0)


def test_a_plan_knows_the_shape_and_refuses_to_grow_twice() -> None:
    plain = {"model_type": "qwen3", "num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"]}
    after = grown_config(settings_of("lerp"), plain, "expand")
    assert after["layer_types"] == ["a", "b", "c", "d", "b", "d"]
    assert (after["model_type"], after["num_hidden_layers"], after["expanded_layers"]) == ("control_qwen3", 6, [1, 3])
    assert places_of(settings_of("lerp"), plain, "expand") == (2, 5)  # 0, 1 and its copy, 2, 3 and its copy
    with pytest.raises(ConfigError, match=r"again: the layers of the stage before it have copies.*before again\."):
        grown_config(settings_of("lerp"), after, "again")
    with pytest.raises(ConfigError, match=r"expand\.added=3: control_llm parts the model's 4 layers"):
        grown_config(settings_of("lerp", added=3), plain, "expand")
    with pytest.raises(ConfigError, match=r"expand\.method=control_llm: the stage before it is a model of type gemma2"):
        grown_config(settings_of("lerp"), {**plain, "model_type": "gemma2"}, "expand")
