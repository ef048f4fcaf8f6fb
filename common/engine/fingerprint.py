"""What defines a stage's result: its recipe, whose hash is the fingerprint.

Usage: `recipe = recipe_of(node, resolved, corpus, inputs)`; `fingerprint_of(recipe)` is its hash. The code that made a
result is `common.engine.code`.

A recipe holds data, hyper-parameters, seed and the digests of the inputs; never device, paths, workers, logging. Values
that equal the declared defaults are left out, so that a new setting changes no fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.base import StageSettings
from common.config.blocks import block_of, chosen
from common.config.cleaning import DataSettings, benchmarks_of, cleaned_roles, from_lineage, uses_seed
from common.config.continued import behind_of
from common.config.defaults import differing, filled
from common.config.domain_code import EXAMS, SCORERS
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import Config, ModelSettings
from common.data.corpus import Corpus
from common.data.scorers import scorer_names
from common.engine.corpora import data_folder
from common.models.licence import licence_of
from common.models.settings_files import CONFIG
from common.models.source import digest_checkpoint, taken_model
from common.models.tokenizer import WORDS
from common.rewards.own import FILE, own_names
from common.stage import data_roles, holds_apart
from common.store.artifacts import Artifact, digest_file
from common.store.lineage import identity_of, lineage_of
from common.system.outside_code import files_below

# Goes up by one when a default changes, or what counts as identity does: then every stage is made again.
RECIPE_SCHEMA = 1
# Limits stop a stage or do nothing, and forward passes are summed to the same step: they change no result.
NOT_IDENTITY = ("limits", "micro_batch_tokens")
# Options of a `train:` block that only log, or load the same rows in the same order.
NOT_IDENTITY_TRAIN = frozenset({
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level", "log_level_replica",
    "disable_tqdm", "run_name", "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
})  # fmt: skip


def task_folders(resolved: Resolved) -> tuple[Path, ...]:
    """Return the folders with harness task files of our own: those of all domains, then the domain's, which win."""
    folders = (resolved.repository / "common" / "evaluation" / "benchmarks", resolved.domain_folder / "eval")
    return tuple(folder for folder in folders if folder.is_dir())


def task_files(resolved: Resolved) -> dict[str, str]:
    """Return the digests of the files in these folders."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": digest_file(path)
        for folder in task_folders(resolved)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def recipe_of(node: Node, resolved: Resolved, corpus: Corpus, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the recipe of a stage whose inputs are all there."""
    config, kind = resolved.config, kind_of(node.kind)
    own = config.stages[node.name]
    settings = settings_of(own)
    recipe: dict[str, Any] = {
        "schema": RECIPE_SCHEMA,
        "kind": node.kind,
        "parent": node.called_parent,
        "settings": settings,
        "inputs": {node.called(name): artifact.digest for name, artifact in inputs.items()},
    }
    if kind.seeded or uses_seed(own):
        recipe["seed"] = config.seed
    if kind.makes_model:
        recipe["model"] = _model_of(node, config)
    if settings.pop("path", None) is not None:  # a finished reward model: what it is, not where it is kept
        recipe["taken"] = digest_checkpoint(taken_model(own, config), node.name)
        settings.pop("revision", None)
    if data := data_of(node, config, corpus):
        recipe["data"] = data
    if from_lineage(own) and settings.get("replay") and node.parent is not None:
        recipe["lineage"] = identity_of(lineage_of(inputs[node.parent]))  # what is drawn from
    if behind := behind_of(node, resolved.nodes, config.stages):
        recipe["behind"] = {role: list(budgets) for role, budgets in behind.items()}
    modules: dict[str, str] = {}
    if isinstance(own, DataSettings):
        recipe |= _files_of_blocks(own, resolved)
    if holds_apart(node, config) and (tasks := benchmarks_of(config.stages)):
        recipe["benchmarks"] = sorted(tasks)
    if settings.get("tasks") or recipe.get("benchmarks"):
        modules |= _modules_beside(EXAMS, resolved.domain_folder)
        recipe["task_files"] = task_files(resolved)
    for key, file, named in (("rewards_file", FILE, own_names(own)), ("scorers_file", SCORERS, scorer_names(own))):
        if named and (path := resolved.domain_folder / file).is_file():
            recipe[key] = digest_file(path)
            modules |= _modules_beside(file, resolved.domain_folder)
    if modules:
        recipe["modules"] = dict(sorted(modules.items()))
    if node.kind in ("card", "publish"):
        recipe |= {"domain": config.domain, "profile": config.profile, "pipeline": config.pipeline}
        recipe |= {"chain_seed": config.seed, "made": {}}
    if node.kind == "card":  # It says when and how its chain was made: a remade stage needs a new card, even if equal.
        recipe["publish"] = differing(config.stages["publish"], ("to", "private", "latest"))
        recipe["gate"] = differing(config.gate, ("mode", "min_domain_gain"))
        stated = {str(source["id"]): source.get("licence") for source in corpus.sources()}
        recipe["licences"] = {**stated, "base model": licence_of(config.model)}
        recipe["made"] = {name: artifact.manifest["created"] for name, artifact in inputs.items()}
        if controls := resolved.pipeline.controls:
            recipe["controls"] = list(controls)
        if resolved.members:
            recipe |= {"domains": list(resolved.members), "order": resolved.order}
    return recipe


