"""A merge's settings: every refusal with its key's path, what passes, and agreement with mergekit's own tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from common.config.stages import MergeSettings
from common.config.validation import validated
from common.errors import ConfigError
from common.training.merging import UNREAD, WITHOUT_BASE, build_recipe, check_merge, check_stages, list_weights

STAGES = ("base", "sft", "dpo")
WEIGHTED = {"sft": {"weight": 0.5}, "dpo": {"weight": 1.0}}


def check(settings: MergeSettings) -> None:
    check_stages(settings, STAGES, "merge")
    check_merge(settings, "merge")


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
    ({"models": {"sft": {"weight": 1}, "dop": {}}}, "merge.models.dop: 'dop' is not an input .* mean 'dpo'"),
    (ties(base="bass"), r"merge.base: 'bass' is not an input .* mean 'base'"),
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
    (stack({"model": "dop", "layer_range": [0, 1]}), r"merge.slices.0.sources.0.model: 'dop' is not an input"),
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
    ({"models": {"sft": {"weight": 1}, "dpo": {}}}, r"merge.models.dpo.weight is missing: the method needs it"),
    ({"method": "slerp", "base": "base", "models": {"dpo": {}}}, r"merge.parameters.t is missing: the method"),
    (linear([{"filter": "mlp", "value": 1}]), r"merge.models.dpo.weight: tensors that match no filter"),
    (linear("much"), r"merge.models.dpo.weight: expected a number; got 'much'.$"),
    (linear(float("nan")), r"merge.models.dpo.weight: expected a finite number .* got nan"),
    (linear([0.5, None]), r"merge.models.dpo.weight: expected a value, a list of values .* got \[0.5, None\]"),
    (linear([]), r"merge.models.dpo.weight: expected a value, .* got \[\]"),
    (linear([{"filter": "mlp", "value": []}]), r"merge.models.dpo.weight: expected a value, "),
    (linear([{"filter": "mlp"}]), r"merge.models.dpo.weight: expected .* \{filter: part of a tensor's name, value"),
    (linear([{"value": 1, "filtre": "mlp"}]), r"merge.models.dpo.weight: expected .* \{filter"),
    (linear([{"filter": 3, "value": 1}]), r"merge.models.dpo.weight: expected .* part of .* got \[\{'filter': 3"),
    (ties(models={"dpo": {"weight": 1, "density": 0}}), r"merge.models.dpo.density: expected a number above 0"),
    (ties(models={"dpo": {"weight": 1, "density": [1, 1.5]}}), r"merge.models.dpo.density: .* at most 1, .* got 1.5"),
    ({"method": "slerp", "base": "base", "models": {"dpo": {}},
      "parameters": {"t": [{"filter": "mlp", "value": [0, 2]}, {"value": 0.5}]}},
     r"merge.parameters.t: expected a number from 0 \(the base\) to 1 .* got 2"),
    (ties(parameters={"int8_mask": 2}), r"merge.parameters.int8_mask: expected true or false; got 2"),
    ({"method": "task_arithmetic", "base": "base", "models": {"dpo": {"weight": 1, "density": 0.5}}},
     r"merge.models.dpo.density: method task_arithmetic has no parameter 'density' here"),
    (linear(-1), r"the weights of sft, dpo sum to 0, and"),
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
    with pytest.raises(ConfigError, match=message):
        check(validated(MergeSettings, keys, prefix="merge"))


@pytest.mark.parametrize("keys", [
    ties(parameters={"int8_mask": True, "normalize": False, "rescale": True, "lambda": 0.9}),
    linear([0.2, 0.5, 1.0]), linear(-0.5), linear("1e-3"),
    linear(1, base="sft"), della(1.0), della([0.4, 0.6], epsilon=[0.1, 0.2]),
    {"models": {"sft": {}, "dpo": {}}, "parameters": {"weight": 1}},
    linear([{"filter": "mlp", "value": 1}], parameters={"weight": 0.5}),
    stack({"model": "dpo", "layer_range": [0, 1]}, models={"dpo": {"scale": 0.5}}),
])  # fmt: skip
def test_settings_that_mergekit_takes_pass(keys: dict[str, Any]) -> None:
    check(MergeSettings.model_validate(keys))


def test_a_models_scale_reaches_its_slices() -> None:
    settings = MergeSettings.model_validate(stack(LAYERS, models={"dpo": {"scale": 0.5}}))
    assert build_recipe(settings)["slices"] == [{"sources": [{**LAYERS, "parameters": {"scale": 0.5}}]}]


def test_what_is_known_without_mergekit_is_what_mergekit_says() -> None:
    from mergekit.merge_methods.base import BasePolicy
    from mergekit.merge_methods.registry import get

    for name in get_args(MergeSettings.model_fields["method"].annotation):
        spec = get(name).spec
        assert (spec.contract.base == BasePolicy.REQUIRED) == (name not in WITHOUT_BASE)
        assert UNREAD.get(name, frozenset()) <= {parameter.name for parameter in spec.parameters}


def test_weights_are_listed_for_the_card() -> None:
    assert list_weights(MergeSettings.model_validate(ties())) == {"sft": 0.5, "dpo": 1.0, "base": None}
    shared = {"models": {"sft": {"weight": 1}, "dpo": {}}, "parameters": {"weight": [0, 1]}}
    assert list_weights(MergeSettings.model_validate(shared)) == {"sft": 1, "dpo": [0, 1]}


def test_checking_settings_imports_nothing_heavy() -> None:
    code = """import sys, common.stages.merge
from common.config.stages import MergeSettings
from common.training.merging import check_stages
check_stages(MergeSettings(models={"a": {"weight": 1}, "b": {"weight": 1}}), ["a", "b"], "merge")
print([name for name in ("torch", "transformers", "mergekit", "safetensors") if name in sys.modules])"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
