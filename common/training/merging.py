"""What a merge may ask for, checked by mergekit's own objects before the first stage, and its mergekit recipe.

Usage:
    check_stages(settings, inputs=["base", "sft", "dpo"], stage="merge")  # for a plan; loads no library
    check_merge(settings, stage="merge")  # for a run; loads mergekit
    recipe = build_recipe(settings)

mergekit says which parameters a method has, how many models it takes, and what a value is for a tensor. It ignores
unknown keys and accepts any number, so this module adds names and ranges. `common.stages.merge` does the merging.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.config.merge_parameters import ANY, RANGES, flaw
from common.config.stages import MergeSettings
from common.config.validation import explain
from common.errors import ConfigError, did_you_mean
from common.training.mergekit_patches import quiet_mergekit

if TYPE_CHECKING:
    from mergekit.merge_methods.base import MergeMethodSpec, ParameterSpec

WITHOUT_BASE = ("linear", "passthrough")  # all other methods measure differences from a base
# What mergekit lists for a method that never reads it.
UNREAD = {"task_arithmetic": frozenset({"density", "rescale", "int8_mask"})}
SOURCE_KEYS = ("model", "layer_range", "parameters")
Parameters = Mapping[str, Any]  # name -> value, gradient or filters


def list_weights(settings: MergeSettings) -> dict[str, Any]:
    """Return stage -> weight as set (a number, gradient or filters); None where the method gives it none."""
    weighted = any(p.name == "weight" for p in _spec(settings.method).input_parameters)
    common = settings.parameters.get("weight")
    return {
        name: settings.models[name].get("weight", common) if weighted and name != _base(settings) else None
        for name in settings.members()
    }


def check_stages(settings: MergeSettings, inputs: Sequence[str], stage: str) -> None:
    """Check the stages and layers that a merge names. Raises ConfigError with the key's path."""
    for name in settings.models:
        _require_input(f"{stage}.models.{name}", name, inputs)
    if settings.base is not None:
        _require_input(f"{stage}.base", settings.base, inputs)
    if settings.method == "passthrough":
        _check_slices(settings, inputs, stage)
    elif settings.slices is not None:
        raise ConfigError(
            f"{stage}.slices: method {settings.method} merges whole models. Remove the slices, or set "
            f"{stage}.method to passthrough."
        )
    if settings.method not in WITHOUT_BASE and settings.base is None:
        raise ConfigError(
            f"{stage}.base is missing: method {settings.method} measures differences from one stage's weights. "
            f"Set it to one of: {', '.join(inputs)}."
        )
    if settings.method in WITHOUT_BASE and settings.base is not None and settings.base not in settings.models:
        remedy = f", or give the stage a weight in {stage}.models.{settings.base}.weight"
        raise ConfigError(
            f"{stage}.base: method {settings.method} has no base, so the weights of '{settings.base}' would be left "
            f"out. Remove the key{remedy if settings.method == 'linear' else ''}."
        )
    given = [keys.get("weight", settings.parameters.get("weight")) for keys in settings.models.values()]
    weights = [weight for weight in given if isinstance(weight, int | float)]
    if settings.method == "linear" and len(weights) == len(given) > 1 and abs(math.fsum(weights)) < 1e-9:
        raise ConfigError(
            f"{stage}.models: the weights of {', '.join(settings.models)} sum to 0, and a linear merge divides by "
            "their sum. Change one weight."
        )


def check_merge(settings: MergeSettings, stage: str) -> None:
    """Let mergekit judge a merge's models and parameters. Raises ConfigError with the key, as `merge.models.dpo.t`."""
    spec = _spec(settings.method)
    _check_count(settings, spec, stage)
    unread = UNREAD.get(settings.method, frozenset())
    shared = [p for p in spec.shared_parameters if p.name not in unread]
    own = [p for p in spec.input_parameters if p.name not in unread]
    common_key = f"{stage}.parameters"
    common = _parse(common_key, settings.parameters, [*shared, *own], settings.method)
    scopes: dict[str, Parameters] = {}
    for key, model, given in _given(settings, stage):
        if name := next((p.name for p in shared if p.name in given), None):
            raise ConfigError(
                f"{key}.{name}: {name} holds for the whole merge in method {settings.method}. "
                f"Move it to {common_key}.{name}."
            )
        parsed = _parse(key, given, own, settings.method)
        if model != _base(settings):
            scopes[key] = parsed
        elif name := next(iter(parsed), None):
            raise ConfigError(
                f"{key}.{name}: '{model}' is the base, from which the other models' differences are taken. In "
                f"method {settings.method} it has no {name} of its own. Remove the key."
            )
    for pattern, depth in list_places([value for scope in (common, *scopes.values()) for value in scope.values()]):
        for parameter in shared:
            _resolve(parameter, {common_key: common}, pattern, depth)
        found = {
            key: {p.name: _resolve(p, {key: scope, common_key: common}, pattern, depth) for p in own}
            for key, scope in scopes.items()
        }
        _check_together(settings.method, found, pattern, depth, stage)


