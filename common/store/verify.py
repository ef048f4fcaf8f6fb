"""Compare the bytes of results with the digests that they were committed with.

Usage: `problem = changed(artifact)` before a result is read; `problem = seen_changed(artifact)` where it only counts as
there; `for found in verify(store, watch): …` reads every byte of a store.

Digests of large files are remembered by size, times and inode (`common.store.cache`). A disk that gives back other
bytes without a write is not noticed that way: only `verify` reads all of them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.store.artifacts import Artifact, Store, digest_file, digest_of, what_is_wrong
from common.store.cache import known_digest, seen_digest
from common.store.manifest import MANIFEST, RESULT, damage, read_manifest, read_mapping
from common.store.runs import RunFolder, list_links

PUBLISHED = "publish.json"  # in a published version: what it holds
Digest = Callable[[Path], str | None]


@dataclass(frozen=True)
class Difference:
    """A result or published version that is not what it was, and what to do."""

    path: Path
    problem: str
    advice: str
    matters: bool = True  # false where another version is the same and whole


def changed(artifact: Artifact, digest: Digest = known_digest) -> str | None:
    """Return which file of a result is not what was committed, or None."""
    manifest = artifact.manifest
    if problem := damage(artifact.path, manifest):
        return problem
    if manifest.get("digest") != digest_of(manifest["files"]):
        return f"{MANIFEST} does not agree with itself"
    return changed_file(artifact.path, {name: facts["sha256"] for name, facts in manifest["files"].items()}, digest)


def seen_changed(artifact: Artifact) -> str | None:
    """Return the same at a glance: a large file is read only where it was known and has been written to since."""
    return changed(artifact, seen_digest)


def changed_since_published(artifact: Artifact, store: Store) -> str | None:
    """Return what is not as it was published in the version that a result of `publish` made, or None."""
    metrics = artifact.manifest.get("metrics", {})
    if artifact.manifest.get("kind") != "publish" or metrics.get("to") != "local":
        return None
    version = store.root / metrics["path"]
    problem = changed_file(version, _files_of(version))
    return None if problem is None else f"{metrics['path']}: {problem}"


def changed_file(folder: Path, files: Mapping[str, str], digest: Digest = seen_digest) -> str | None:
    """Return which file below a folder has not the digest that it should have, or None."""
    for name, expected in files.items():
        try:
            found = digest(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found not in (None, expected):
            return f"{name} was changed: its sha256 is {str(found)[:12]}, and {expected[:12]} was written"
    return None


def size_of_all(store: Store) -> int:
    """Return the bytes that `verify` reads."""
    names = [path / name for path in _results(store) for name in (read_manifest(path) or {"files": ()})["files"]]
    names += [version / name for version in _versions(store) for name in _files_of(version)]
    return sum(path.stat().st_size for path in names if path.is_file())


def verify(store: Store, watch: Callable[[int], None]) -> Iterator[Difference | None]:
    """Read every file of every result and published version; yield what differs, and None for what does not.

    `watch` is called with the bytes of each file that was read.
    """

    def read(path: Path) -> str:
        digest = digest_file(path)
        watch(path.stat().st_size)
        return digest

    links = list_links(store)
    for path in _results(store):
        manifest, problem = _read_result(path, read)
        # A run may have replaced or removed it meanwhile.
        if problem and (manifest != read_manifest(path) or not path.is_dir()):
            manifest, problem = _read_result(path, read) if path.is_dir() else (None, None)
        advice = f"Make it again with `{links[path.name]}`." if path.name in links else _without_a_run(manifest)
        yield Difference(path, problem, advice) if problem else None
    yield from _verify_versions(store, read)


def _read_result(path: Path, read: Digest) -> tuple[dict[str, Any] | None, str | None]:
    """Return a result's manifest, and what is wrong with it."""
    manifest = read_manifest(path)
    return manifest, what_is_wrong(path) or changed(Artifact(path, manifest or {}), read)


def _without_a_run(manifest: Mapping[str, Any] | None) -> str:
    if manifest is not None and manifest.get("shared"):
        return "The next stage that needs it makes it again."
    return f"No run refers to it; {'remove the folder' if manifest is None else '`just gc` removes it'}."


def _verify_versions(store: Store, read: Digest) -> Iterator[Difference | None]:
    whole: dict[str, Path] = {}
    broken: dict[Path, str] = {}
    for version in _versions(store):
        if problem := changed_file(version, _files_of(version), read):
            broken[version] = problem
        else:
            whole[_identity(version)] = version
            yield None
    for version, problem in broken.items():
        same = whole.get(_identity(version))
        again = f"`{_run_of(version, store).rerun('publish')}` publishes it again."
        advice = again if same is None else f"{same.name} is the same and whole."
        yield Difference(version, problem, advice, matters=same is None)


def _run_of(version: Path, store: Store) -> RunFolder:
    """Return the run that a published version says it is of; one without a name for a version that does not say it."""
    profile, _, name = str(read_mapping(version / PUBLISHED).get("run") or "").partition("/")
    return RunFolder(store.runs, version.parent.name, profile, name)


def _results(store: Store) -> list[Path]:
    """Return the folders that are named as results are; what else is there is not the store's."""
    found = store.artifacts.iterdir() if store.artifacts.is_dir() else ()
    return sorted(path for path in found if RESULT.fullmatch(path.name) and path.is_dir())


def _versions(store: Store) -> list[Path]:
    """Return the published versions that say what they hold."""
    return sorted(path for path in store.models.glob("*/v*") if not path.is_symlink() and _files_of(path))


def _files_of(version: Path) -> dict[str, str]:
    files = read_mapping(version / PUBLISHED).get("files")
    return files if isinstance(files, dict) and all(isinstance(value, str) for value in files.values()) else {}


def _identity(version: Path) -> str:
    record = read_mapping(version / PUBLISHED)
    return json.dumps([record.get("domain"), record.get("model"), record.get("card")], sort_keys=True)
