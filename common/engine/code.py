"""The code that makes a stage's result: a digest over its module and the parts of `common` that it imports.

Usage: `code = code_of("cpt", repository)`; `code["digest"]` changes with what the code does, not with its comments.

The digest is of the syntax trees without docstrings. It is no part of a fingerprint: a result made by older code is
served and reported, but a stopped stage does not continue with other code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

from common.config.base import StageSettings
from common.config.blocks import BLOCKS
from common.config.blocks import chosen as blocks_of
from common.config.cleaning import DataSettings
from common.config.forms import FORMS, forms
from common.config.kinds import STAGES, kind_of
from common.config.methods import FOLDERS, chosen
from common.store import cache

# Parts of the program that say where a stage runs or what it prints, not what it makes.
INFRASTRUCTURE = frozenset({
    "common.config.answering", "common.config.base", "common.config.build", "common.config.kinds",
    "common.config.pipeline", "common.config.registry", "common.config.resolve", "common.config.schema",
    "common.config.stages", "common.config.yaml", "common.console", "common.cost", "common.cost.outlook",
    "common.cost.pace", "common.data", "common.data.corpus", "common.errors", "common.evaluation",
    "common.models.clean_load", "common.models.contracts", "common.report", "common.stage", "common.stages",
    "common.store.artifacts", "common.training",
})  # fmt: skip
# Rows come through the context, so the modules that make them are named here.
CORPUS_MODULES = ("common.data.knowledge.corpus", "common.data.manifest.manifest")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class SourceFile(NamedTuple):
    """What a source file says to Python."""

    stamp: cache.Stamp
    digest: str
    imports: list[str]  # modules of `common`, and names in them that may be modules


def code_of(kind: str, repository: Path, settings: StageSettings | None = None) -> dict[str, Any]:
    """Return {"digest", "files": {path: digest}} over a stage's module and the parts of `common` that it imports.

    With its settings, the methods and the blocks that are on are part of it.
    """
    on = [method for method, _ in chosen(settings)] if settings is not None else []
    further = [f"{FOLDERS[method.place]}.{method.name}" for method in on]
    if isinstance(settings, DataSettings):
        further += [f"{BLOCKS}.{name}" for name, _ in blocks_of(settings.blocks)]
    declared = kind_of(kind)
    reads = bool(declared.roles or declared.measures)
    return code_of_module(f"{STAGES}.{kind}", repository, reads_rows=reads, further=tuple(further))


@functools.cache
def code_of_module(root: str, repository: Path, *, reads_rows: bool, further: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the same of any module, and of further ones; with `reads_rows`, over the modules that make rows too.

    These are the forms too, all of them: no module imports them by name.
    """
    known = _read_cache(repository)
    before = dict(known)
    files: dict[str, str] = {}
    queue, seen = [root, *further], set[str]()
    if reads_rows:
        queue += [*CORPUS_MODULES, *(f"{FORMS}.{name}" for name in forms())]
    while queue:
        module = queue.pop()
        if module in seen or module in INFRASTRUCTURE or (path := _path_of(module, repository)) is None:
            continue
        seen.add(module)
        name = path.relative_to(repository).as_posix()
        stamp = cache.stamp_of(path)
        if name not in known or known[name].stamp != stamp:
            known[name] = SourceFile(stamp, *read_source(path.read_bytes()))
        files[name] = known[name].digest
        queue += known[name].imports
    if known != before:
        cache.write(_cache_name(repository), known)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    return {"digest": digest, "files": dict(sorted(files.items()))}


def read_source(source: bytes) -> tuple[str, list[str]]:
    """Return the digest of a file's syntax tree without docstrings, and the names in `common` that it imports."""
    tree = ast.parse(source)
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "common":
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names if alias.name.split(".")[0] == "common"]
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], imports


@functools.cache
def _path_of(module: str, repository: Path) -> Path | None:
    path = repository / Path(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _cache_name(repository: Path) -> str:
    """Return where digests are kept. Python's version counts, since syntax trees differ between versions."""
    place = hashlib.sha256(str(repository.resolve()).encode()).hexdigest()[:16]
    return f"code/{place}.{sys.implementation.cache_tag}"


@functools.cache
def _read_cache(repository: Path) -> dict[str, SourceFile]:
    """Return what is known of source files that have not changed since."""
    try:
        found = {name: SourceFile(*facts) for name, facts in cache.read(_cache_name(repository)).items()}
    except TypeError:
        return {}
    return found if all(isinstance(file.imports, list) for file in found.values()) else {}
