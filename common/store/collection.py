"""Remove the results that nothing uses: what the store made itself, and nothing else.

Usage: `found = collect(store, dry=True)`; `found.unused` goes, `found.foreign` is not ours and stays.

A result stays while a link of a run refers to it, while a run that is under way reads or makes it, and while another
result that stays was made from it. Scratch goes once its stage is done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common.store.artifacts import Store, read_artifact, writing
from common.store.leases import guarded, names_in_use
from common.store.locks import is_held
from common.store.manifest import inputs_of, read_manifest
from common.store.ownership import MOVED, SCRATCH, erase, not_a_result, not_scratch

OURS = (".work", ".locks", ".leases")  # folders of `artifacts/` that hold no results


@dataclass(frozen=True)
class Found:
    """What is in a store that nothing uses."""

    unused: tuple[tuple[Path, int], ...]  # folder, bytes
    foreign: tuple[tuple[Path, str], ...]  # path, why it is not this store's to remove


def collect(store: Store, *, dry: bool) -> Found:
    """Remove what nothing uses, and return it. With `dry` nothing is removed, and the same is returned.

    Raises StoreError where the store cannot be written.
    """
    if not store.artifacts.is_dir():
        return Found((), ())
    if dry:
        unused, foreign = _survey(store, clean=False)
        return _told(unused, unused, foreign)
    with writing(store.artifacts):
        with guarded(store.artifacts):
            unused, foreign = _survey(store, clean=True)
            moved = [_move_away(store, folder, number) for number, folder in enumerate(unused)]
        found = _told(unused, moved, foreign)
        for folder in moved:
            erase(folder)
    return found


def _told(unused: list[Path], where: list[Path], foreign: list[tuple[Path, str]]) -> Found:
    return Found(tuple((folder, size_of(now)) for folder, now in zip(unused, where, strict=True)), tuple(foreign))


def _move_away(store: Store, folder: Path, number: int) -> Path:
    """Take a folder out of the way in one step; nobody finds half of it."""
    if MOVED.fullmatch(folder.name):
        return folder
    store.work.mkdir(exist_ok=True)
    while (away := store.work / f"removed-{folder.name}-{os.getpid()}{number}").exists():
        number += 1
    return folder.rename(away)


def _survey(store: Store, *, clean: bool) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the folders that nothing uses, and what is not this store's, with the reason."""
    running = names_in_use(store.artifacts, clean=clean)
    used = _with_inputs(store, linked_names(store) | running)
    unused, foreign = [], []
    for path in sorted(path for path in store.artifacts.iterdir() if path.name not in OURS):
        if path.name in used:
            continue
        if reason := not_a_result(path):
            foreign.append((path, reason))
        elif not is_held(store.lock_file(path.name)):
            unused.append(path)
    for path in sorted(store.work.iterdir()) if store.work.is_dir() else ():
        moved, scratch = MOVED.fullmatch(path.name), SCRATCH.fullmatch(path.name)
        if reason := not_scratch(path):
            foreign.append((path, reason))
        elif moved or (scratch and _is_done(scratch["result"], store, running)):
            unused.append(path)
    return unused, foreign


def _is_done(result: str, store: Store, running: set[str]) -> bool:
    """Whether nobody needs a stage's scratch. That of a stage that was stopped is where the same command goes on."""
    if result in running or is_held(store.lock_file(result)):
        return False
    return read_artifact(store.artifacts / result) is not None


def _with_inputs(store: Store, names: set[str]) -> set[str]:
    """Return the names of some results, and of all that they were made from."""
    queue = list(names)
    used: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in used:
            used.add(name)
            queue += inputs_of(read_manifest(store.artifacts / name) or {})
    return used


def linked_names(store: Store) -> set[str]:
    """Return the names of the results that links of runs lead to."""
    links = (path for depth in ("*/*/*", "*/*/*/*") for path in store.runs.glob(depth) if path.is_symlink())
    return {Path(os.readlink(link)).name for link in links}


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder; of links their own."""
    paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_size for path in paths)
