"""Merge the layers of a run section by section, and validate each: its configuration, and who set what.

Usage: `config, origins = build("medical", "tiny", layers, pipeline)`.

Unknown keys are refused at every depth with the nearest valid one, and each value remembers the layer that set it.
Which layers a run has is `common.config.resolve`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from common.config.answering import AnsweringSettings, RewardedSettings
from common.config.base import Precision, StageSettings
from common.config.cleaning import hub_characters
from common.config.continued import behind_of
from common.config.kinds import kind_of, kinds
from common.config.method_rules import layer_of, settle_methods, tokens_of_methods
from common.config.node import Node
from common.config.numbers import is_finite
from common.config.overrides import flatten
from common.config.pipeline import Pipeline
from common.config.precision import AUTO, native, with_precision
from common.config.schema import SCALARS, SECTIONS, Config, VerifySettings, section_of
from common.config.stage_sections import Layer, check_options, is_adapted, label_of, section_names, values_of
from common.config.stages import TrainingSettings
from common.config.trl_block import TrlBlock, nested, processes_of
from common.config.trl_mappings import rules_of, run_wide, translate
from common.config.validation import validated
from common.errors import ConfigError, did_you_mean

COMMAND_LINE = "command line"  # the label of its layer
OWN_KEYS = (  # of the command line that are no settings
    "domain", "domains", "order", "profile", "pipeline", "data_root", "out", "name",
)  # fmt: skip
OF_CHECKPOINT = ("revision", "facts", "chat_template", "trust_remote_code")  # keys of `model` that hold for one `path`


def build(
    domain: str, profile: str, layers: Sequence[Layer], pipeline: Pipeline, elsewhere: Collection[str] | None = ()
) -> tuple[Config, dict[str, str]]:
    """Merge the layers section by section, validate each, and remember who set what.

    `elsewhere` are the stages of all pipelines, for which a file may have sections too; None: they are not known.
    """
    _check_sections(layers, pipeline, elsewhere)
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {"model": {}}
    for layer in layers:
        for key, values in layer.values.items():
            if key == "model":
                merged[key] = _of_same_checkpoint(merged[key], values)
            if key in SECTIONS or key in SCALARS:
                merged[key] = _merge(merged.get(key), values, key, layer.label, origins)
    origin = functools.partial(label_of, origins=origins)
    problems: list[str] = []
    stages: dict[str, StageSettings] = {}
    sections: dict[str, Any] = {}
    computes = native(merged.get("run", {}), merged.get("needs", {}))
    taken = merged["model"].get("path") is not None
    blocks: list[TrlBlock] = []
    for node in pipeline.nodes():
        with _gathered(problems):
            fixed = Layer(f"pipeline {pipeline.name}", {node.name: node.fixed})
            trains = not (taken and kind_of(node.kind).starts)
            cls = kind_of(node.kind).settings
            blocks.append(TrlBlock(node.name, cls, rules_of(cls), processes=processes_of(merged.get("run", {}))))
            stages[node.name] = _stage_settings(
                node, [*layers, fixed], origins, computes if trains else None, blocks[-1]
            )
    with _gathered(problems):
        for key, given in run_wide(blocks, [(layer.label, layer.values) for layer in layers]):
            for name, value in nested(key, given.value).items():
                merged[name] = _merge(merged.get(name), value, name, given.label, origins)
    for key in SECTIONS:
        if key in merged:
            with _gathered(problems):
                sections[key] = validated(section_of(key), merged.pop(key), prefix=key, origin=origin)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    verify = sections.get("verify", VerifySettings())
    stages = {name: _verified(settings, verify) for name, settings in stages.items()}
    labels = [layer.label for layer in layers]
    stages = settle_methods(pipeline.nodes(), stages, labels, origins, taken=taken)
    if control := tokens_of_methods(stages):
        model = sections["model"]
        tokens = tuple(dict.fromkeys([*model.control_tokens, *control]))
        if tokens != model.control_tokens:
            sections["model"] = model.model_copy(update={"control_tokens": tokens})
            origins["model.control_tokens"] = "the methods of " + ", ".join(dict.fromkeys(control.values()))
    behind = functools.partial(behind_of, nodes=pipeline.nodes(), stages=stages)
    for name, characters in hub_characters(pipeline.nodes(), stages, pipeline.far, behind).items():
        stages[name] = stages[name].model_copy(update={"hub_characters": characters})
        origins[f"{name}.hub_characters"] = "what the budgets of the stages need"
    names = {"domain": domain, "profile": profile, "pipeline": pipeline.name}
    return validated(Config, {**names, **merged, **sections, "stages": stages}, origin=origin), origins


def _check_sections(layers: Sequence[Layer], pipeline: Pipeline, elsewhere: Collection[str] | None) -> None:
    """Check that each key at the top of a layer is a section, and on the command line one of this pipeline's.

    A file may be for several pipelines, so it may also name the stages of others.
    """
    nodes = {node.name: node for node in pipeline.nodes()}
    in_pipeline = {name for node in nodes.values() for name in section_names(node)}
    own = {*SECTIONS, *SCALARS, *nodes, *in_pipeline}
    for layer in layers:
        of_run = layer.label in (COMMAND_LINE, f"pipeline {pipeline.name}")
        known = own if of_run else {*own, *kinds(), *(elsewhere or ())}
        for key, value in flatten(layer.values).items():
            if not is_finite(value):
                raise ConfigError(f"{key} ({layer.label}): expected a finite number; got {value}.")
        for key, value in layer.values.items():
            if key not in {*known, *kinds()} and (of_run or elsewhere is not None):
                meant = did_you_mean(key, {*known, *(OWN_KEYS if layer.label == COMMAND_LINE else ())})
                raise ConfigError(f"{key} ({layer.label}): no section or stage of that name.{meant}")
            if key not in SCALARS and not isinstance(value, Mapping):
                raise ConfigError(f"{key} ({layer.label}): expected keys below it, got {value!r}.")
            if not of_run:
                continue
            if key in kinds() and key not in in_pipeline:
                of_file = "" if layer.label == COMMAND_LINE else "settings."
                raise ConfigError(
                    f"{of_file}{key}: the pipeline {pipeline.name} has no such stage.{did_you_mean(key, nodes)}"
                )
            if layer.label != COMMAND_LINE:
                continue
            for name, fixed in (nodes[key].fixed if key in nodes else {}).items():
                if value.get(name, fixed) != fixed:
                    raise ConfigError(f"{key}.{name}: the pipeline {pipeline.name} fixes it at {fixed}; leave it out.")
                either = kind_of(nodes[key].kind).settings.either
                if name in either and (said := [one for one in either if one != name and value.get(one) is not None]):
                    raise ConfigError(
                        f"{key}.{said[0]}: the pipeline {pipeline.name} fixes {key}.{name} at {fixed}, which is in its "
                        "place; leave it out."
                    )


@contextlib.contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Note what is wrong with one stage or section and go on, so that one message names all of it."""
    try:
        yield
    except ConfigError as error:
        problems.append(str(error))


