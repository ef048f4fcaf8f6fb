"""A merge's settings: every refusal with its key's path, what passes, and agreement with mergekit's own tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.config.stages import MergeSettings
from common.errors import ConfigError
from common.training.merge_parameters import resolve_parameter
from common.training.merging import METHODS, build_recipe, check_merge, list_weights

STAGES = ("base", "sft", "dpo")
WEIGHTED = {"sft": {"weight": 0.5}, "dpo": {"weight": 1.0}}


def linear(weights: Any, **keys: Any) -> dict[str, Any]:
    return {"models": {"sft": {"weight": 1}, "dpo": {"weight": weights}}, **keys}


def ties(**keys: Any) -> dict[str, Any]:
    return {"method": "ties", "base": "base", "models": WEIGHTED, **keys}


def della(density: Any, **keys: Any) -> dict[str, Any]:
    return {"method": "della", "base": "base", "models": {"dpo": {"weight": 1, "density": density, **keys}}}


def stack(*sources: Any, **keys: Any) -> dict[str, Any]:
    return {"method": "passthrough", "slices": [{"sources": list(sources)}], **keys}


LAYERS = {"model": "dpo", "layer_range": [0, 1]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"models": {"sft": {"weight": 1}, "dop": {}}}, "merge.models.dop: 'dop' is not a stage .* mean 'dpo'"),
    (ties(base="bass"), r"merge.base: 'bass' is not a stage .* mean 'base'"),
    (ties(base=None), r"merge.base is missing: method ties measures .* one of: base, sft, dpo"),
    ({"method": "slerp", "models": {"dpo": {}}, "parameters": {"t": 0.5}}, "merge.base is missing: method slerp"),
    (linear(1, base="base"), r"merge.base: method linear has no base.*merge.models.base.weight"),
    (stack(LAYERS, base="base"), r"merge.base: method passthrough has no base.*Remove the key.$"),
    ({"models": {"sft": {"weight": 1}}}, r"merge.models: method linear takes at least 2 models; got 1 \(sft\)"),
    ({}, r"merge.models: .* got 0 \(none\)"),
    ({"method": "slerp", "base": "base", "models": {"sft": {}, "dpo": {}}, "parameters": {"t": 0.5}},
     r"slerp takes exactly 2 models, its base included; got 3 \(sft, dpo, base\)"),
    ({"method": "model_stock", "base": "base", "models": {"dpo": {}}}, "model_stock takes at least 3 models, its base"),
    ({"method": "della", "base": "base"}, r"della takes at least 2 models, its base included; got 1 \(base\)"),
    (linear(1, slices=[]), r"merge.slices: method linear merges whole models"),
    ({"method": "passthrough"}, r"merge.slices is missing: method passthrough stacks layers"),
    (stack(LAYERS, LAYERS), r"merge.slices.0.sources: a slice of passthrough is taken from exactly one model"),
    ({"method": "passthrough", "slices": [{"source": [LAYERS]}]}, r"merge.slices.0.source: unknown.* mean 'sources'"),
    (stack({**LAYERS, "layer_rang": [0, 1]}), r"sources.0.layer_rang: unknown key. Did you mean 'layer_range'"),
    (stack({"model": "dop", "layer_range": [0, 1]}), r"merge.slices.0.sources.0.model: 'dop' is not a stage"),
    (stack({"model": "dpo", "layer_range": [1, 1]}), r"sources.0.layer_range: expected \[first, end\] .* got \[1, 1\]"),
    (stack({"model": "dpo"}), r"sources.0.layer_range: expected \[first, end\] .* got None"),
    (stack({**LAYERS, "parameters": {"scal": 1}}), r"sources.0.parameters.scal: method passthrough has no"),
    (stack(LAYERS, models={"sft": {}}), r"merge.models.sft: no slice takes layers of 'sft'"),
    (ties(models={"dpo": {"weigth": 1}}), r"merge.models.dpo.weigth: method ties has no .* mean 'weight'"),
    (linear(1, parameters={"normalise": True}), r"merge.parameters.normalise: method linear has no .* 'normalize'"),
    (ties(parameters={"epsilon": 0.1}), r"merge.parameters.epsilon: method ties has no parameter 'epsilon'"),
    ({"method": "model_stock", "base": "base", "models": {"sft": {"weight": 1}, "dpo": {}}},
     r"merge.models.sft.weight: method model_stock has no parameter 'weight' here. It takes none."),
    ({"method": "slerp", "base": "base", "models": {"dpo": {"t": 0.5}}},
     r"merge.models.dpo.t: t holds for the whole merge in method slerp. Move it to merge.parameters.t"),
    (ties(models={**WEIGHTED, "base": {"weight": 1}}), r"merge.models.base.weight: 'base' is the base"),
    ({"models": {"sft": {"weight": 1}, "dpo": {}}}, r"merge.models.dpo.weight is missing: method linear needs it"),
    ({"method": "slerp", "base": "base", "models": {"dpo": {}}}, r"merge.parameters.t is missing: method slerp"),
    (linear([{"filter": "mlp", "value": 1}]), r"merge.models.dpo.weight: tensors that match no filter"),
    (linear("much"), r"merge.models.dpo.weight: expected a finite number, .* got 'much'.$"),
    (linear("1e-3"), r"merge.models.dpo.weight: expected a finite number, .* YAML takes it for text"),
    (linear(float("nan")), r"merge.models.dpo.weight: expected a finite number, .* got nan"),
    (linear(True), r"merge.models.dpo.weight: expected a finite number, .* got True"),
    (linear([0.5, None]), r"merge.models.dpo.weight: expected a finite number, .* got None"),
    (linear([]), r"merge.models.dpo.weight: the list is empty"),
    (linear([{"filter": "mlp"}]), r"merge.models.dpo.weight.0: expected \{filter: part of a tensor's name, value"),
    (linear([{"value": 1, "filtre": "mlp"}]), r"merge.models.dpo.weight.0: expected \{filter"),
    (linear([{"filter": 3, "value": 1}]), r"merge.models.dpo.weight.0.filter: expected part of .* got 3"),
    (ties(models={"dpo": {"weight": 1, "density": 0}}), r"merge.models.dpo.density: expected a number above 0"),
    (ties(models={"dpo": {"weight": 1, "density": [1, 1.5]}}), r"merge.models.dpo.density: .* at most 1, .* got 1.5"),
    ({"method": "slerp", "base": "base", "models": {"dpo": {}},
      "parameters": {"t": [{"filter": "mlp", "value": [0, 2]}, {"value": 0.5}]}},
     r"merge.parameters.t.0.value: expected a number from 0 \(the base\) to 1 .* got 2"),
    (ties(parameters={"int8_mask": 1}), r"merge.parameters.int8_mask: expected true or false, got 1"),
    (linear(-1), r"the weights of sft, dpo sum to 0 at depth 0"),
    (linear([0, -1]), r"the weights of sft, dpo sum to 0 at depth 1"),
    (linear([{"filter": "mlp", "value": -1}, {"value": 1}]), r"sum to 0 for tensors with 'mlp' in their name"),
    (della(0.5, epsilon=0.7), r"merge.models.dpo.epsilon: expected a number from 0 to below 0.5, .* got 0.7"),
    (della(0.5, epsilon=-0.1), r"merge.models.dpo.epsilon: expected a number from 0 to below 0.5"),
    (della(0.9), r"merge.models.dpo.epsilon: della keeps .* got density 0.9 and epsilon 0.15"),
    (della([0.5, 0.1]), r"merge.models.dpo.epsilon: della keeps .* got density 0.1"),
    (della([1.0, 0.5]), r"merge.models.dpo.epsilon: della keeps .* got density 0.99995"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_settings_that_cannot_be_merged_are_refused(keys: dict[str, Any], message: str) -> None:
    settings = MergeSettings.model_validate(keys)
    with pytest.raises(ConfigError, match=message):
        check_merge(settings, list(STAGES), "merge")


@pytest.mark.parametrize("keys", [
    ties(parameters={"int8_mask": True, "normalize": False, "rescale": True, "lambda": 0.9}),
    linear([0.2, 0.5, 1.0]), linear(-0.5), linear(1, base="sft"), della(1.0), della([0.4, 0.6], epsilon=[0.1, 0.2]),
    {"models": {"sft": {}, "dpo": {}}, "parameters": {"weight": 1}},
    linear([{"filter": "mlp", "value": 1}], parameters={"weight": 0.5}),
    stack({"model": "dpo", "layer_range": [0, 1]}, models={"dpo": {"scale": 0.5}}),
])  # fmt: skip
def test_settings_that_mergekit_takes_pass(keys: dict[str, Any]) -> None:
    check_merge(MergeSettings.model_validate(keys), list(STAGES), "merge")


def test_a_models_scale_reaches_its_slices() -> None:
    settings = MergeSettings.model_validate(stack(LAYERS, models={"dpo": {"scale": 0.5}}))
    assert build_recipe(settings)["slices"] == [{"sources": [{**LAYERS, "parameters": {"scale": 0.5}}]}]


def test_methods_and_parameters_are_mergekits() -> None:
    from mergekit.merge_methods.registry import get

    for name, method in METHODS.items():
        spec = get(name).spec
        assert method.shared <= {parameter.name for parameter in spec.shared_parameters}
        assert method.per_model <= {parameter.name for parameter in spec.input_parameters}
        assert set(method.required) == {parameter.name for parameter in spec.parameters if parameter.required}


def test_weights_are_listed_for_the_card() -> None:
    assert list_weights(MergeSettings.model_validate(ties())) == {"sft": 0.5, "dpo": 1.0, "base": None}
    shared = {"models": {"sft": {"weight": 1}, "dpo": {}}, "parameters": {"weight": [0, 1]}}
    assert list_weights(MergeSettings.model_validate(shared)) == {"sft": 1, "dpo": [0, 1]}


def test_checking_settings_imports_nothing_heavy() -> None:
    code = """import sys, common.stages.merge
from common.stage_settings import MergeSettings
from common.training.merging import check_merge
check_merge(MergeSettings(models={"a": {"weight": 1}, "b": {"weight": 1}}), ["a", "b"], "merge")
print([name for name in ("torch", "transformers", "mergekit", "safetensors", "yaml") if name in sys.modules])"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_resolve_follows_mergekits_own_reading() -> None:
    from mergekit.config import ConditionalParameter, evaluate_setting

    settings: tuple[Any, ...] = (
        0.5, [0, 0.3, 1], [0.2], [{"filter": "mlp", "value": [0, 1]}, {"value": 0.7}],
        [{"filter": "mlp", "value": 1}], {"filter": "*", "value": [1, 0.5]},
    )  # fmt: skip
    for setting in settings:
        parsed = setting
        if isinstance(setting, dict) or (isinstance(setting, list) and isinstance(setting[0], dict)):
            parsed = [ConditionalParameter(**item) for item in ([setting] if isinstance(setting, dict) else setting)]
        for name in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
            for depth in (0.0, 0.3, 0.5, 1.0):
                theirs = evaluate_setting(name, parsed, depth, validate=lambda value: value)
                assert resolve_parameter(setting, name, depth) == pytest.approx(theirs)
