"""Results that several stages read and none of them owns, such as tokens: made once, under a name of their own.

Usage: `SharedResults(store, lease, work, code, wait, tell).get("tokens", recipe, make)` returns an Artifact.

They are results like those of stages: under a lock and a lease while they are made or read, committed whole, verified.
What a stage has read is noted in its scratch and then in its manifest: such a result stays as long as the stage's, or
as the scratch of a stage that was stopped. Which rows are prepared how is `common.training.rows.prepared`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.store.artifacts import Artifact, Store, fingerprint_of, read_artifact, write_json, writing
from common.store.cache import remember
from common.store.leases import Lease
from common.store.locks import Holder
from common.store.manifest import READS, read_mapping
from common.store.ownership import SHARED
from common.store.verify import changed

Make = Callable[[Path, Path], Mapping[str, Any]]  # (scratch that survives a kill, the result) -> what is known of it


@dataclass(frozen=True)
class SharedResults:
    """The shared results of a store, as one stage uses them."""

    store: Store
    lease: Lease
    work: Path  # the stage's scratch
    code: Callable[[str], str]  # the digest of a module, of what it imports, and of what reads rows
    wait: bool  # for another run that makes the same result
    tell: Callable[[str], None]

    def get(self, kind: str, recipe: Mapping[str, Any], make: Make) -> Artifact:
        """Return a result, which is made where there is none that is whole. Raises what `make` raises."""
        fingerprint = fingerprint_of(recipe)
        name = self.store.folder(kind, fingerprint).name
        self.lease.add(name)  # before anyone looks whether it is there
        self._note(name, {"stage": kind, "fingerprint": fingerprint})  # so that its scratch stays too
        found = self._whole(kind, fingerprint)
        if found is None:
            with self.store.lock(kind, fingerprint, wait=self.wait, on_wait=lambda holder: self._tell(kind, holder)):
                found = self._whole(kind, fingerprint) or self._made(kind, fingerprint, recipe, make)
        self._note(name, {"stage": kind, "fingerprint": fingerprint, "digest": found.digest})
        return found

    def find(self, name: str) -> Artifact | None:
        """Return a result by the name of its folder, or None where it is not there or not whole."""
        self.lease.add(name)
        return read_artifact(self.store.artifacts / name)

    def _whole(self, kind: str, fingerprint: str) -> Artifact | None:
        found = self.store.get(kind, fingerprint)
        return None if found is None or changed(found) else found

    def _made(self, kind: str, fingerprint: str, recipe: Mapping[str, Any], make: Make) -> Artifact:
        with writing(self.store.artifacts):
            work, _ = self.store.begin(kind, fingerprint, str(recipe.get("code", "")))
            (work / SHARED).touch()
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            known = make(work, out)
        manifest = {"stage": kind, "kind": kind, "fingerprint": fingerprint, "shared": True, "recipe": recipe, **known}
        made = self.store.commit(kind, fingerprint, out, manifest)
        remember({made.path / name: facts["sha256"] for name, facts in made.manifest["files"].items()})
        shutil.rmtree(work, ignore_errors=True)
        return made

    def _note(self, name: str, facts: Mapping[str, str]) -> None:
        noted = read_mapping(self.work / READS)
        if noted.get(name) != facts:
            write_json(self.work / READS, {**noted, name: facts})

    def _tell(self, kind: str, holder: Holder) -> None:
        self.tell(f"{kind}: {holder.who} is making them; waiting (Ctrl-C to stop). {holder.silence}".rstrip())
