"""Put the layers of a run's configuration together: profile < pipeline < domain < data manifest < command line.

Usage: `resolved = resolve({"domain": "medical", "cpt.train.learning_rate": "1e-5"}, repository)`.

Files hold plain nested keys; there is no inheritance inside them. How layers are merged is `common.config.build`; a
run with further layers is `common.config.variants`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.build import COMMAND_LINE, OWN_KEYS, build
from common.config.cleaning import KIND as CLEANING
from common.config.cleaning import PREFIX, pruned, roles_in
from common.config.files import DomainFile, read_domain_file
from common.config.folders import find_domain, name_of_run, names_in, read_named
from common.config.kinds import kind_of
from common.config.manifest_settings import check_manifest_settings
from common.config.node import Node
from common.config.overrides import nest, take_consent
from common.config.pipeline import Pipeline, load_pipeline, stages_in
from common.config.schema import Config
from common.config.stage_sections import Layer, adapters_alone, label_of
from common.config.yaml import read_manifest
from common.errors import ConfigError, did_you_mean
from common.system.secrets import find

DEFAULT_PROFILE = "tiny"
EMBEDDED = "embedded"  # the value of `data` for the knowledge that a domain brings
HUB = "hub"  # and for the data sets that its data.yaml names
DEFAULT_PIPELINE = "full"
BLOCKS = "blocks"  # key of a manifest
MANIFEST = "manifest "  # begins the labels of a manifest's layers


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
    consent: str | None = None  # of the command line of this very run: the digest of code that may run, or ANY
    given_name: str | None = None  # of the run; none: that of its pipeline
    members: Mapping[str, Resolved] = field(default_factory=dict)  # of a sequence: its run as each domain resolves it
    part_of: str = ""  # of a member: what the sequence is called
    order: str = ""  # of a sequence: why its domains come in this order
    # Its rows, or what is wrong with them, where they have been opened already: many sources take seconds.
    opened: Any = field(default=None, compare=False, repr=False)

    @property
    def shipped(self) -> bool:
        """Whether the domain came with the package, or is in the clone's `domains/`."""
        return self.domain_folder.parent == self.repository / "domains"

    @property
    def run_name(self) -> str:
        """Name of the run's folder in `runs/<domain>/<profile>/`."""
        return self.given_name or self.config.pipeline

    def member(self, node: Node) -> Resolved:
        """Return the run as the domain of a stage resolves it: of a sequence that member, else this one."""
        return self.members.get(node.domain, self)

    @property
    def own(self) -> tuple[Node, ...]:
        """The stages whose settings and rows are looked for here: all; in a sequence not those of other domains."""
        here = ("", self.config.domain)
        return tuple(node for node in self.nodes if node.domain in here or kind_of(node.kind).starts)

    def origin_of(self, key: str) -> str:
        """Return the layer that set a key, as messages name it; "" where none did."""
        return label_of(key, self.origins)


def resolve(
    overrides: Mapping[str, str], repository: Path, results: Path | None = None, *, pipeline: Pipeline | None = None
) -> Resolved:  # fmt: skip
    """Resolve a run from the command line's overrides; its results go to `out`, or else to `results` or `repository`.

    `pipeline` is one that no file holds, such as that of a sequence of domains.
    Raises ConfigError or DataError for the first thing that is wrong.
    """
    check_secrets(overrides, COMMAND_LINE)
    overrides = dict(overrides)
    given = overrides.pop("domain", "")
    if not given and (
        near := [key for key in overrides if "." not in key and "'domain'" in did_you_mean(key, OWN_KEYS)]
    ):
        raise ConfigError(f"{near[0]}: no such key. Did you mean 'domain'?")
    folder = find_domain(given, repository)
    consent = take_consent(overrides, folder.name)
    profile = overrides.pop("profile", DEFAULT_PROFILE)
    profile_values = read_named(repository / "pipelines" / "profiles", "profile", profile, "sections of settings")
    preferred = profile_values.pop("pipeline", DEFAULT_PIPELINE)
    profile_values.pop("description", None)
    said_by = "" if "pipeline" in overrides else f"profile {profile}"
    name = overrides.pop("pipeline", preferred)
    pipeline = pipeline or load_pipeline(repository / "pipelines", name, said_by)
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
    manifest = folder / "data.yaml" if data == HUB else data
    if data != EMBEDDED:
        pipeline = pipeline.model_copy(update=_cleaned(Path(manifest), [*layers, command_line]))
    layers += _manifest_layers(manifest, profile if own else None, profiles, pipeline)
    layers.append(command_line)
    for layer in layers[:-1]:
        check_secrets(layer.values, layer.label)

    config, origins = build(folder.name, profile, layers, pipeline, stages_in(repository / "pipelines"))
    return Resolved(
        config, origins, pipeline, nodes_of(pipeline, config), repository, folder,
        Path(data_root) if data_root else None, out,
        layers=tuple(layers), consent=consent, given_name=given_name,
    )  # fmt: skip


