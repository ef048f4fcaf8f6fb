"""Code that a checkpoint brings: what it is, and a folder that transformers may load it from.

Usage: `code = code_of(place)`; `folder = loadable(place, trusted=True)`, right before transformers reads the folder.

Where code is trusted, transformers gets a private copy of the very files that this process may run, and links to the
weights. Without trust nothing of a checkpoint is executed, and the folder stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.models.gguf_file import SUFFIX
from common.models.growth.pairs import register
from common.system.outside_code import files_below, private_folder, read_files, require

PYTHON = ".py"
AUTO_MAP = "auto_map"
OTHER_REPOSITORY = "--"  # in a class's name: transformers fetches its code from the repository before it, unpinned
MODULES = "HF_MODULES_CACHE"  # of transformers
LARGE = frozenset({"tokenizer.json", "vocab.json"})  # and name no code, as indexes of weights do not


def code_of(place: Path) -> dict[str, bytes]:
    """Return the Python files of a checkpoint, and which classes its settings take from them.

    Raises DataError where these are in another repository.
    """
    if place.suffix == SUFFIX:
        return {}
    return _code_in(place, _small_files(place))


def loadable(place: Path, trusted: bool) -> Path:
    """Return the folder to load a checkpoint from. Raises ConfigError for code that this process may not run.

    transformers then knows its class, also where that is one of ours (`common.models.growth.pairs`).
    """
    register(place)
    if not trusted or place.suffix == SUFFIX:
        return place
    files = _small_files(place)
    require({name: data for name, data in _code_in(place, files).items() if name.endswith(PYTHON)}, str(place))
    _keep_modules_private()
    return private_folder(place.name, files, {name: path for name, path in files_below(place) if name not in files})


def _small_files(place: Path) -> dict[str, bytes]:
    """Return the code and the settings of a checkpoint."""
    found = ((name, path) for name, path in files_below(place) if name.endswith(PYTHON) or _is_settings(name))
    return read_files(found, str(place))


def _code_in(place: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the Python files among some, and what settings take from them."""
    code = {name: data for name, data in files.items() if name.endswith(PYTHON)}
    for name in filter(_is_settings, files):
        if found := _auto_map(place, name, files[name]):
            code[f"{name}: {AUTO_MAP}"] = json.dumps(found, sort_keys=True).encode()
    return code


def _is_settings(name: str) -> bool:
    return name.endswith(".json") and not name.endswith(".index.json") and "/" not in name and name not in LARGE


def _auto_map(place: Path, name: str, data: bytes) -> Any:
    """Return which classes a file of settings takes from the checkpoint's code."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # whoever reads it says so
        return None
    found = value.get(AUTO_MAP) if isinstance(value, dict) else None
    if OTHER_REPOSITORY in json.dumps(found):
        raise DataError(
            f"{place / name}: {AUTO_MAP} names code of another repository, which would be fetched as it is by then. "
            "Copy that code into the folder, and leave the repository's name out."
        )
    return found


def _keep_modules_private() -> None:
    """Let transformers keep its copies of code where nobody else can write.

    In its cache, which users may share, it takes a file of the same size and time for the same file.
    """
    import transformers.dynamic_module_utils as dynamic

    setattr(dynamic, MODULES, str(private_folder("modules", {}, {})))
