"""A content-addressed store: one folder per stage result, committed whole or not at all.

Usage:
    store = Store(root)
    with store.lock("sft", fingerprint, wait=True): ...
    store.commit(stage, fingerprint, out, manifest)

`artifacts/<stage>-<fingerprint>/` holds the files and, written last, `manifest.json` with their sizes and
digests; work happens in `artifacts/.work/` and becomes visible by one rename. A folder counts as
done only if its manifest agrees with its name and its files. What to make is decided by `common.engine.run`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from common.errors import RecipeError, StoreError
from common.store.locks import Holder, hold
from common.store.manifest import MANIFEST, SCHEMA, damage, give_modes, list_files, name_in, read_manifest
from common.store.ownership import ASIDE, CODE, erase, not_a_result
from common.system.files import open_regular, read_bytes

log = logging.getLogger(__name__)
FINGERPRINT_LENGTH = 16  # hex digits: 64 bits, so that two recipes never meet by chance
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors, tokenizers, arrow and torch raise errors of their own; torch's say no more than that.
FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed writing")
# Of a manifest: how an equal result was made the last time.
TODAY = ("code", "versions", "git", "reads", "lineage", "benchmarks")
# Files about how a result was made, not what it is: two runs with equal weights differ in these.
VOLATILE = frozenset({MANIFEST, "log.jsonl", "cleaned.json", "rejects.jsonl", "samples.jsonl.zst"})


@dataclass(frozen=True)
class Artifact:
    """One committed result."""

    path: Path
    manifest: Mapping[str, Any]

    def named(self, stage: str) -> Artifact:
        """Return the same result as that of a stage of this name, where several runs call it differently."""
        return self if self.stage == stage else Artifact(self.path, {**self.manifest, "stage": stage})

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def fingerprint(self) -> str:
        """What it was made from: kind, settings, data and the digests of its inputs."""
        return str(self.manifest["fingerprint"])

    @property
    def digest(self) -> str:
        """What it is: the hash of its files. Two runs with the same weights have the same digest."""
        return str(self.manifest["digest"])


def fingerprint_of(recipe: Mapping[str, Any]) -> str:
    """Return the fingerprint of a recipe: the first 64 bits of the SHA-256 of its canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest of a result from those of its files."""
    return fingerprint_of({name: facts["sha256"] for name, facts in files.items() if name not in VOLATILE})


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in a folder, or None where there is none that is whole."""
    manifest = read_manifest(folder)
    return None if manifest is None or damage(folder, manifest) else Artifact(folder, manifest)


