"""The harness's index of its own tasks, remembered from one run to the next.

Usage: `with remembered_index(): manager = TaskManager()`.

lm-evaluation-harness 0.4 reads some 14,000 YAML files to know which name is in which file: 14 s on a slow core, in each
run with benchmarks. The files do not change while the package does not, so that the stamps of all of them, and of what
they may include, tell in a third of a second whether the index still holds. A task is always read from its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from common.store.cache import remembered

INDEX_FORMAT = 2  # of what is remembered; one more where it changes
CODE = (".py", ".pyc")  # which no index depends on


@contextlib.contextmanager
def remembered_index() -> Iterator[None]:
    """Let the harness take the index of its own folder from the cache; other folders are read."""
    from lm_eval import tasks
    from lm_eval.tasks._index import TaskIndex

    own, build = Path(tasks.__file__).parent, TaskIndex.build

    def known(paths: Iterable[Path], **how: Any) -> dict[str, Any]:
        index: dict[str, Any] = {}
        for root in paths:  # later folders override
            index |= _entries(own, lambda: build([own], **how)) if root == own else build([root], **how)
        return index

    TaskIndex.build = staticmethod(known)
    try:
        yield
    finally:
        TaskIndex.build = staticmethod(build)


def _entries(own: Path, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the entries of the harness's folder by name. Remembered ones have of a file what a group consists of."""
    from lm_eval.tasks._index import Entry, Kind

    entries: dict[str, Any] = {}

    def make() -> dict[str, Any]:
        entries.update(build())
        return {"entries": [_row(entry, own) for entry in entries.values()]}

    def read(found: dict[str, Any]) -> None:
        known = {}
        for name, kind, place, tags, members in found["entries"]:
            if place is not None and (place.startswith("/") or ".." in place.split("/")):
                raise ValueError(f"{place} is not below the harness's folder")
            path, cfg = None if place is None else own / place, None if members is None else {"task": members}
            known[name] = Entry(name=name, kind=Kind[kind], yaml_path=path, cfg=cfg, tags=set(tags))
        if not known:
            raise ValueError("an index without entries")
        entries.update(known)

    remembered("tasks", [INDEX_FORMAT, importlib.metadata.version("lm_eval"), _stamp(own)], make, read)
    return entries


def _row(entry: Any, own: Path) -> list[Any]:
    members = (entry.cfg or {}).get("task") if entry.kind.name == "GROUP" else None
    names = [name for name in members if isinstance(name, str)] if isinstance(members, list) else None
    place = None if entry.yaml_path is None else entry.yaml_path.relative_to(own).as_posix()
    return [entry.name, entry.kind.name, place, sorted(entry.tags), names]


def _stamp(own: Path) -> str:
    """Return what changes whenever one of the files does that tasks are written in, or that these include."""
    found, root = hashlib.sha256(), len(str(own))
    for folder, folders, files in os.walk(own):
        folders.sort()
        for name in sorted(name for name in files if not name.endswith(CODE)):
            place = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):  # a link to nothing, as editors leave
                facts = os.stat(place)
                stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
                found.update(f"{place[root:]}\0{stamp}\0".encode())
    return found.hexdigest()
