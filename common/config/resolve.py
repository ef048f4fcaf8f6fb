"""Put the layers of a run's configuration together: profile < pipeline < domain < data manifest < command line.

Usage: `resolved = resolve({"domain": "medical", "cpt.train.learning_rate": "1e-5"}, repository)`.

Files hold plain nested keys; there is no inheritance inside them. Unknown keys are refused at every depth with
the nearest valid one, and each value remembers the layer that set it. A run with further layers is
`common.config.variants`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.base import Precision, StageSettings
from common.config.files import DomainFile, read_domain_file
from common.config.folders import find_domain, name_of_run, names_in, read_named
from common.config.kinds import kind_of, kinds
from common.config.overrides import flatten, nest, take_consent
from common.config.pipeline import Node, Pipeline, load_pipeline
from common.config.precision import AUTO, native, with_precision
from common.config.schema import SCALARS, SECTIONS, Config, VerifySettings, section_of
from common.config.stage_sections import (
    Layer,
    adapters_alone,
    check_options,
    is_adapted,
    label_of,
    section_names,
    values_of,
)
from common.config.stages import AnsweringSettings, RewardedSettings
from common.config.trl_block import TrlBlock, nested, processes_of
from common.config.trl_mappings import rules_of, run_wide, translate
from common.config.trl_options import is_finite
from common.config.validation import validated
from common.config.yaml import read_manifest
from common.errors import ConfigError, did_you_mean

DEFAULT_PROFILE = "tiny"
EMBEDDED = "embedded"  # the value of `data` for the knowledge that a domain brings
HUB = "hub"  # and for the data sets that its data.yaml names
DEFAULT_PIPELINE = "full"
COMMAND_LINE = "command line"
MANIFEST = "manifest "  # begins the labels of a manifest's layers
OWN_KEYS = ("domain", "profile", "pipeline", "data_root", "out")  # of the command line that are no settings
OF_CHECKPOINT = ("revision", "facts", "chat_template")  # keys of `model` that hold for one `path`


@dataclass(frozen=True)
class Resolved:
    """A run's configuration with everything that is needed to plan it."""

    config: Config
    origins: Mapping[str, str]  # dotted key -> label of the layer that set it
    pipeline: Pipeline
    nodes: tuple[Node, ...]
    repository: Path  # shipped files: a clone, or the folder of the installed package
    domain_folder: Path  # of knowledge.yaml, data.yaml, stages.yaml, eval/: a shipped domain's, or one from anywhere
    data_root: Path | None = None
    out: Path = field(default_factory=Path)  # of artifacts/, runs/, models/ and speeds.json
    hub_revisions: Mapping[str, str] = field(default_factory=dict)  # of a frozen plan: `owner/name@branch` -> commit
    layers: tuple[Layer, ...] = ()  # what it was put together from; a frozen plan has none
    code_allowed: bool = False  # by the command line of this very run
    given_name: str | None = None  # of the run; none: that of its pipeline

    @property
    def shipped(self) -> bool:
        """Whether the domain came with the package, or is in the clone's `domains/`."""
        return self.domain_folder.parent == self.repository / "domains"

    @property
    def run_name(self) -> str:
        """Name of the run's folder in `runs/<domain>/<profile>/`."""
        return self.given_name or self.config.pipeline

    @property
    def may_run_code(self) -> bool:
        """Whether Python code of the domain's folder may be executed."""
        return self.shipped or self.code_allowed