def nodes_of(pipeline: Pipeline, config: Config) -> tuple[Node, ...]:
    """Return the stages of a run in their order, each with the inputs that its settings let it read."""
    return pruned(pipeline.nodes(), config.stages, takes=config.model.path is not None)


def _cleaned(manifest: Path, layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """Return what a pipeline says of cleaning: all roles of a manifest, where anyone lists blocks."""
    raw = read_manifest(manifest)
    listed = isinstance(raw, dict) and BLOCKS in raw
    if not listed and not any(name == CLEANING or name.startswith(PREFIX) for layer in layers for name in layer.values):
        return {}
    return {"cleaned": tuple(roles_in(raw)), "far": tuple(roles_in(raw, hub=True))}


def check_secrets(values: Mapping[str, Any], where: str) -> None:
    """Refuse settings with a token or password, which would be written into plans and results. Raises ConfigError."""
    if place := find(values):
        raise ConfigError(
            f"{place} ({where}) holds what looks like an access token or a password. Plans, results and cards keep all "
            "settings: take it out, and set the variable that its program reads, such as HF_TOKEN."
        )


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
    value, label = next(((x.values["data"], x.label) for x in reversed(layers) if "data" in x.values), (EMBEDDED, ""))
    if not str(value).strip():
        raise ConfigError(f"data ({label}): expected {EMBEDDED}, {HUB} or the path of a manifest; got {value!r}.")
    return str(value)


def _manifest_layers(data: str | Path, profile: str | None, known: Sequence[str], pipeline: Pipeline) -> list[Layer]:
    """Return a manifest's settings for all runs, and those for the profile whose model is in use."""
    if data == EMBEDDED:
        return []
    path = Path(data)
    raw = read_manifest(path)
    given = raw if isinstance(raw, dict) else {}
    profiles = _keys_of(given, "profiles", path)
    if wrong := [name for name in profiles if name not in known]:
        raise ConfigError(f"{path}: profiles.{wrong[0]}: there is no such profile.{did_you_mean(wrong[0], known)}")
    blocks = {f"profiles.{name}": _keys_of(profiles, name, path) for name in profiles}
    check_manifest_settings(path, {"settings": _keys_of(given, "settings", path), **blocks}, pipeline)
    settings = _keys_of(given, "settings", path)
    if BLOCKS in given:
        if BLOCKS in settings.get(CLEANING, {}):
            raise ConfigError(f"{path}: {BLOCKS} is given twice: by itself, and in settings.{CLEANING}; keep one.")
        settings = {**settings, CLEANING: {**settings.get(CLEANING, {}), BLOCKS: given[BLOCKS]}}
    layers = [Layer(f"{MANIFEST}{path.name}", settings)]
    if profile in profiles:
        layers.append(Layer(f"{MANIFEST}{path.name}, profile {profile}", _keys_of(profiles, profile, path)))
    return layers


def _keys_of(values: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {key} holds {found!r}; expected keys such as cpt: {{tokens: …}}.")
    return found
