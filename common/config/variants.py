"""A resolved run with a change: further overrides, another pipeline, or layers that follow from its data.

Usage: `again = with_layers(resolved, [Layer("own data: …", {"cpt": {"epochs": 4}}, stage="cpt")])`.

It reads no data. What a user's own data ask for is `common.engine.own_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.config.build import COMMAND_LINE, build
from common.config.overrides import nest
from common.config.pipeline import load_pipeline
from common.config.resolve import MANIFEST, Resolved, nodes_of
from common.config.schema import Config
from common.config.stage_sections import Layer
from common.errors import RecipeError


def with_overrides(resolved: Resolved, overrides: Mapping[str, str]) -> Config | None:
    """Return the configuration with further overrides; None for a frozen plan."""
    if not resolved.layers:
        return None
    layers = [*resolved.layers, Layer(COMMAND_LINE, nest(overrides))]
    return build(resolved.config.domain, resolved.config.profile, layers, resolved.pipeline, None)[0]


def with_layers(resolved: Resolved, added: Sequence[Layer], *, on_top: bool = False) -> Resolved:
    """Return a run with layers above those of profile, pipeline and domain, and below what its user wrote.

    With `on_top` they are above that too. A frozen plan stays as it is.
    """
    if not resolved.layers or not added:
        return resolved
    labels = [layer.label for layer in resolved.layers]
    first = next(i for i, label in enumerate(labels) if label.startswith(MANIFEST) or label == COMMAND_LINE)
    place = len(labels) if on_top else first
    layers = (*resolved.layers[:place], *added, *resolved.layers[place:])
    config, origins = build(resolved.config.domain, resolved.config.profile, layers, resolved.pipeline, None)
    nodes = nodes_of(resolved.pipeline, config)
    return replace(resolved, config=config, origins=origins, nodes=nodes, layers=layers)


def with_pipeline(resolved: Resolved, name: str) -> Resolved | None:
    """Return a run with another pipeline; None for a frozen plan, a broken one, and an override for a stage it lacks.

    Layers for single stages of the former pipeline are left out.
    """
    if not resolved.layers:
        return None
    config = resolved.config
    before = f"pipeline {config.pipeline}"
    kept = [layer for layer in resolved.layers if not layer.stage]
    try:
        pipeline = load_pipeline(resolved.repository / "pipelines", name)
        pipeline = pipeline.model_copy(update={"cleaned": resolved.pipeline.cleaned, "far": resolved.pipeline.far})
        layers = [Layer(f"pipeline {name}", pipeline.settings) if x.label == before else x for x in kept]
        config, origins = build(config.domain, config.profile, layers, pipeline, None)
    except RecipeError:
        return None
    return replace(
        resolved, config=config, origins=origins, pipeline=pipeline, nodes=nodes_of(pipeline, config),
        layers=tuple(layers), opened=None,
    )  # fmt: skip
