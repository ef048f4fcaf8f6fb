"""Which commit of each Hub data set a run reads: asked for once, then kept with the results.

Usage: `revisions = Revisions(Path("out/hub_revisions.json")); pinned = revisions.pin(source)`.

A branch such as `main` moves. The first run in a store notes the commit that it points to; every later one reads that
commit, without asking, until `run.newest_data=true` asks again. A commit that a manifest names is taken as it is.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from common.data.manifest.hub import commit_of
from common.data.manifest.schema import Source
from common.errors import DataError
from common.store.artifacts import write_json

NAME = "hub_revisions.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
Resolver = Callable[[Source], str]


class Revisions:
    """Commits by data set and branch. `path` None keeps them in memory only."""

    def __init__(
        self, path: Path | None, given: Mapping[str, str] | None = None, *, resolver: Resolver = commit_of
    ) -> None:
        self._path = path
        self._resolver = resolver
        self._commits = _read(path) | dict(given or {})
        self._lock = threading.Lock()

    @classmethod
    def anew(cls, path: Path, *, resolver: Resolver = commit_of) -> Revisions:
        """Start without the commits in a file, which the next `pin` of each replaces."""
        revisions = cls(path, resolver=resolver)
        revisions._commits = {}
        return revisions

    def known(self) -> dict[str, str]:
        """Return commit by `owner/name@branch`, sorted."""
        return dict(sorted(self._commits.items()))

    def of(self, source: Source) -> str | None:
        """Return the commit of a source, or the revision as the manifest has it where none is noted yet."""
        return self._commits.get(_key(source), source.revision)

    def apply(self, source: Source) -> Source:
        """Return a source that reads the commit noted for it."""
        return source.model_copy(update={"revision": self.of(source)})

    def pin(self, source: Source) -> Source:
        """Note the commit of a source, asking the Hub unless it is known. Raises DataError like reading does."""
        if not _is_commit(source.revision) and _key(source) not in self._commits:
            commit = self._resolver(source)
            with self._lock:
                self._commits[_key(source)] = commit
        return self.apply(source)

    def save(self) -> None:
        """Write what is new to the file; what other runs noted there since stays."""
        if self._path is None or not self._commits:
            return
        kept = _read(self._path)
        together = kept | self._commits
        if together != kept:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, dict(sorted(together.items())))


def _key(source: Source) -> str:
    return f"{source.hub}@{source.revision or 'main'}"


def _is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def _read(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        commits = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(commit, str) and _is_commit(commit) for commit in commits.values()):
            return dict(commits)
        problem = "a value is no commit"
    except (ValueError, AttributeError) as error:
        problem = str(error)
    raise DataError(f"{path} cannot be read ({problem}). Delete it: the next run asks the Hub for the commits again.")
