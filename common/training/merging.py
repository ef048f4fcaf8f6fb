"""What a merge may be asked for, checked before anything is loaded, and its mergekit recipe.

Usage:
    check_merge(settings, inputs=["base", "sft", "dpo"], stage="merge")
    recipe = build_recipe(settings)

It knows mergekit's methods and parameters by name and range, so that a mistake costs no time; it merges nothing
(`common.stages.merge` does) and needs neither torch nor mergekit. What the value of one parameter may be is
`common.training.merge_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config.stages import MergeSettings
from common.errors import ConfigError, did_you_mean
from common.training.merge_parameters import DELLA_EPSILON, check_parameter, list_places, resolve_scopes


@dataclass(frozen=True)
class Method:
    """What mergekit asks of one method."""

    least: int  # models, the base included
    most: int | None = None
    base: bool = True  # measures differences from a base
    shared: frozenset[str] = frozenset()  # parameters of the whole merge
    per_model: frozenset[str] = frozenset()  # parameters of each model other than the base
    required: tuple[str, ...] = ()


SIGNS = frozenset({"normalize", "rescale", "int8_mask", "lambda"})
METHODS = {
    "linear": Method(2, None, False, frozenset({"normalize"}), frozenset({"weight"}), ("weight",)),
    "slerp": Method(2, 2, True, frozenset({"t"}), frozenset(), ("t",)),
    "ties": Method(2, None, True, SIGNS, frozenset({"weight", "density"}), ("weight",)),
    "dare_ties": Method(2, None, True, SIGNS, frozenset({"weight", "density"}), ("weight",)),
    "della": Method(2, None, True, SIGNS, frozenset({"weight", "density", "epsilon"}), ("weight",)),
    "task_arithmetic": Method(
        2, None, True, frozenset({"normalize", "lambda"}), frozenset({"weight"}), ("weight",)
    ),
    "model_stock": Method(3, None, True, frozenset({"filter_wise"})),
    "passthrough": Method(1, None, False, frozenset(), frozenset({"scale"})),
}  # fmt: skip
SOURCE_KEYS = ("model", "layer_range", "parameters")


def list_weights(settings: MergeSettings) -> dict[str, Any]:
    """Return stage -> weight as set (a number, gradient or filters); None where the method gives it none."""
    weighted = "weight" in METHODS[settings.method].per_model
    common = settings.parameters.get("weight")
    others = [name for name in settings.members() if weighted and not _is_base(settings, name)]
    return {name: settings.models[name].get("weight", common) if name in others else None
            for name in settings.members()}  # fmt: skip


def check_merge(settings: MergeSettings, inputs: Sequence[str], stage: str) -> None:
    """Check a merge's stages and parameters without loading anything.

    Raises ConfigError with the key's path, such as `merge.models.dpo.weight`.
    """
    method = METHODS[settings.method]
    for name in settings.models:
        _require_input(f"{stage}.models.{name}", name, inputs)
    _check_base(settings, method, inputs, stage)
    if settings.method == "passthrough":
        _check_slices(settings, inputs, stage)
    elif settings.slices is not None:
        raise ConfigError(
            f"{stage}.slices: method {settings.method} merges whole models. Remove the slices, or set "
            f"{stage}.method to passthrough."
        )
    else:
        _check_count(settings, method, stage)
    for name, value in settings.parameters.items():
        check_parameter(f"{stage}.parameters.{name}", name, value, settings.method, method.shared | method.per_model)
    for model, parameters in settings.models.items():
        _check_model(settings, method, model, parameters, stage)
    _check_required(settings, method, stage)
    if settings.method == "linear":
        _check_sum(settings, stage)
    if settings.method == "della":
        _check_della(settings, stage)


def build_recipe(settings: MergeSettings) -> dict[str, Any]:
    """Return the mergekit configuration with stage names where mergekit wants paths.

    The arithmetic is done in float32 whatever the stored type; only the result is rounded.
    """
    recipe: dict[str, Any] = {"merge_method": settings.method}
    if settings.method == "passthrough":
        recipe["slices"] = [
            {"sources": [_with_parameters(source["model"], {**settings.models.get(source["model"], {}),
                                                            **(source.get("parameters") or {})},
                                          layer_range=list(source["layer_range"])) for source in piece["sources"]]}
            for piece in settings.slices or []
        ]  # fmt: skip
    else:
        if settings.base and METHODS[settings.method].base:
            recipe["base_model"] = settings.base
        recipe["models"] = [_with_parameters(name, settings.models.get(name, {})) for name in settings.members()]
    if settings.parameters:
        recipe["parameters"] = dict(settings.parameters)
    return {**recipe, "dtype": "float32", "out_dtype": settings.dtype}


def render_recipe(recipe: Mapping[str, Any], comments: Sequence[str]) -> str:
    """Return the recipe as YAML below comment lines."""
    import yaml

    head = "".join(f"# {line}\n" for line in comments)
    return head + yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)


def _with_parameters(model: str, parameters: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": model, **more, **({"parameters": dict(parameters)} if parameters else {})}


def _is_base(settings: MergeSettings, name: str) -> bool:
    """Whether a model is the origin of the differences, and so has no parameters of its own."""
    return METHODS[settings.method].base and name == settings.base


def _require_input(key: str, name: str, inputs: Sequence[str]) -> None:
    if name not in inputs:
        raise ConfigError(f"{key}: '{name}' is not a stage that this merge is given.{did_you_mean(name, inputs)}")


def _check_base(settings: MergeSettings, method: Method, inputs: Sequence[str], stage: str) -> None:
    if settings.base is not None:
        _require_input(f"{stage}.base", settings.base, inputs)
    if method.base and settings.base is None:
        raise ConfigError(
            f"{stage}.base is missing: method {settings.method} measures differences from one stage's weights. "
            f"Set it to one of: {', '.join(inputs)}."
        )
    if not method.base and settings.base is not None and settings.base not in settings.models:
        raise ConfigError(
            f"{stage}.base: method {settings.method} has no base, so the weights of '{settings.base}' would be left "
            f"out. Remove the key" + ("." if settings.method == "passthrough" else
                                      f", or give the stage a weight in {stage}.models.{settings.base}.weight.")
        )  # fmt: skip


def _check_count(settings: MergeSettings, method: Method, stage: str) -> None:
    members = settings.members()
    if len(members) < method.least or (method.most is not None and len(members) > method.most):
        expected = f"exactly {method.least}" if method.most else f"at least {method.least}"
        base = ", its base included" if method.base else ""
        raise ConfigError(
            f"{stage}.models: method {settings.method} takes {expected} models{base}; got {len(members)} "
            f"({', '.join(members) or 'none'}). "
            f"Name a model with {stage}.models.<stage>={{}}, or choose another method."
        )


def _check_slices(settings: MergeSettings, inputs: Sequence[str], stage: str) -> None:
    if not settings.slices:
        raise ConfigError(
            f"{stage}.slices is missing: method passthrough stacks layers. Give a list such as "
            "[{sources: [{model: sft, layer_range: [0, 2]}]}]."
        )
    for number, piece in enumerate(settings.slices):
        key = f"{stage}.slices.{number}"
        sources = piece.get("sources")
        for name in piece:
            if name != "sources":
                raise ConfigError(f"{key}.{name}: unknown key.{did_you_mean(name, ['sources'])}")
        if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
            raise ConfigError(
                f"{key}.sources: a slice of passthrough is taken from exactly one model; got {sources!r}. "
                "Give one {model, layer_range}, and further ones in slices of their own."
            )
        _check_source(f"{key}.sources.0", sources[0], inputs)
    for name in settings.models:
        if name not in settings.members():
            raise ConfigError(f"{stage}.models.{name}: no slice takes layers of '{name}'. Remove it, or add a slice.")


def _check_source(key: str, source: Mapping[str, Any], inputs: Sequence[str]) -> None:
    for name in source:
        if name not in SOURCE_KEYS:
            raise ConfigError(f"{key}.{name}: unknown key.{did_you_mean(name, SOURCE_KEYS)}")
    _require_input(f"{key}.model", str(source.get("model")), inputs)
    layers = source.get("layer_range")
    whole = isinstance(layers, list | tuple) and len(layers) == 2 and all(type(layer) is int for layer in layers)
    if not whole or not 0 <= layers[0] < layers[1]:  # type: ignore[index] # `whole` says that it is a pair
        raise ConfigError(
            f"{key}.layer_range: expected [first, end] with 0 <= first < end (the end is left out), got {layers!r}."
        )
    for name, value in (source.get("parameters") or {}).items():
        check_parameter(f"{key}.parameters.{name}", name, value, "passthrough", METHODS["passthrough"].per_model)


def _check_model(settings: MergeSettings, method: Method, model: str, parameters: dict[str, Any], stage: str) -> None:
    for name, value in parameters.items():
        key = f"{stage}.models.{model}.{name}"
        if name in method.shared:
            raise ConfigError(
                f"{key}: {name} holds for the whole merge in method {settings.method}. "
                f"Move it to {stage}.parameters.{name}."
            )
        check_parameter(key, name, value, settings.method, method.per_model)
        if _is_base(settings, model):
            raise ConfigError(
                f"{key}: '{model}' is the base, from which the other models' differences are taken; in method "
                f"{settings.method} it has no {name} of its own. Remove the key."
            )


def _scopes(settings: MergeSettings, name: str) -> dict[str, list[Any]]:
    """Return stage -> settings of a per-model parameter, the model's own before the whole merge's."""
    others = [model for model in settings.members() if not _is_base(settings, model)]
    common = settings.parameters.get(name)
    return {model: [settings.models.get(model, {}).get(name), common] for model in others}


def _check_required(settings: MergeSettings, method: Method, stage: str) -> None:
    for name in method.required:
        shared = name in method.shared
        scopes = {"": [settings.parameters.get(name)]} if shared else _scopes(settings, name)
        for model, values in scopes.items():
            if resolve_scopes(values, "", 0.0) is not None:
                continue
            key = f"{stage}.parameters.{name}" if shared else f"{stage}.models.{model}.{name}"
            if values == [None] * len(values):
                raise ConfigError(f"{key} is missing: method {settings.method} needs it. Set a number or a gradient.")
            raise ConfigError(
                f"{key}: tensors that match no filter would have no {name}. End the list with {{value: …}}."
            )


def _check_sum(settings: MergeSettings, stage: str) -> None:
    scopes = _scopes(settings, "weight")
    for pattern, depth in list_places([value for values in scopes.values() for value in values]):
        total = math.fsum(resolve_scopes(values, pattern, depth) for values in scopes.values())
        if abs(total) < 1e-9:
            where = f" for tensors with '{pattern}' in their name" if pattern else ""
            raise ConfigError(
                f"{stage}.models: the weights of {', '.join(scopes)} sum to 0{where} at depth {depth:g} "
                "(0 is the first layer, 1 the last), and a linear merge divides by their sum. Change one weight."
            )


def _check_della(settings: MergeSettings, stage: str) -> None:
    """Check epsilon against density, also just beside each bend: a gradient that leaves 1 passes 1 - epsilon."""
    epsilons = _scopes(settings, "epsilon")
    for model, densities in _scopes(settings, "density").items():
        for pattern, depth in list_places([*densities, *epsilons[model]], beside=1e-4):
            density = resolve_scopes([*densities, 1.0], pattern, depth)
            epsilon = resolve_scopes([*epsilons[model], DELLA_EPSILON], pattern, depth)
            if density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
                raise ConfigError(
                    f"{stage}.models.{model}.epsilon: della keeps a share of density - epsilon to density + epsilon "
                    f"of each row, which must lie between 0 and 1; got density {density:.6g} and epsilon "
                    f"{epsilon:.6g} at depth {depth:.3g}. Lower epsilon, or set density to 1 to keep everything."
                )