def resolve(overrides: Mapping[str, str], repository: Path, results: Path | None = None) -> Resolved:
    """Resolve a run from the command line's overrides; its results go to `out`, or else to `results` or `repository`.

    Raises ConfigError or DataError for the first thing that is wrong.
    """
    overrides = dict(overrides)
    given = overrides.pop("domain", "")
    if not given and (
        near := [key for key in overrides if "." not in key and "'domain'" in did_you_mean(key, OWN_KEYS)]
    ):
        raise ConfigError(f"{near[0]}: no such key. Did you mean 'domain'?")
    folder = find_domain(given, repository)
    code_allowed = take_consent(overrides, folder.name)
    profile = overrides.pop("profile", DEFAULT_PROFILE)
    profile_values = read_named(repository / "pipelines" / "profiles", "profile", profile, "sections of settings")
    preferred = profile_values.pop("pipeline", DEFAULT_PIPELINE)
    profile_values.pop("description", None)
    name = overrides.pop("pipeline", preferred)
    pipeline = load_pipeline(repository / "pipelines", name)
    given_name = name_of_run(overrides.pop("name", None), name, repository)
    out = Path(overrides.pop("out", "") or results or repository).absolute()
    data_root = overrides.pop("data_root", None)

    command_line = Layer(COMMAND_LINE, nest(overrides))
    layers = [Layer(f"profile {profile}", profile_values, profile), Layer(f"pipeline {name}", pipeline.settings)]
    file = read_domain_file(folder, repository / "pipelines")
    layers += _domain_layers(file, given, profile, layers, command_line)
    data = _data_of([*layers, command_line])
    own = _suits(profile, [*layers, command_line])
    profiles = names_in(repository / "pipelines" / "profiles")
    layers += _manifest_layers(folder / "data.yaml" if data == HUB else data, profile if own else None, profiles)
    layers.append(command_line)

    config, origins = build(folder.name, profile, layers, pipeline)
    return Resolved(
        config, origins, pipeline, pipeline.nodes(), repository, folder, Path(data_root) if data_root else None, out,
        layers=tuple(layers), code_allowed=code_allowed, given_name=given_name,
    )  # fmt: skip


def _domain_layers(
    file: DomainFile, domain: str, profile: str, lower: Sequence[Layer], command_line: Layer
) -> list[Layer]:
    """Return the domain's layers: for all runs, for those of a checkpoint on real data, and for the profile.

    Every layer counts for what the run starts from: a checkpoint or an architecture, embedded data or real ones.
    Embedded data are small, whatever model reads them, so the settings for real runs do not hold there. They are made
    for the domain's own data sets: a profile of a checkpoint knows better what suits it on other data. What the domain
    says for a profile does not hold on real data for a model that it was not made for.
    """
    of_all = Layer(f"domain {domain}", file.all)
    made_for = file.profiles.get(profile)
    block = [] if made_for is None else [Layer(f"domain {domain}, profile {profile}", made_for, profile)]
    named = [layer for layer in (*lower, of_all, *block, command_line) if _names_model(layer)]
    own = _suits(profile, named)
    without_block = _data_of([*lower, of_all, command_line])
    if not own and without_block != EMBEDDED:
        block = []
    starts_from_checkpoint = bool(named) and named[-1].values["model"]["path"] is not None
    data = _data_of([*lower, of_all, *block, command_line])
    if not starts_from_checkpoint or data == EMBEDDED or (own and data != HUB):
        return [of_all, *block]
    # The settings for a checkpoint are for full fine-tuning. What the profile says of adapters holds over them.
    adapters = Layer(f"profile {profile}", adapters_alone(lower[0].values))
    return [of_all, Layer(f"domain {domain}, with a checkpoint", file.checkpoint), adapters, *block]


def _suits(profile: str, layers: Sequence[Layer]) -> bool:
    """Whether what is made for a profile suits the model: its own, its block's, or a checkpoint in the place of one."""
    named = [layer for layer in layers if _names_model(layer)]
    if not named or named[-1].profile == profile:
        return True
    return named[0].profile == profile and all(x.values["model"]["path"] for x in (named[0], named[-1]))


def _names_model(layer: Layer) -> bool:
    model = layer.values.get("model")
    return isinstance(model, Mapping) and "path" in model


def _data_of(layers: Sequence[Layer]) -> str:
    """Return `data` as the last layer that has it says."""
    return next((str(layer.values["data"]) for layer in reversed(layers) if "data" in layer.values), EMBEDDED)