def _files_of_blocks(settings: DataSettings, resolved: Resolved) -> dict[str, Any]:
    """Return the digests of the files and the models that blocks read; nothing where none reads any."""
    folder, listed = data_folder(resolved), [(block_of(name), given) for name, given in chosen(settings.blocks)]
    files = sorted({name for block, given in listed for name in block.files(given)})
    models = sorted({place for block, given in listed for place in block.checkpoints(given)})
    found: dict[str, Any] = {}
    if files and folder is not None:
        found["files"] = {name: digest_file(path) for name in files if (path := folder / name).is_file()}
    if models:  # one that is not there is refused by its block
        there = [place for place in models if (Path(place) / CONFIG).is_file()]
        found["models"] = {place: digest_checkpoint(ModelSettings(path=place)) for place in there}
    return found


def _modules_beside(part: str, folder: Path) -> dict[str, str]:
    """Return the digests of the Python files beside a part of a domain's folder, which may import them.

    A part is the rewards, the scorers or the exams. They are nobody's where that part has no Python of its own.
    """
    found = {name: path for name, path in files_below(folder) if name.endswith(".py") and path.is_file()}
    imports = any(name.startswith(part) for name in found)
    return {name: digest_file(path) for name, path in found.items() if imports and not name.startswith(part)}


def settings_of(settings: StageSettings) -> dict[str, Any]:
    """Return the settings that decide a stage's result, without those that equal their defaults."""
    found = differing(settings, NOT_IDENTITY)
    if train := {k: v for k, v in found.pop("train", {}).items() if k not in NOT_IDENTITY_TRAIN}:
        found["train"] = train
    return found


def data_of(node: Node, config: Config, corpus: Corpus) -> dict[str, Any]:
    """Return what defines the rows that decide a stage's result; nothing for one that reads none."""
    settings = config.stages[node.name]
    if isinstance(settings, DataSettings):
        roles = [settings.role, *corpus.exam_roles(settings.role)]
    else:
        roles = data_roles(node.kind, corpus, settings, sampled=node.sampled, cleaned=cleaned_roles(node.inputs))
    facts = corpus.identity(roles) if roles else []
    return {f"{fact.get('rows') or fact['role']}/{fact.get('id', '')}": fact for fact in facts}


def _model_of(node: Node, config: Config) -> dict[str, Any]:
    """Return what of the `model` section decides a stage's result."""
    model = config.model
    # Facts only repeat what the commit or the digests below identify, and are checked against it.
    given = differing(model, ("path", "revision", "facts", "licence"))
    if kind_of(node.kind).starts:
        words = {"common_words": digest_file(WORDS)} if model.path is None else {}
        return {**given, **words, **digest_checkpoint(model)}
    # Whether a token is new matters where its row is added, and where an adapter would leave it untrained.
    adapted = getattr(config.stages[node.name], "peft", "full") != "full"
    return {
        key: given[key] for key in ("dtype", *(["new_tokens", "control_tokens"] if adapted else [])) if key in given
    }


def settings_made_with(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a recipe, defaults included, for people to read and to compare."""
    settings = filled(recipe["settings"], kind_of(recipe["kind"]).settings)
    return {key: value for key, value in settings.items() if key not in NOT_IDENTITY}
