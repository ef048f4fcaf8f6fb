"""Write a file and read it back: what the tests of formats share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.data.manifest.files.source_file import Findings
from common.data.manifest.readers import Reading, SourceFile, read_file


class Found:
    """The records of a file, and what was told of it."""

    def __init__(self, path: Path, **reading: Any) -> None:
        told = Findings("s")
        self.records = list(read_file(SourceFile(path, path.name, tell=told), Reading(**reading)))
        self.told = told.messages

    @property
    def values(self) -> list[dict[str, Any]]:
        return [record.value for record in self.records if record.flaw is None]

    @property
    def flaws(self) -> list[str]:
        return [record.flaw.detail for record in self.records if record.flaw is not None]

    @property
    def reasons(self) -> list[str]:
        return [record.flaw.reason for record in self.records if record.flaw is not None]


def read(folder: Path, name: str, content: str | bytes, **reading: Any) -> Found:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Found(path, **reading)
