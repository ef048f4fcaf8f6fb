"""What defines a stage's result: its recipe, whose hash is the fingerprint, and the code that made it.

Usage: `recipe = recipe_of(node, resolved, corpus, inputs)`; `code = code_of(kind, repository)`.

A recipe holds data, hyper-parameters, seed and the digests of the inputs; never device, paths, workers, logging.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.pipeline import Node
from common.config.resolve import Resolved
from common.config.schema import Config
from common.data.corpus import Corpus
from common.models.tokenizer import WORDS
from common.rewards.own import FILE, own_names
from common.stage import KIND_MODULES, KIND_ROLES, MODEL_KINDS, SEEDED_KINDS, TRAINING_KINDS, data_roles
from common.store.artifacts import Artifact, digest_file

# Parts of the program that say where a stage runs or what it prints, not what it makes.
INFRASTRUCTURE = frozenset({
    "common.store.artifacts", "common.models.clean_load", "common.config.schema", "common.console",
    "common.models.contracts", "common.errors", "common.cost", "common.cost.pace", "common.cost.expectation",
    "common.config.base", "common.config.stages", "common.stage", "common.stages", "common.data", "common.data.corpus",
    "common.config.yaml", "common.evaluation", "common.report", "common.training",
})  # fmt: skip
CORPUS_MODULES = ("common.data.knowledge.corpus", "common.data.manifest.manifest")
# Settings that change how much memory or time a stage takes, but not its result.
NOT_IDENTITY = {**{kind: {"limits"} for kind in (*TRAINING_KINDS, "sample")}}
# Options of a `train:` block that only log or load.
NOT_IDENTITY_TRAIN = ("logging_", "save_total_limit", "dataloader_", "disable_tqdm", "log_level", "run_name")


def task_folders(resolved: Resolved) -> tuple[Path, ...]:
    """Return the folders with harness task files of our own: those of all domains, then the domain's, which win."""
    folders = (resolved.repository / "common" / "evaluation" / "benchmarks", resolved.domain_folder / "eval")
    return tuple(folder for folder in folders if folder.is_dir())


def recipe_of(node: Node, resolved: Resolved, corpus: Corpus, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the recipe of a stage whose inputs are all there."""
    config = resolved.config
    settings = config.stages[node.name].model_dump(mode="json", exclude=NOT_IDENTITY.get(node.kind))
    if "train" in settings:
        settings["train"] = {k: v for k, v in settings["train"].items() if not k.startswith(NOT_IDENTITY_TRAIN)}
    if settings.get("peft") == "full":  # says no more than `lora: null` said before there was a choice
        del settings["peft"], settings["quantization"]
    recipe: dict[str, Any] = {
        "kind": node.kind,
        "parent": node.parent,
        "settings": settings,
        "inputs": {name: artifact.digest for name, artifact in inputs.items()},
    }
    if node.kind in SEEDED_KINDS:
        recipe["seed"] = config.seed
    if node.kind in MODEL_KINDS:
        recipe["model"] = _model_of(node, config)
    if settings.get("path") is not None:  # a finished reward model: what it is, not where it lies
        recipe["taken"] = _digest_taken(node, config)
        del settings["path"], settings["revision"]
    if roles := data_roles(node.kind, corpus, config.stages[node.name], sampled=node.sampled):
        recipe["data"] = {
            f"{fact.get('rows') or fact['role']}/{fact.get('id', '')}": fact for fact in corpus.identity(roles)
        }
    if settings.get("tasks"):
        recipe["task_files"] = {
            f"{folder.name}/{path.relative_to(folder).as_posix()}": digest_file(path)
            for folder in task_folders(resolved)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
    if own_names(config.stages[node.name]) and (rewards := resolved.domain_folder / FILE).is_file():
        recipe["rewards_file"] = digest_file(rewards)
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


def _digest_taken(node: Node, config: Config) -> dict[str, Any]:
    from common.stages.base import digest_checkpoint, taken_model

    return digest_checkpoint(taken_model(config.stages[node.name], config), node.name)


def _model_of(node: Node, config: Config) -> dict[str, Any]:
    from common.stages.base import digest_checkpoint

    model = config.model
    # Whether a token is new matters where its row is added, and where an adapter would leave it untrained.
    tokens = {"new_tokens": list(model.new_tokens)} if model.new_tokens else {}
    if node.kind != "base":
        adapted = getattr(config.stages[node.name], "peft", "full") != "full"
        return {"dtype": model.dtype, **(tokens if adapted else {})}
    template = {"chat_template": model.chat_template} if model.chat_template != "own" else {}
    # Facts only repeat what the commit or the digests below identify, and are checked against it.
    apart = {"path", "revision", "new_tokens", "chat_template", "facts"}
    facts = {**model.model_dump(mode="json", exclude=apart), **tokens, **template}
    words = {"common_words": digest_file(WORDS)} if model.path is None else {}
    return {**facts, **words, **digest_checkpoint(model)}


@functools.cache
def code_of(kind: str, repository: Path) -> dict[str, Any]:
    """Return {"digest", "files": {path: digest}} over a stage's module and the parts of `common` that it imports."""
    files: dict[str, str] = {}
    # Rows come through the context, so the modules that make them are named here.
    queue, seen = [KIND_MODULES[kind], *(CORPUS_MODULES if kind in KIND_ROLES else ())], set[str]()
    while queue:
        module = queue.pop()
        path = _path_of(module, repository)
        if module in seen or path is None:
            continue
        seen.add(module)
        source = path.read_bytes()
        if module not in INFRASTRUCTURE:
            files[path.relative_to(repository).as_posix()] = hashlib.sha256(source).hexdigest()[:16]
            queue += _imports(source)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    return {"digest": digest, "files": dict(sorted(files.items()))}


def _path_of(module: str, repository: Path) -> Path | None:
    path = repository / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(source: bytes) -> list[str]:
    """Return the modules of `common` that a source file names in its imports, at any depth."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "common":
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "common"]
    return found
