"""Remove the results that nothing uses: what the store made itself, and nothing else.

Usage: `found = collect(store, dry=True)`; `found.unused` goes, `found.foreign` is not ours and stays.

A result stays while a link of a run refers to it, while a run that is under way reads or makes it, and while another
result that stays was made from it. A shared one stays too while the scratch of a stage that was stopped names it.
Scratch goes once its stage is done, and what a killed run was writing in the folders of runs and models once no run
needs it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from common.store.artifacts import Store, read_artifact, writing
from common.store.leases import guarded, names_in_use
from common.store.locks import is_held
from common.store.manifest import READS, RESULT, inputs_of, read_manifest, read_mapping
from common.store.ownership import MOVED, NEW_VERSION, SCRATCH, SHARED, erase, not_a_result, not_scratch
from common.store.runs import links_of_runs, temporary_files
from common.system.files import remove

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
        unused, foreign, cut_short = _survey(store, clean=False)
        return Found((*_sizes(unused, unused), *_sizes(cut_short, cut_short)), tuple(foreign))
    with writing(store.artifacts):
        with guarded(store.artifacts):
            unused, foreign, cut_short = _survey(store, clean=True)
            sizes = _sizes(cut_short, cut_short)
            for path in cut_short:
                remove(path)
            moved = [_move_away(store, folder, number) for number, folder in enumerate(unused)]
        found = Found((*_sizes(unused, moved), *sizes), tuple(foreign))
        for folder in moved:
            erase(folder)
    return found


def _sizes(folders: list[Path], where: list[Path]) -> list[tuple[Path, int]]:
    """Return folders with their bytes, which are now in another place."""
    return [(folder, size_of(now)) for folder, now in zip(folders, where, strict=True)]


def _move_away(store: Store, folder: Path, number: int) -> Path:
    """Take a folder out of the way in one step; nobody finds half of it."""
    if MOVED.fullmatch(folder.name):
        return folder
    store.work.mkdir(exist_ok=True)
    while (away := store.work / f"removed-{folder.name}-{os.getpid()}{number}").exists():
        number += 1
    return folder.rename(away)


def _survey(store: Store, *, clean: bool) -> tuple[list[Path], list[tuple[Path, str]], list[Path]]:
    """Return the folders that nothing uses, what is not this store's, with the reason, and what kills cut short."""
    running = names_in_use(store.artifacts, clean=clean)
    noted = _noted(store, running)
    used = _with_inputs(store, linked_names(store) | running | noted)
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
        elif moved or (
            scratch and _is_done(scratch["result"], store, running | noted, shared=(path / SHARED).is_file())
        ):
            unused.append(path)
    return unused, foreign, _cut_short(store, running)


def _cut_short(store: Store, running: set[str]) -> list[Path]:
    """Return what killed runs were writing outside of `artifacts/`: versions, links, plans. Runs write them again."""
    versions = [
        path
        for path in sorted(store.models.glob(f"*/{NEW_VERSION}*"))
        if RESULT.fullmatch(result := path.name.removeprefix(NEW_VERSION)) and result not in running
    ]
    return [path for path in versions if path.is_dir() and not path.is_symlink()] + (
        [] if running else temporary_files(store)
    )


def _is_done(result: str, store: Store, needed: set[str], *, shared: bool = False) -> bool:
    """Whether nobody needs a scratch folder. That of a stage that was stopped is where the same command goes on.

    That of a shared result is needed while a stage does so.
    """
    if result in needed or is_held(store.lock_file(result)):
        return False
    return shared or read_artifact(store.artifacts / result) is not None


def _noted(store: Store, running: set[str]) -> set[str]:
    """Return the names of the shared results that stages which are not done have read or started to make."""
    found: set[str] = set()
    for path in store.work.iterdir() if store.work.is_dir() else ():
        scratch = SCRATCH.fullmatch(path.name)
        if scratch and not not_scratch(path) and not _is_done(scratch["result"], store, running):
            found |= read_mapping(path / READS).keys()
    return found


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
    return {Path(os.readlink(link)).name for link in links_of_runs(store)}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files below a folder; of links their own."""
    inside = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names]
    size = 0
    for each in inside if path.is_dir() and not path.is_symlink() else [path]:
        with contextlib.suppress(FileNotFoundError):  # another collection removes it too
            size += os.lstat(each).st_size
    return size
