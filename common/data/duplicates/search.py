"""Look at all rows of a role, and at those that earlier stages were made of; decide; then judge each row.

Usage: `TwoPassSearch(settings, context, ("cpt",), noting=notes, deciding=decide, judging=judge)` is a `TwoPass`.

Rows come in parts: one for each file of rows of an earlier stage, then one for each task. A part has a folder with what
was noted of its rows. It appears under its name once it is whole. Rows are numbered over all parts, and of those that
are alike the first one is kept, so that rows of earlier stages win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.config.blocks import BlockContext, Drop, Row, Task
from common.data.shards import read_shard, replacing, shards_of
from common.data.texts import texts_of
from common.errors import DataError

EXCERPT = 60  # characters of a row that are shown where another repeats it
DECIDED = "decided"
_TEXTS, _ENDS = "excerpts", "excerpts.ends"
Note = Callable[[Row], None]


class Part(NamedTuple):
    """Some rows of which something was noted."""

    folder: Path
    role: str | None  # of an earlier stage; none: the rows that are cleaned now
    rows: int
    offset: int  # rows in the parts before it


class Parts:
    """All parts, in their order."""

    def __init__(self, folders: Sequence[tuple[Path, str | None]]) -> None:
        counts = [_rows_in(folder) for folder, _ in folders]
        self.offsets = [0, *accumulate(counts)]
        self.all = [
            Part(folder, role, rows, offset)
            for (folder, role), rows, offset in zip(folders, counts, self.offsets, strict=False)
        ]
        self.rows = self.offsets[-1]

    def of_task(self, task: int) -> Part:
        """Return the part of a task's own rows."""
        return next(part for part in self.all if part.folder.name == _task_name(task))

    def holding(self, row: int) -> Part:
        """Return the part in which a row is."""
        return self.all[int(np.searchsorted(self.offsets, row, side="right")) - 1]

    def drop(self, reason: str, row: int, found: str = "") -> Drop:
        """Return why a row goes that repeats another, with the source and the beginning of that one."""
        part = self.holding(row)
        place = row - part.offset
        start, end = np.fromfile(part.folder / _ENDS, "<u8", 2, offset=8 * place)
        with (part.folder / _TEXTS).open("rb") as texts:
            texts.seek(int(start))
            shown = texts.read(int(end - start)).decode("utf-8", "replace")
        where = "" if part.role is None else f"{part.role}, "
        return Drop(reason if part.role is None else f"{reason} of an earlier stage", f"{found}{where}{shown}")


@dataclass(frozen=True)
class TwoPassSearch:
    """Finds what is alike in rows (see `common.config.blocks.TwoPass`). The functions are given the settings first."""

    settings: Any  # of a block
    context: BlockContext
    against: Sequence[str]  # roles of earlier stages
    noting: Callable[[Any, Path], AbstractContextManager[Note]]  # folder -> what notes each row of a part there
    deciding: Callable[[Any, Parts, Path], None]  # writes what it decides into a folder
    judging: Callable[[Any, Parts, Path, Part], Callable[[int, Row], Row | Drop]]

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows of a task and note them; then note a share of the earlier rows."""
        yield from self._noted(_task_name(task.number), rows)
        for name, _, shard in self._earlier()[task.number :: task.of or 1]:
            for _ in self._noted(name, read_shard(shard)):
                pass

    def decide(self, tasks: int) -> None:
        """Decide from what was noted. It may be done again."""
        with replacing(self.context.folder / DECIDED) as fresh:
            fresh.mkdir()
            self.deciding(self.settings, self._parts(tasks), fresh)

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what judges each row of a task."""
        parts = self._parts(task.of)
        return self.judging(self.settings, parts, self.context.folder / DECIDED, parts.of_task(task.number))

    def _noted(self, name: str, rows: Iterator[Row]) -> Iterator[Row]:
        with replacing(self.context.folder / name) as fresh:
            fresh.mkdir()
            noting = self.noting(self.settings, fresh)
            with noting as note, (fresh / _TEXTS).open("wb") as texts, (fresh / _ENDS).open("wb") as ends:
                ends.write(bytes(8))
                for row in rows:
                    note(row)
                    texts.write(_excerpt(row))
                    ends.write(texts.tell().to_bytes(8, "little"))
                    yield row

    def _earlier(self) -> list[tuple[str, str, Path]]:
        """Return the files of earlier stages, each with the name of its part and its role."""
        found = []
        for number, role in enumerate(self.against):
            if role not in self.context.earlier:
                raise DataError(
                    f"against: no stage before this one has cleaned rows of '{role}'; those that have: "
                    f"{', '.join(sorted(self.context.earlier)) or 'none'}. Leave it out, or add such a stage."
                )
            for shard in shards_of(self.context.earlier[role]):
                found.append((f"earlier-{number:02d}-{shard.name.split('.')[0]}", role, shard))
        return found

    def _parts(self, tasks: int) -> Parts:
        folder = self.context.folder
        earlier = [(folder / name, role) for name, role, _ in self._earlier()] if tasks else []
        return Parts([*earlier, *((folder / _task_name(task), None) for task in range(tasks))])


def dropping_repeats(
    parts: Parts, kept: Path, part: Part, reason: str, like: Callable[[int, int], str] = lambda row, first: ""
) -> Callable[[int, Row], Row | Drop]:
    """Return what drops the rows of a part that are not the first of their group, by a file that says who is."""
    first = np.fromfile(kept, "<u8", part.rows, offset=8 * part.offset)

    def judge(place: int, row: Row) -> Row | Drop:
        here, other = part.offset + place, int(first[place])
        return row if other == here else parts.drop(reason, other, like(here, other))

    return judge


def _task_name(task: int) -> str:
    return f"task-{task:05d}"


def _rows_in(folder: Path) -> int:
    assert folder.is_dir(), f"{folder.name} was not looked at: every task looks before anything is decided"
    return (folder / _ENDS).stat().st_size // 8 - 1


def _excerpt(row: Row) -> bytes:
    """Return the source and the beginning of a row."""
    text = ""
    for piece in texts_of(row):
        text = " ".join(f"{text} {piece[: 4 * EXCERPT]}".split())
        if len(text) >= EXCERPT:
            break
    return f"{row['source']}: {text[:EXCERPT].rstrip()}".encode("utf-8", "replace")
