"""Token rows on the disk: shards that are written whole or not at all, and the packed file made of them.

Usage:
    shards = TokenShards(folder)              # finds the shards that a killed process has finished
    shards.add(row); shards.finish(state)     # `state` says where to go on behind the shard
    shards.pack(2048, folder / "rows.arrow")  # columns input_ids, labels, seq_lengths, and one for each score

A shard is one array of int32: the lengths of its documents, their tokens, their labels where these differ, and their
scores as float32, those of a document together. The file that describes it is written last. Only lengths and scores
are held in memory, and the tokens of one shard.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.store.artifacts import flush, write_json
from common.store.manifest import read_mapping
from common.training.rows.best_fit import best_fit, by_place, split

if TYPE_CHECKING:
    import numpy as np

SHARD = 2**21  # tokens, after which a shard ends
WINDOW = 20_000  # documents that are packed together
WINDOW_ROWS = 64  # rows of documents that are packed together where their order counts
ROWS, TOKENS = 1000, 2**19  # of a batch of the packed file
WORD = 4  # bytes of a token
OPEN = 200  # files at once; systems allow 256 and more
SCORE = "score/"  # in the names of columns: the score of each document of a row follows
TEACHER = "teacher/"  # the same, of batches: what was kept of a teacher's logits


class TokenRow(NamedTuple):
    """One document or conversation: T tokens, and as labels the same tokens or IGNORED."""

    input_ids: Sequence[int]
    labels: Sequence[int]  # the same object where all are learned
    scores: Sequence[float] = ()  # that were asked for, in that order


class Shard(NamedTuple):
    """A finished shard, the place of its tokens in its file, and what was said when it was finished."""

    path: Path
    documents: int
    tokens: int
    masked: bool  # whether labels follow the tokens; scores come last
    scores_each: int  # of a document
    state: Mapping[str, Any]

    def lengths(self) -> np.ndarray:
        import numpy as np

        return np.fromfile(self.path, np.int32, self.documents)

    def scores(self) -> np.ndarray:
        """Return the scores of its documents, (documents, scores_each)."""
        import numpy as np

        place = self.documents + self.tokens * (1 + self.masked)
        found = np.fromfile(self.path, np.float32, self.documents * self.scores_each, offset=place * WORD)
        return found.reshape(self.documents, self.scores_each)

    def first(self, number: int) -> Iterator[TokenRow]:
        """Yield the first documents, without their scores."""
        import numpy as np

        words = np.memmap(self.path, np.int32, "r")
        stop = self.documents
        for length in words[: min(number, self.documents)].tolist():
            start, stop = stop, stop + length
            ids = words[start:stop].tolist()
            yield TokenRow(ids, words[start + self.tokens : stop + self.tokens].tolist() if self.masked else ids)


class TokenShards:
    """The shards in one folder, in their order."""

    def __init__(self, folder: Path) -> None:
        """Open a folder; a shard that a killed process has not finished is written again."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.done: list[Shard] = []
        while found := read_mapping(self._described(len(self.done))):
            path = self._path(len(self.done))
            if not path.is_file() or path.stat().st_size != found["bytes"]:
                break  # a disk that lost power
            facts = (found[name] for name in ("documents", "tokens", "masked", "scores_each", "state"))
            self.done.append(Shard(path, *facts))
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._scores: list[Sequence[float]] = []
        self.waiting = 0  # tokens that no shard has yet

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What was said when the last shard was finished; None before the first one."""
        return self.done[-1].state if self.done else None

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.done) + len(self._rows)

    @property
    def is_full(self) -> bool:
        return self.is_due(0)

    def is_due(self, passed: int) -> bool:
        """Whether it is time for a shard; `passed` are tokens that were read since the last one and are in none."""
        return self.waiting + passed >= SHARD

    def add(self, row: TokenRow) -> None:
        """Add a document to the next shard."""
        import numpy as np

        ids = np.asarray(row.input_ids, np.int32)
        self._rows.append((ids, ids if row.labels is row.input_ids else np.asarray(row.labels, np.int32)))
        self._scores.append(row.scores)
        self.waiting += len(ids)

    def finish(self, state: Mapping[str, Any]) -> None:
        """Write what was added as a shard, whole; the bytes are on the disk before the file that says so."""
        import numpy as np

        path, described = self._path(len(self.done)), self._described(len(self.done))
        described.unlink(missing_ok=True)
        lengths = np.fromiter((len(ids) for ids, _ in self._rows), np.int32, len(self._rows))
        masked = any(ids is not labels for ids, labels in self._rows)
        parts = [lengths, *(ids for ids, _ in self._rows), *(labels for _, labels in self._rows if masked)]
        each = len(self._scores[0]) if self._scores else 0
        parts.append(np.fromiter(chain.from_iterable(self._scores), np.float32, len(self._scores) * each))
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as stream:
            for part in parts:
                stream.write(part.data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, path)
        facts = {"documents": len(lengths), "tokens": self.waiting, "masked": masked, "scores_each": each}
        facts["bytes"] = path.stat().st_size
        write_json(described, {**facts, "state": state})
        flush(self.folder)
        self.done.append(Shard(path, len(lengths), self.waiting, masked, each, state))
        self._rows, self._scores, self.waiting = [], [], 0

    def first(self, number: int) -> list[TokenRow]:
        """Return the first documents of all."""
        found: list[TokenRow] = []
        for shard in self.done:
            if len(found) == number:
                break
            if not shard.documents:  # it only says how far reading has come
                continue
            found += shard.first(number - len(found))
        return found

    def pack(self, most: int, target: Path, order: np.ndarray | None = None, scores: Sequence[str] = ()) -> int:
        """Write the documents, packed by best fit into rows of at most `most` tokens. Return the number of rows.

        Longer documents are split, so that no token is lost; shorter ones stay whole. With an `order` of the documents
        rows follow it, but for those of about WINDOW_ROWS rows, which are packed together. `scores` are the names of
        the documents' scores; each gets a column with that of every part of a row.
        """
        import numpy as np
        import pyarrow as pa

        numbers = pa.list_(pa.int32())
        scored = [(f"{SCORE}{name}", pa.list_(pa.float32())) for name in scores]
        schema = pa.schema([("input_ids", numbers), ("labels", numbers), ("seq_lengths", numbers), *scored])
        num_rows, documents = 0, (self._starts(), self.scores()) if scores else None
        with _Tokens(self.done) as tokens, target.open("wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for starts, lengths in self._in_windows() if order is None else self._in_order(order, WINDOW_ROWS * most):
                some = lengths > 0
                parts = split(starts[some], lengths[some], most)
                placed, sizes = best_fit(parts.lengths, most)
                if order is not None:
                    placed, sizes = by_place(placed, sizes)
                num_rows += len(sizes)
                for rows, places in _batches(sizes, placed, parts.lengths):
                    part_lengths = parts.lengths[places]
                    ids, labels = tokens.read(parts.starts[places], part_lengths)
                    bounds = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
                    ends = np.concatenate([[0], np.cumsum(part_lengths)])[bounds].astype(np.int32)
                    given = [(ends, ids), (ends, labels), (bounds, part_lengths.astype(np.int32))]
                    if documents is not None:
                        owners = np.searchsorted(documents[0], parts.starts[places], side="right") - 1
                        given += [(bounds, column) for column in documents[1][owners].T]
                    columns = [
                        pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values)))
                        for offsets, values in given
                    ]
                    writer.write_batch(pa.record_batch(columns, schema))
        flush(target)
        return num_rows

    def _in_windows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield where documents begin among all tokens, and their lengths: up to WINDOW of them, in their order."""
        import numpy as np

        waiting, begin = np.zeros(0, np.int32), 0
        for shard in [*self.done, None]:
            if shard is not None:
                waiting = np.concatenate([waiting, shard.lengths()])
            while len(waiting) >= WINDOW or (shard is None and len(waiting)):
                lengths, waiting = waiting[:WINDOW], waiting[WINDOW:]
                ends = begin + np.cumsum(lengths, dtype=np.int64)
                yield ends - lengths, lengths
                begin = int(ends[-1])

    def _in_order(self, order: np.ndarray, tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the same of all documents in an order, in windows of so many tokens."""
        import numpy as np

        lengths = self.lengths()
        starts = (np.cumsum(lengths, dtype=np.int64) - lengths)[order]
        lengths = lengths[order]
        for window in _windows(lengths, tokens):
            yield starts[window], lengths[window]

    def lengths(self) -> np.ndarray:
        """Return the tokens of each document."""
        import numpy as np

        return np.concatenate([np.zeros(0, np.int32), *(shard.lengths() for shard in self.done)])

    def _starts(self) -> np.ndarray:
        """Return where each document begins among all tokens; one without tokens begins where the next one does."""
        import numpy as np

        lengths = self.lengths()
        starts: np.ndarray = np.cumsum(lengths, dtype=np.int64) - lengths
        return starts

    def scores(self) -> np.ndarray:
        """Return the scores of each document, (documents, scores of each)."""
        import numpy as np

        found = [shard.scores() for shard in self.done if shard.documents]
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05}.tokens"

    def _described(self, number: int) -> Path:
        return self.folder / f"{number:05}.json"


def _windows(lengths: np.ndarray, tokens: int) -> Iterator[slice]:
    """Yield the documents that are packed together: up to WINDOW, and so many tokens, but at least one document."""
    import numpy as np

    ends, first = np.cumsum(lengths, dtype=np.int64), 0
    while first < len(lengths):
        before = ends[first] - lengths[first]
        within = int(np.searchsorted(ends, before + tokens, side="right"))
        stop = min(first + WINDOW, max(first + 1, within))
        yield slice(first, stop)
        first = stop


def _batches(sizes: np.ndarray, order: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield how many parts the next rows hold, and the places of these parts, for rows that are few and short."""
    import numpy as np

    ends = np.cumsum(sizes)
    tokens = np.cumsum(lengths[order])[ends - 1]  # up to the end of each row
    row, done = 0, 0
    while row < len(sizes):
        fitting = int(np.searchsorted(tokens, (tokens[row - 1] if row else 0) + TOKENS, side="right"))
        stop = min(max(fitting, row + 1), row + ROWS)
        yield sizes[row:stop], order[done : ends[stop - 1]]
        row, done = stop, int(ends[stop - 1])


class _Tokens(contextlib.ExitStack):
    """The tokens and labels of shards, as if they stood one behind the other."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        import numpy as np

        super().__init__()
        self._shards = shards
        self._ends = np.cumsum([shard.tokens for shard in shards])
        self._files: dict[int, int] = {}

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and the labels of some stretches, each within a shard."""
        import numpy as np

        ids = np.empty(int(lengths.sum()), np.int32)
        labels = np.empty_like(ids)
        owners = np.searchsorted(self._ends, starts, side="right")
        done = 0
        for owner, start, length in zip(owners.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            shard, stop = self._shards[owner], done + length
            place = shard.documents + start - (int(self._ends[owner]) - shard.tokens)
            self._fill(owner, place, ids[done:stop])
            if shard.masked:
                self._fill(owner, place + shard.tokens, labels[done:stop])
            else:
                labels[done:stop] = ids[done:stop]
            done = stop
        return ids, labels

    def _fill(self, owner: int, place: int, into: np.ndarray) -> None:
        """Read words from a file. It is not mapped: pages that were read would count as memory of the process."""
        read = os.preadv(self._file(owner), [into.data], place * WORD)
        if read != into.nbytes:
            raise OSError(f"{self._shards[owner].path}: {read} bytes were read at {place * WORD}, not {into.nbytes}")

    def _file(self, owner: int) -> int:
        if owner not in self._files:
            if len(self._files) == OPEN:
                self.close()
                self._files.clear()
            self._files[owner] = os.open(self._shards[owner].path, os.O_RDONLY)
            self.callback(os.close, self._files[owner])
        return self._files[owner]