def build_recipe(settings: MergeSettings) -> dict[str, Any]:
    """Return the mergekit configuration with stage names where mergekit wants paths.

    The arithmetic is done in float32 whatever the stored type; only the result is rounded.
    """

    def entry(model: str, own: Parameters | None = None, **more: Any) -> dict[str, Any]:
        parameters = {**settings.models.get(model, {}), **(own or {})}
        return {"model": model, **more, **({"parameters": parameters} if parameters else {})}

    recipe: dict[str, Any] = {"merge_method": settings.method}
    if settings.method == "passthrough":
        sources = [piece["sources"][0] for piece in settings.slices or []]
        entries = [entry(s["model"], s.get("parameters"), layer_range=list(s["layer_range"])) for s in sources]
        recipe["slices"] = [{"sources": [one]} for one in entries]
    else:
        if base := _base(settings):
            recipe["base_model"] = base
        recipe["models"] = [entry(name) for name in settings.members()]
    if settings.parameters:
        recipe["parameters"] = dict(settings.parameters)
    return {**recipe, "dtype": "float32", "out_dtype": settings.dtype}


def _spec(method: str) -> MergeMethodSpec:
    with quiet_mergekit():
        from mergekit.merge_methods.registry import get
    return get(method).spec


def _base(settings: MergeSettings) -> str | None:
    """Return the stage from which differences are measured, or None where the method measures none."""
    return None if settings.method in WITHOUT_BASE else settings.base


def _require_input(key: str, name: str, inputs: Sequence[str]) -> None:
    if name not in inputs:
        raise ConfigError(f"{key}: '{name}' is not an input of this merge.{did_you_mean(name, inputs)}")


def _require_known(key: str, names: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}.{name}: unknown key.{did_you_mean(name, known)}")


def _check_slices(settings: MergeSettings, inputs: Sequence[str], stage: str) -> None:
    if not settings.slices:
        raise ConfigError(
            f"{stage}.slices is missing: method passthrough stacks layers. Give a list such as "
            "[{sources: [{model: sft, layer_range: [0, 2]}]}]."
        )
    for number, piece in enumerate(settings.slices):
        key = f"{stage}.slices.{number}"
        _require_known(key, piece, ["sources"])
        sources = piece.get("sources")
        if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
            raise ConfigError(
                f"{key}.sources: a slice of passthrough is taken from exactly one model; got {sources!r}. "
                "Give one {model, layer_range}, and further ones in slices of their own."
            )
        source, key = sources[0], f"{key}.sources.0"
        _require_known(key, source, SOURCE_KEYS)
        _require_input(f"{key}.model", str(source.get("model")), inputs)
        for name, value in (source.get("parameters") or {}).items():
            if problem := flaw(name, value):
                raise ConfigError(f"{key}.parameters.{name}: {problem}.")
        layers = source.get("layer_range")
        pair = isinstance(layers, list | tuple) and len(layers) == 2 and all(type(layer) is int for layer in layers)
        if not pair or not 0 <= layers[0] < layers[1]:  # type: ignore[index] # `pair` says that it is one
            raise ConfigError(
                f"{key}.layer_range: expected [first, end] with 0 <= first < end (the end is left out), got {layers!r}."
            )
    for name in settings.models:
        if name not in settings.members():
            raise ConfigError(f"{stage}.models.{name}: no slice takes layers of '{name}'. Remove it, or add a slice.")


def _check_count(settings: MergeSettings, spec: MergeMethodSpec, stage: str) -> None:
    if settings.method == "passthrough":
        return
    members, least, most = settings.members(), max(2, spec.contract.min_inputs), spec.contract.max_inputs
    if len(members) < least or (most is not None and len(members) > most):
        expected = f"exactly {least}" if most == least else f"at least {least}"
        base = ", its base included" if _base(settings) else ""
        raise ConfigError(
            f"{stage}.models: method {settings.method} takes {expected} models{base}; got {len(members)} "
            f"({', '.join(members) or 'none'}). "
            f"Name a model with {stage}.models.<stage>={{}}, or choose another method."
        )


def _given(settings: MergeSettings, stage: str) -> Iterator[tuple[str, str, Parameters]]:
    """Yield (key, model, its parameters) of every model, and of every slice's source."""
    for name in settings.members():
        yield f"{stage}.models.{name}", name, settings.models.get(name, {})
    for number, piece in enumerate(settings.slices or []):
        source = piece["sources"][0]
        yield f"{stage}.slices.{number}.sources.0.parameters", source["model"], source.get("parameters") or {}