def what_is_wrong(folder: Path) -> str | None:
    """Return why a folder that exists is not the result that its name says, or None."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"no valid {MANIFEST}"
    if name_in(manifest) != folder.name:
        return f"its {MANIFEST} is of {name_in(manifest)}"
    return damage(folder, manifest)


def _is_as_committed(artifact: Artifact) -> bool:
    """Whether every byte of a result is what its manifest says."""
    return all(
        digest_file(artifact.path / name) == facts["sha256"] for name, facts in artifact.manifest["files"].items()
    )


def was_started_by(work: Path, digest: str) -> bool:
    """Whether a scratch folder belongs to the code of that digest."""
    mark = work / CODE
    return mark.is_file() and read_bytes(mark) == digest.encode()


class Store:
    """The artifacts below one root folder. Their readable views are `common.store.runs`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.runs = root / "runs"
        self.models = root / "models"

    @property
    def work(self) -> Path:
        """Scratch of stages that are not done."""
        return self.artifacts / ".work"

    def folder(self, stage: str, fingerprint: str) -> Path:
        return self.artifacts / f"{stage}-{fingerprint}"

    def work_folder(self, stage: str, fingerprint: str) -> Path:
        return self.work / f"{stage}-{fingerprint}"

    def begin(self, stage: str, fingerprint: str, code: str) -> tuple[Path, Path | None]:
        """Return a stage's scratch folder, and where the scratch is now that other code left there.

        A run must not mix steps of both. What is set aside stays until the stage is done and `collect` removes it.
        """
        work, aside = self.work_folder(stage, fingerprint), None
        if (work / CODE).is_file() and not was_started_by(work, code):
            places = (work.with_name(f"{work.name}{ASIDE}{number}") for number in itertools.count(1))
            aside = work.rename(next(place for place in places if not place.exists()))
        work.mkdir(parents=True, exist_ok=True)
        if not (work / CODE).is_file():
            with replacing(work / CODE) as stream:
                stream.write(code)
        return work, aside

    def get(self, stage: str, fingerprint: str) -> Artifact | None:
        """Return the committed artifact, or None where it is missing or damaged."""
        found = read_artifact(self.folder(stage, fingerprint))
        return found if found is not None and name_in(found.manifest) == f"{stage}-{fingerprint}" else None

    def problem(self, stage: str, fingerprint: str) -> str | None:
        """Return why a folder that exists is not a valid artifact, or None."""
        folder = self.folder(stage, fingerprint)
        return what_is_wrong(folder) if folder.exists() else None

    @contextlib.contextmanager
    def lock(
        self, stage: str, fingerprint: str, *, wait: bool, on_wait: Callable[[Holder], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock of one artifact. The system frees it when its holder dies, however it dies.

        Raises StoreError when another process holds it and `wait` is false, or the store cannot be written.
        """

        def busy(holder: Holder) -> StoreError:
            return StoreError(
                f"Stage {stage} is being made by {holder.who} on the store {self.artifacts}. Leave out run.wait=false "
                f"to wait for it, or let that run finish first. {holder.silence}".strip()
            )

        path = self.lock_file(f"{stage}-{fingerprint}")
        with contextlib.ExitStack() as held:
            with writing(self.artifacts):
                held.enter_context(hold(path, wait=wait, busy=busy, on_wait=on_wait))
            yield

    def commit(self, stage: str, fingerprint: str, out: Path, manifest: dict[str, Any]) -> Artifact:
        """Turn a finished folder into an artifact: digests, manifest last, one rename.

        An existing folder of the same name is replaced, unless its result is equal: then it is kept.
        Raises StoreError on a full disk or a store that cannot be written.
        """
        target = self.folder(stage, fingerprint)
        with writing(self.artifacts):
            give_modes(out)
            files = {}
            for path in list_files(out):
                flush(path)
                name = path.relative_to(out).as_posix()
                files[name] = {"size": path.stat().st_size, "sha256": digest_file(path)}
            manifest = {**manifest, "schema": SCHEMA, "files": files, "digest": digest_of(files)}
            existing = self.get(stage, fingerprint)
            equal = existing is not None and existing.digest == manifest["digest"]
            if existing is not None and equal and "created" in existing.manifest:
                manifest["created"] = existing.manifest["created"]  # cards refer to it
            write_json(out / MANIFEST, manifest)
            # A file about how it was made may be of a newer kind: then the old folder lacks it.
            same_names = existing is not None and existing.manifest["files"].keys() == files.keys()
            if existing is not None and equal and same_names and _is_as_committed(existing):
                # The same result by today's code and libraries.
                today: dict[str, Any] = {key: manifest[key] for key in TODAY if key in manifest}
                write_json(target / MANIFEST, {**existing.manifest, **today})
                shutil.rmtree(out)
                return Artifact(target, {**existing.manifest, **today})
            if os.path.lexists(target):
                self._replace(target, out)
            else:
                os.rename(out, target)
            flush(self.artifacts)
        return Artifact(target, manifest)

    def _replace(self, target: Path, out: Path) -> None:
        """Put a new result in the place of an old one. What is not the old result alone is kept beside it."""
        self.work.mkdir(exist_ok=True)
        aside = self.work / f"replaced-{target.name}-{os.getpid()}"
        reason = not_a_result(target)
        os.rename(target, aside)
        os.rename(out, target)
        if reason is None:
            erase(aside)
            return
        names = (self.artifacts / f"{target.name}.kept-{number}" for number in itertools.count(1))
        kept = aside.rename(next(name for name in names if not os.path.lexists(name)))
        log.warning("%s was replaced, and what was there is kept as %s: %s", target.name, kept, reason)

    def lock_file(self, name: str) -> Path:
        return self.artifacts / ".locks" / f"{name}.lock"


def write_json(path: Path, value: Any) -> None:
    """Write JSON, the whole file or none of it. Half of a surrogate pair is no UTF-8; it is written as an escape."""
    with replacing(path) as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)
        stream.write("\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines atomically: the file is whole or not there, also after a kill."""
    with replacing(path) as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a text file so that a reader sees the old one or the whole new one, also after a crash."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


@contextlib.contextmanager
def writing(folder: Path, needed: float = 0.0) -> Iterator[None]:
    """Turn the system's errors on writing below a folder into a StoreError that says what to do.

    `needed` are the bytes that are expected to be written there.
    """
    try:
        yield
    except Exception as error:
        if is_full(error) and (needed or not isinstance(error, StoreError)):
            raise disk_full(folder, needed) from error
        if isinstance(error, RecipeError) or not isinstance(error, OSError):
            raise
        path = str(error.filename or "")
        named = bool(path) and (path.startswith(str(folder)) or str(folder).startswith(path))
        refused = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        if named and (refused or error.errno in (errno.ENOTDIR, errno.ENOENT)):
            raise StoreError(
                f"Cannot write below {folder}: {error.strerror}. Give another folder with out=<folder>, "
                "or make this one writable."
            ) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk, a full quota, or a limit on the size of files."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in FULL_WORDS):
            return True
        error = error.__cause__
    return False


def disk_full(folder: Path, needed: float = 0.0) -> StoreError:
    """Return what to raise where nothing more can be written below a folder."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    about = f" About {needed / 1e6:.0f} MB are needed here." if needed else ""
    if (most := resource.getrlimit(resource.RLIMIT_FSIZE)[0]) != resource.RLIM_INFINITY:
        about += f" Or a file is too large: `ulimit -f` allows {most:,} bytes."
    return StoreError(
        f"The disk of {folder} is full ({free / 1e6:.0f} MB free).{about} Nothing half-made is kept as done; "
        "free some space (`just gc` removes results that no run refers to) and run the same command again."
    )


def flush(path: Path) -> None:
    """Force a file's or folder's bytes to the disk. Do so before a file that says that they are there is written.

    Otherwise that one may outlive them when the power is lost.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
