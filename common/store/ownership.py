"""What in a store's folders the store itself made, so that nothing else is ever removed.

Usage: `reason = not_a_result(folder)`, None for a folder that is this store's alone; `erase(folder)`.

A result is known by its manifest, which names its folder and every file in it; scratch by its name and by the file
`code` in it. No symbolic link is followed. Which of them are still in use is `common.store.collection`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.store.manifest import MANIFEST, RESULT, name_in, read_manifest

SHARED = "shared"  # in the scratch of a result that is no stage's own: see `common.store.shared`
CODE = "code"  # in a scratch folder: the digest of the code that works there
ASIDE = ".aside-"  # in the name of a scratch folder that other code left
MOVED = re.compile(rf"(?:replaced|removed)-(?P<name>{RESULT.pattern}(?:{re.escape(ASIDE)}\d+)?)-\d+")
SCRATCH = re.compile(rf"(?P<result>{RESULT.pattern})(?:{re.escape(ASIDE)}\d+)?")
NEW_VERSION = ".new-"  # begins the name of a version that is being published; the scratch of its stage follows
UNFINISHED = re.compile(rf"\.{re.escape(MANIFEST)}\.\d+")  # a manifest that a killed process was writing


def not_a_result(folder: Path) -> str | None:
    """Return why a folder is not a result of this store and nothing else, or None where it is."""
    if folder.is_symlink():
        return "it is a link, which is not followed"
    if not folder.is_dir():
        return "it is a file that no stage made"
    if not RESULT.fullmatch(folder.name):
        return "its name is not that of a result"
    manifest = None if (folder / MANIFEST).is_symlink() else read_manifest(folder)
    if manifest is None:
        return f"it has no valid {MANIFEST}"
    if name_in(manifest) != folder.name:
        return f"its {MANIFEST} is of {name_in(manifest)}"
    known = {MANIFEST, *manifest["files"]}
    strange = (found for found in _files_in(folder) if found not in known and not UNFINISHED.fullmatch(found))
    found = min(strange, default=None)
    return None if found is None else f"it holds {found}, which no stage made"


def _files_in(folder: Path) -> Iterator[str]:
    """Yield the names of everything below a folder but folders; a link is a name, wherever it leads."""
    for place, folders, files in os.walk(folder):
        names = [*files, *(name for name in folders if os.path.islink(os.path.join(place, name)))]
        yield from (Path(place, name).relative_to(folder).as_posix() for name in names)


def not_scratch(folder: Path) -> str | None:
    """Return why a folder below `.work/` is no scratch of this store, or None where it is."""
    if folder.is_symlink():
        return "it is a link, which is not followed"
    if not folder.is_dir():
        return "it is a file that no stage made"
    if moved := MOVED.fullmatch(folder.name):
        manifest = read_manifest(folder)
        ours = has_code(folder) or (manifest is not None and name_in(manifest) == moved["name"])
        return None if ours else "nothing in it says that this store made it"
    if not SCRATCH.fullmatch(folder.name):
        return "its name is not that of a stage's scratch"
    return None if has_code(folder) else f"it has no file '{CODE}', which a stage writes first"


def has_code(folder: Path) -> bool:
    """Whether a folder has the mark of scratch."""
    mark = folder / CODE
    return mark.is_file() and not mark.is_symlink()


def erase(folder: Path) -> None:
    """Remove a folder of this store, its mark last, so that what a killed process leaves is still known as ours.

    Another process may be erasing it too. Links are removed, and what they lead to stays.
    """
    marks = (MANIFEST, CODE)
    paths: list[Path] = []
    with contextlib.suppress(FileNotFoundError):  # it is gone
        paths = sorted(folder.glob("*"), key=lambda path: path.name in marks)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