def _manifest_layers(data: str | Path, profile: str | None, known: Sequence[str]) -> list[Layer]:
    """Return a manifest's settings for all runs, and those for the profile whose model is in use."""
    if data == EMBEDDED:
        return []
    path = Path(data)
    raw = read_manifest(path)
    given = raw if isinstance(raw, dict) else {}
    profiles = _keys_of(given, "profiles", path)
    if wrong := [name for name in profiles if name not in known]:
        raise ConfigError(f"{path}: profiles.{wrong[0]}: there is no such profile.{did_you_mean(wrong[0], known)}")
    layers = [Layer(f"{MANIFEST}{path.name}", _keys_of(given, "settings", path))]
    if profile in profiles:
        layers.append(Layer(f"{MANIFEST}{path.name}, profile {profile}", _keys_of(profiles, profile, path)))
    return layers


def _keys_of(values: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {key} holds {found!r}; expected keys such as cpt: {{tokens: …}}.")
    return found


def build(domain: str, profile: str, layers: Sequence[Layer], pipeline: Pipeline) -> tuple[Config, dict[str, str]]:
    """Merge the layers section by section, validate each, and remember who set what."""
    _check_sections(layers, pipeline)
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
    names = {"domain": domain, "profile": profile, "pipeline": pipeline.name}
    return validated(Config, {**names, **merged, **sections, "stages": stages}, origin=origin), origins


def _check_sections(layers: Sequence[Layer], pipeline: Pipeline) -> None:
    """Check that each key at the top of a layer is a section, and on the command line one of this pipeline's."""
    nodes = {node.name: node for node in pipeline.nodes()}
    in_pipeline = {name for node in nodes.values() for name in section_names(node)}
    known = {*SECTIONS, *SCALARS, *nodes, *kinds()}
    for layer in layers:
        for key, value in flatten(layer.values).items():
            if not is_finite(value):
                raise ConfigError(f"{key} ({layer.label}): expected a finite number; got {value}.")
        for key, value in layer.values.items():
            if key not in known:
                meant = did_you_mean(key, {*known, *(OWN_KEYS if layer.label == COMMAND_LINE else ())})
                raise ConfigError(f"{key} ({layer.label}): no section or stage of that name.{meant}")
            if key not in SCALARS and not isinstance(value, Mapping):
                raise ConfigError(f"{key} ({layer.label}): expected keys below it, got {value!r}.")
            if layer.label not in (COMMAND_LINE, f"pipeline {pipeline.name}"):
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


@contextlib.contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Note what is wrong with one stage or section and go on, so that one message names all of it."""
    try:
        yield
    except ConfigError as error:
        problems.append(str(error))


def _stage_settings(
    node: Node,
    layers: Sequence[Layer],
    origins: dict[str, str],
    computes: tuple[Precision, str] | None,
    block: TrlBlock,
) -> StageSettings:
    """Merge one stage's keys: in each layer those of its kind, of its settings name, and of the stage itself.

    What they say in TRL's words (`block`) is put into the stage's own at the end, when all that it needs is known.
    `computes` is what the run's device computes in, and why; None where the stage takes a model and trains none. Such a
    stage has no precision, so that its result is the same on every machine.
    """
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
            merged = _merge(_without_others(merged, values, cls), values, node.name, layer.label, origins)
    kept = translate(block, merged)
    for key, said in block.made.items():
        values = nested(key, said.value)
        merged = _merge(_without_others(merged, values, cls), values, node.name, said.label, origins)
    for name, value in kept.items():
        merged = _merge(merged, {"train": {name: value}}, node.name, block.words[name].label, origins)
    origins |= block.told_origins()
    if computes is None or merged.get("path") is not None:
        merged.pop("precision", None)
        origins.pop(f"{node.name}.precision", None)
    elif cls.trainer and merged.get("precision", AUTO) == AUTO:
        merged = _merge(merged, {"precision": computes[0]}, node.name, f"{AUTO}: {computes[1]}", origins)
    settings = validated(cls, merged, prefix=node.name, origin=functools.partial(label_of, origins=origins))
    check_options(settings, node)
    return settings


def _without_others(merged: Any, values: Mapping[str, Any], cls: type[StageSettings]) -> Any:
    """Return what lower layers say, without the keys that a value of this one excludes. Raises ConfigError for two."""
    said = [name for name in cls.either if values.get(name) is not None]
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(said)} are both set; keep one.")
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