def _parse(key: str, given: Parameters, known: Sequence[ParameterSpec], method: str) -> Parameters:
    """Return parameters as mergekit's settings. Raises ConfigError for unknown names and forms."""
    from mergekit.config import ConditionalParameter, ParameterSetting
    from pydantic import TypeAdapter

    names = [parameter.name for parameter in known]
    parsed = {}
    for name, value in given.items():
        if name not in names:
            raise ConfigError(
                f"{key}.{name}: method {method} has no parameter '{name}' here.{did_you_mean(name, names)}"
                + ("" if names else " It takes none.")
            )
        conditions = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
        try:
            parsed[name] = TypeAdapter(ParameterSetting).validate_python(value)
            empty = value == [] or any(item["value"] == [] for item in conditions)
            if empty or any(item.keys() - ConditionalParameter.model_fields.keys() for item in conditions):
                raise ValueError("empty, or with an unknown key")
        except ValueError as error:  # pydantic's are such
            raise ConfigError(
                f"{key}.{name}: expected a value, a list of values over the layers (a gradient), or a list of "
                f"{{filter: part of a tensor's name, value: …}}; got {value!r}."
            ) from error
    return parsed


def _resolve(parameter: ParameterSpec, scopes: Mapping[str, Parameters], tensor: str, depth: float) -> Any:
    """Return a parameter for a tensor at a depth from 0 (first layer) to 1 (last): from the first scope that sets it.

    `scopes` is key -> parameters. Raises ConfigError for a missing value and for one out of its range.
    """
    from mergekit.parameter_resolver import resolve_parameter
    from pydantic import BaseModel, ValidationError

    name = parameter.name
    key = f"{next((key for key, scope in scopes.items() if name in scope), next(iter(scopes)))}.{name}"
    try:
        value = resolve_parameter(parameter, scopes.values(), tensor_name=tensor, t=depth)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, BaseModel, error.errors()[0]["input"], prefix=key))) from error
    except RuntimeError as error:  # it is required, and no scope has a value for this tensor
        if not any(name in scope for scope in scopes.values()):
            raise ConfigError(f"{key} is missing: the method needs it. Set a number or a gradient.") from error
        raise ConfigError(
            f"{key}: tensors that match no filter would have no {name}. End the list with {{value: …}}."
        ) from error
    accepts, description = RANGES.get(name, ANY)
    if isinstance(value, float) and not (math.isfinite(value) and accepts(value)):
        raise ConfigError(f"{key}: expected {description}, or a list of them over the layers; got {value:.6g}.")
    return value


def list_places(settings: Sequence[Any]) -> Iterator[tuple[str, float]]:
    """Yield every (filter, depth) at which one of the settings bends, and two depths just beside it.

    Between two bends all settings are linear in depth, so a limit that holds at both ends holds between them. The
    neighbours are for a value that leaves a special one, such as a density of 1.
    """
    conditions = [item for value in settings for item in (value if isinstance(value, list) else [value])]
    filters = {item.filter for item in conditions if getattr(item, "filter", None)}
    lists = [value for value in (*settings, *(getattr(item, "value", None) for item in conditions))
             if isinstance(value, list)]  # fmt: skip
    bends = {step / (len(items) - 1) for items in lists if len(items) > 1 for step in range(len(items))} | {0.0, 1.0}
    near = {bend + side for bend in bends for side in (-1e-4, 1e-4) if 0 < bend + side < 1}
    depths = [*sorted(bends), *sorted(near)]
    for pattern in ["", *sorted(filters)]:
        yield from ((pattern, depth) for depth in depths)


def _check_together(method: str, found: Mapping[str, Parameters], pattern: str, depth: float, stage: str) -> None:
    """Check values that must fit together at one place: a linear merge's weights, della's density and epsilon."""
    if method == "linear" and abs(math.fsum(values["weight"] for values in found.values())) < 1e-9:
        where = f" for tensors with '{pattern}' in their name" if pattern else ""
        names = ", ".join(key.rpartition(".")[2] for key in found)
        raise ConfigError(
            f"{stage}.models: the weights of {names} sum to 0{where} at depth {depth:g} "
            "(0 is the first layer, 1 the last), and a linear merge divides by their sum. Change one weight."
        )
    for key, values in found.items() if method == "della" else ():
        density, epsilon = values["density"], values["epsilon"]
        if density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
            raise ConfigError(
                f"{key}.epsilon: della keeps a share of density - epsilon to density + epsilon of each row, which must "
                f"be between 0 and 1; got density {density:.6g} and epsilon {epsilon:.6g} at depth {depth:.3g}. Lower "
                "epsilon, or set density to 1 to keep everything."
            )
