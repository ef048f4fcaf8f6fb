"""A result's manifest: what it must hold to count as one, and what on the disk disagrees with it.

Usage: `manifest = read_manifest(folder)`; `problem = damage(folder, manifest)`.

Sizes are compared here, which costs nothing. Bytes are compared by `common.store.verify`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from common.config.json import read_json
from common.config.names import NAME
from common.system.files import kind_of

MANIFEST = "manifest.json"
READS = "reads.json"  # in a stage's scratch: the shared results that it has read; its manifest has them as `reads`
SCHEMA = 1
USED = ("inputs", "reads")  # keys of a manifest: results of stages, and shared ones
LINEAGE = "lineage"  # key of a manifest: see `common.store.lineage`
RESULT = re.compile(rf"{NAME}-[0-9a-f]{{16}}")  # <stage>-<fingerprint>: the name of a result's folder


def list_files(folder: Path) -> list[Path]:
    """Return the regular files below a folder in a stable order, the manifest left out."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() != MANIFEST)


def give_modes(folder: Path) -> None:
    """Give what is in a new folder the modes that its umask means, as the folder has: safetensors writes 0600."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            kept = stat.S_IMODE(path.stat().st_mode)
            wanted = mode & 0o777 | kept & stat.S_ISGID if path.is_dir() else mode & 0o666
            if kept != wanted:
                path.chmod(wanted)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; an empty one where the file is missing, broken or holds something else."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, or None where there is none that can be read and has the form of one."""
    manifest = read_mapping(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        return None
    files = manifest.get("files")
    inputs: dict[str, Any] = {}
    for name in USED:
        if not isinstance(found := manifest.get(name, {}), dict):
            return None
        inputs |= found
    well_formed = (
        isinstance(files, dict)
        and all(map(_is_file, files.items()))
        and all(isinstance(facts, dict) and {"stage", "fingerprint"} <= set(facts) for facts in inputs.values())
    )
    return manifest if well_formed else None


def _is_file(entry: tuple[str, Any]) -> bool:
    """Whether an entry of `files` names a file below the folder, with its size and its digest."""
    name, facts = entry
    path = PurePosixPath(name)
    below = not path.is_absolute() and ".." not in path.parts and bool(path.parts)
    return below and isinstance(facts, dict) and type(facts.get("size")) is int and isinstance(facts.get("sha256"), str)


def name_in(manifest: Mapping[str, Any]) -> str:
    """Return the name of the folder that a manifest belongs in."""
    return f"{manifest.get('stage')}-{manifest.get('fingerprint')}"


def inputs_of(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of the results that a result was made from, shared ones included.

    So are those that hold what the stages before it have read: a later stage may draw from them.
    """
    entries = manifest.get(LINEAGE)
    read = [entry.get("read") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    names = [str(name) for rows in read if isinstance(rows, dict) for name in rows]
    return [*(name_in(facts) for name in USED for facts in manifest.get(name, {}).values()), *names]


def damage(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a committed folder (a missing file, another size), or None."""
    for name, facts in manifest["files"].items():
        try:
            found = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if not stat.S_ISREG(found.st_mode):
            return f"{name} is {kind_of(folder / name)}, not a file"
        size = found.st_size
        if size != facts["size"]:
            return f"{name} has {size} bytes, its manifest says {facts['size']}"
    return None