def _stage_settings(
    node: Node, layers: Sequence[Layer], origins: dict[str, str], computes: tuple[Precision, str] | None,
    block: TrlBlock,
) -> StageSettings:  # fmt: skip
    """Merge one stage's keys: in each layer those of its kind, of its settings name, and of the stage itself.

    What they say in TRL's words (`block`) is put into the stage's own at the end, when all that it needs is known.
    `computes` is what the run's device computes in, and why; None where the stage takes a model and trains none. Such a
    stage has no precision, so that its result is the same on every machine.
    """

    def add(merged: Any, values: Mapping[str, Any], label: str) -> Any:
        return _merge(_without_others(merged, values, cls, f"{node.name} ({label})"), values, node.name, label, origins)

    merged: Any = {}
    cls = kind_of(node.kind).settings
    adapted = is_adapted(node, layers)
    for number, layer in enumerate(layers):
        for place, given in enumerate(values_of(node, layer, adapted=adapted)):
            values = given
            if cls.trainer:
                values = block.take(given, layer.label, (number, place), decided=bool(layer.stage))
                values = with_precision(values, merged.get("precision"), node.name, layer.label)
            if not values:  # all that it says is in TRL's words
                continue
            if cls.choice in values and values[cls.choice] != merged.get(cls.choice):
                merged = {}
            merged = add(merged, values, layer.label)
    kept = translate(block, merged)
    for key, said in block.made.items():
        merged = add(merged, nested(key, said.value), said.label)
    for name, value in kept.items():
        merged = add(merged, {"train": {name: value}}, block.words[name].label)
    origins |= block.told_origins()
    if computes is None or merged.get("path") is not None:
        merged.pop("precision", None)
        origins.pop(f"{node.name}.precision", None)
    elif cls.trainer and merged.get("precision", AUTO) == AUTO:
        merged = add(merged, {"precision": computes[0]}, f"{AUTO}: {computes[1]}")
    origin = functools.partial(label_of, origins=origins)
    settings = validated(cls, merged, prefix=node.name, origin=origin)
    check_options(settings, node, origin)
    if isinstance(settings, TrainingSettings) and settings.mixture.replay is not None:
        _settle_replay(node, settings.mixture.replay, merged.get("replay"), [layer.label for layer in layers], origins)
    return settings


