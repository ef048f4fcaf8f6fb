"""The code that makes a stage's result: a digest over its module and the parts of `common` that it imports.

Usage: `code = code_of("cpt", repository)`; `code["digest"]` changes with what the code does, not with its comments.

The digest is of the syntax trees without docstrings. It is no part of a fingerprint: a result made by older code is
served and reported, but a stopped stage does not continue with other code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from common.config.kinds import STAGES, kind_of
from common.errors import RecipeError
from common.store.artifacts import write_json

# Parts of the program that say where a stage runs or what it prints, not what it makes.
INFRASTRUCTURE = frozenset({
    "common.store.artifacts", "common.models.clean_load", "common.config.schema", "common.console",
    "common.models.contracts", "common.errors", "common.cost", "common.cost.pace", "common.cost.outlook",
    "common.config.base", "common.config.kinds", "common.config.pipeline", "common.config.resolve",
    "common.config.stages", "common.stage", "common.stages", "common.data", "common.data.corpus", "common.config.yaml",
    "common.evaluation", "common.report", "common.training",
})  # fmt: skip
# Rows come through the context, so the modules that make them are named here.
CORPUS_MODULES = ("common.data.knowledge.corpus", "common.data.manifest.manifest")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class SourceFile(NamedTuple):
    """What a source file says to Python."""

    stamp: list[int]  # time of the last change, size
    digest: str
    imports: list[str]  # modules of `common`, and names in them that may be modules


@functools.cache
def code_of(kind: str, repository: Path) -> dict[str, Any]:
    """Return {"digest", "files": {path: digest}} over a stage's module and the parts of `common` that it imports."""
    known = _read_cache(repository)
    before = dict(known)
    files: dict[str, str] = {}
    queue, seen = [f"{STAGES}.{kind}", *(CORPUS_MODULES if kind_of(kind).roles else ())], set[str]()
    while queue:
        module = queue.pop()
        if module in seen or module in INFRASTRUCTURE or (path := _path_of(module, repository)) is None:
            continue
        seen.add(module)
        name = path.relative_to(repository).as_posix()
        facts = path.stat()
        stamp = [facts.st_mtime_ns, facts.st_size]
        if name not in known or known[name].stamp != stamp:
            known[name] = SourceFile(stamp, *read_source(path.read_bytes()))
        files[name] = known[name].digest
        queue += known[name].imports
    if known != before:
        _write_cache(repository, known)
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


def _path_of(module: str, repository: Path) -> Path | None:
    path = repository / Path(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _cache_file(repository: Path) -> Path:
    return repository / "common" / "__pycache__" / f"digests.{sys.implementation.cache_tag}.json"


@functools.cache
def _read_cache(repository: Path) -> dict[str, SourceFile]:
    """Return what is known of source files, kept beside their bytecode by the same rule: time and size."""
    try:
        return {name: SourceFile(*facts) for name, facts in json.loads(_cache_file(repository).read_bytes()).items()}
    except (OSError, ValueError, TypeError):
        return {}


def _write_cache(repository: Path, known: dict[str, SourceFile]) -> None:
    if sys.dont_write_bytecode:
        return
    try:
        _cache_file(repository).parent.mkdir(exist_ok=True)
        write_json(_cache_file(repository), known)
    except (OSError, RecipeError):  # a package that the user cannot write to: it is read again each time
        return
