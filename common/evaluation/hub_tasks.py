"""Which benchmark tasks of an exam need data sets of the Hub, found without the harness, whose index takes seconds.

Usage: `tasks = hub_tasks(("medical_benchmarks",), folders)`; `check_reachable(tasks)`.

Groups of our own files are followed to their members. What is the harness's own counts as one task, of the Hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.yaml import read_yaml
from common.errors import DataError

LEAVE_OUT = "leave the tasks out (evaluate.tasks=[]); data=embedded needs none"
LOCAL = frozenset({"arrow", "csv", "generator", "json", "parquet", "text"})  # what `datasets` reads from files


def hub_tasks(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the tasks behind some names, each once, without those that read files of this machine."""
    return list(dict.fromkeys(_followed(names, _read(folders), frozenset()))) if names else []


def _followed(names: Sequence[Any], files: Mapping[str, Any], within: frozenset[str]) -> Iterator[str]:
    for entry in names:
        name = str(entry.get("task", entry.get("group")) if isinstance(entry, dict) else entry)
        found = files.get(name, {})
        if isinstance(found.get("task"), list):
            yield from _followed(found["task"], files, within | {name}) if name not in within else ()
        elif found.get("dataset_path") not in LOCAL:
            yield name


def _read(folders: Sequence[Path]) -> dict[str, Any]:
    """Return task files by the name that each declares; later folders win. The run refuses what cannot be read."""
    files: dict[str, Any] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        try:
            found = read_yaml(path, any_tag=True)  # the harness names Python functions by a tag
        except DataError:
            continue
        name = found.get("group", found.get("task")) if isinstance(found, dict) else None
        if isinstance(name, str):
            files[name] = found
    return files


def check_reachable(tasks: Sequence[str]) -> None:
    """Refuse tasks of the Hub where it is not asked and no data set of its is in the caches. Raises DataError."""
    from huggingface_hub import constants

    if not tasks or not constants.is_offline_mode():
        return
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    if any(Path(constants.HF_HUB_CACHE).glob("datasets--*")):
        return
    if any(path.is_dir() and path.name not in LOCAL for path in prepared.glob("*")):
        return
    shown = ", ".join(f"'{task}'" for task in tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
    needs = "1 benchmark task needs" if len(tasks) == 1 else f"{len(tasks)} benchmark tasks need"
    raise DataError(
        f"{needs} data sets of the Hub ({shown}). It does not answer, or HF_HUB_OFFLINE is "
        f"set, and none of its data sets is in the cache. Check the network and HF_HUB_OFFLINE, or {LEAVE_OUT}."
    )