def _settle_replay(node: Node, share: float, said: Any, labels: Sequence[str], origins: dict[str, str]) -> None:
    """Say where a share of replay over all phases comes from. Raises ConfigError where a layer above says another."""
    key, phases = f"{node.name}.replay", f"{node.name}.mixture.phases"
    above, below = layer_of(key, labels, origins), layer_of(phases, labels, origins)
    if said not in (None, share) and above is not None and (below is None or above[0] >= below[0]):
        raise ConfigError(
            f"{key}={said} ({label_of(key, origins)}) is set next to {phases}, whose shares of replay make {share:g} "
            f"over all steps. Leave {key} out, or the replay of the phases."
        )
    origins[key] = phases


def _without_others(merged: Any, values: Mapping[str, Any], cls: type[StageSettings], where: str) -> Any:
    """Return what lower layers say, without the keys that a value of this one excludes. Raises ConfigError for two."""
    said = [name for name in cls.either if values.get(name) is not None]
    if len(said) > 1:
        raise ConfigError(f"{where}: {' and '.join(said)} are both set; keep one.")
    return {name: value for name, value in merged.items() if name not in cls.either} if said else merged


def _verified(settings: StageSettings, verify: VerifySettings) -> StageSettings:
    """Return a stage's settings with the domain's rewards, and its check, where the stage names none of its own."""
    if isinstance(settings, AnsweringSettings) and not settings.rewards:
        settings = settings.model_copy(update={"rewards": verify.rewards})
    if isinstance(settings, RewardedSettings) and settings.watch.check is None:
        settings = settings.model_copy(update={"watch": settings.watch.model_copy(update={"check": verify.check})})
    return settings


def _merge(old: Any, new: Any, prefix: str, label: str, origins: dict[str, str]) -> Any:
    """Merge nested mappings, later ones winning leaf by leaf; lists and scalars are replaced whole."""
    if isinstance(new, Mapping):
        merged = dict(old) if isinstance(old, Mapping) else {}
        for key, value in new.items():
            merged[key] = _merge(merged.get(key), value, f"{prefix}.{key}", label, origins)
        if not new:
            origins[prefix] = label
        return merged
    origins[prefix] = label
    return new


def _of_same_checkpoint(before: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what lower layers say of the model, without the facts of another checkpoint than the given one."""
    if "path" not in given or given["path"] == before.get("path"):
        return before
    return {key: value for key, value in before.items() if key not in OF_CHECKPOINT}
