"""What defines a stage's result: its recipe, whose hash is the fingerprint.

Usage: `recipe = recipe_of(node, config, corpus, inputs, repository)`; `fingerprint_of(recipe)` is its hash. The code
that made a result is `common.engine.code`.

A recipe holds data, hyper-parameters, seed and the digests of the inputs; never device, paths, workers, logging. Values
that equal the declared defaults are left out, so that a new setting changes no fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.base import StageSettings
from common.config.defaults import differing, filled
from common.config.pipeline import Node
from common.config.schema import Config
from common.data.corpus import Corpus
from common.models.source import digest_checkpoint, taken_model
from common.models.tokenizer import WORDS
from common.stage import MODEL_KINDS, SEEDED_KINDS, TRAINING_KINDS, data_roles
from common.store.artifacts import Artifact, digest_file

# Goes up by one when a default changes, or what counts as identity does: then every stage is made again.
RECIPE_SCHEMA = 1
# Settings that change how much memory or time a stage takes, but not its result.
NOT_IDENTITY = {**{kind: {"limits"} for kind in (*TRAINING_KINDS, "sample")}}
# Options of a `train:` block that only log, or load the same rows in the same order.
NOT_IDENTITY_TRAIN = frozenset({
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level", "log_level_replica",
    "disable_tqdm", "run_name", "save_total_limit", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
})  # fmt: skip


def task_folders(repository: Path, domain: str) -> tuple[Path, ...]:
    """Return the folders with harness task files of our own: those of all domains, then the domain's, which win."""
    folders = (repository / "common" / "evaluation" / "benchmarks", repository / "domains" / domain / "eval")
    return tuple(folder for folder in folders if folder.is_dir())


def recipe_of(
    node: Node, config: Config, corpus: Corpus, inputs: Mapping[str, Artifact], repository: Path
) -> dict[str, Any]:
    """Return the recipe of a stage whose inputs are all there."""
    settings = differing(config.stages[node.name], NOT_IDENTITY.get(node.kind, ()))
    if train := {k: v for k, v in settings.pop("train", {}).items() if k not in NOT_IDENTITY_TRAIN}:
        settings["train"] = train
    recipe: dict[str, Any] = {
        "schema": RECIPE_SCHEMA,
        "kind": node.kind,
        "parent": node.parent,
        "settings": settings,
        "inputs": {name: artifact.digest for name, artifact in inputs.items()},
    }
    if node.kind in SEEDED_KINDS:
        recipe["seed"] = config.seed
    if node.kind in MODEL_KINDS:
        recipe["model"] = _model_of(node, config)
    if settings.pop("path", None) is not None:  # a finished reward model: what it is, not where it is kept
        recipe["taken"] = digest_checkpoint(taken_model(config.stages[node.name], config), node.name)
        settings.pop("revision", None)
    if roles := data_roles(node.kind, corpus, config.stages[node.name], sampled=node.sampled):
        recipe["data"] = {
            f"{fact.get('rows') or fact['role']}/{fact.get('id', '')}": fact for fact in corpus.identity(roles)
        }
    if settings.get("tasks"):
        recipe["task_files"] = {
            f"{folder.name}/{path.relative_to(folder).as_posix()}": digest_file(path)
            for folder in task_folders(repository, config.domain)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
    if node.kind in ("card", "publish"):
        recipe |= {
            "domain": config.domain,
            "profile": config.profile,
            "pipeline": config.pipeline,
            "chain_seed": config.seed,
        }
        # A card tells when and how its chain was made, so a remade stage needs a new card even if it came out equal.
        recipe["made"] = (
            {name: artifact.manifest["created"] for name, artifact in inputs.items()} if node.kind == "card" else {}
        )
    return recipe


def _model_of(node: Node, config: Config) -> dict[str, Any]:
    """Return what of the `model` section decides a stage's result."""
    model = config.model
    # Facts only repeat what the commit or the digests below identify, and are checked against it.
    given = differing(model, ("path", "revision", "facts"))
    if node.kind == "base":
        words = {"common_words": digest_file(WORDS)} if model.path is None else {}
        return {**given, **words, **digest_checkpoint(model)}
    # Whether a token is new matters where its row is added, and where an adapter would leave it untrained.
    adapted = getattr(config.stages[node.name], "peft", "full") != "full"
    return {key: given[key] for key in ("dtype", *(["new_tokens"] if adapted else [])) if key in given}


def settings_made_with(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a recipe, defaults included, for people to read and to compare."""
    settings = filled(recipe["settings"], StageSettings.of(recipe["kind"]))
    return {key: value for key, value in settings.items() if key not in NOT_IDENTITY.get(recipe["kind"], ())}
