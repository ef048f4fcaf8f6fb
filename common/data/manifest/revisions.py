"""Which commit of each Hub data set, and of each base model, a run reads: asked for once, then kept with the results.

Usage: `revisions = Revisions(Path("out/hub_revisions.json")); pinned = revisions.pin(source)`.

A branch such as `main` moves. The first run in a store notes the commit that it points to; every later one reads that
commit, without asking, until `run.newest_data=true` asks again. A commit that a manifest names is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from common.data.manifest.hub import commit_of
from common.data.manifest.schema import Source
from common.errors import DataError
from common.store.artifacts import write_json
from common.system.files import read_bytes

NAME = "hub_revisions.json"
_COMMIT = r"^[0-9a-f]{40}$"
_COMMITS = TypeAdapter(dict[str, Annotated[str, Field(pattern=_COMMIT)]])
Resolver = Callable[[Source], str]


class Revisions:
    """Commits by data set and branch. `path` None keeps them in memory only; `fresh` asks for those in it again."""

    def __init__(
        self,
        path: Path | None,
        given: Mapping[str, str] | None = None,
        *,
        fresh: bool = False,
        resolver: Resolver = commit_of,
    ) -> None:
        self._path = path
        self._resolver = resolver
        self._commits = {} if fresh else _read(path) | dict(given or {})

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
        if not re.search(_COMMIT, source.revision or "") and _key(source) not in self._commits:
            self._commits[_key(source)] = self._resolver(source)
        return self.apply(source)

    def commit(self, name: str, ask: Callable[[], str] | None) -> str | None:
        """Return the commit noted under a name, or what `ask` returns, which is then noted; None where nobody asks."""
        if name not in self._commits and ask is not None:
            self._commits[name] = ask()
        return self._commits.get(name)

    def save(self) -> None:
        """Write what is new to the file; what other runs noted there since stays."""
        if self._path is None or not self._commits:
            return
        if self._commits.items() <= _read(self._path).items():
            return
        import filelock

        self._path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self._path.with_name(f".{self._path.name}.lock")):
            write_json(self._path, dict(sorted((_read(self._path) | self._commits).items())))


def _key(source: Source) -> str:
    return f"{source.hub}@{source.revision or 'main'}"


def _read(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        return _COMMITS.validate_json(read_bytes(path))
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise DataError(
            f"{path} cannot be read ({problem}). Delete it: the next run asks the Hub for the commits again."
        ) from None
