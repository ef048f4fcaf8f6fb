"""A corpus whose rows for some roles were cleaned before, and are read from the results of those stages.

Usage: `corpus = Cleaned(corpus, {"cpt": artifact.path})`; `for row in corpus.rows("cpt"): ...`.

All else is the corpus's own: exams, titles, licences. A source's rows are stored once; its weight repeats them here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Row
from common.data.shards import read_shard, shards_of
from common.data.wrapped import Wrapped
from common.store.manifest import read_mapping

# Of a stage that cleans. Rows and weights are its result; the others only tell what was done.
WEIGHTS, FACTS, REJECTS, SAMPLES = "weights.json", "cleaned.json", "rejects.jsonl", "samples.jsonl.zst"


class CleanedRows:
    """The rows of one role, as a stage has left them in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the stage says of them: the accounts of each source."""
        return dict(read_mapping(self._folder / FACTS))

    @cached_property
    def times(self) -> dict[str, float]:
        """How often the rows of each source are used."""
        return dict(read_mapping(self._folder / WEIGHTS))

    def read(self) -> Iterator[Row]:
        """Yield all rows in their order, each once."""
        for shard in shards_of(self._folder):
            yield from read_shard(shard)

    def rows(self) -> Iterator[Row]:
        """Yield the rows as often as their sources say: whole passes, then evenly spaced rows of one more."""
        times = self.times
        for number in range(math.ceil(max(times.values(), default=0))):
            seen = dict.fromkeys(times, 0)
            for row in self.read():
                source = row["source"]
                seen[source] += 1
                share = min(1.0, times[source] - number)
                if share > 0 and math.floor(seen[source] * share + 1e-9) > math.floor(
                    (seen[source] - 1) * share + 1e-9
                ):
                    yield row

    def counts(self) -> dict[str, RowCount]:
        """Return the accounts of each source, from its raw rows to those that are left, times its weight."""
        found = {}
        for values in self.facts["sources"]:
            count, times = RowCount(**values), self.times[values["source"]]
            for rows in (count.dropped, count.changed):
                rows.update({reason: round(number * times) for reason, number in rows.items()})
            count.rows_in, count.rows_out = round(count.rows_in * times), round(count.rows_out * times)
            count.joined = round(count.joined * times)
            found[count.source] = count
        return found


class Cleaned(Wrapped):
    """A corpus of which some roles are read from the results of stages that cleaned them, and portions as they were."""

    def __init__(self, corpus: Corpus, cleaned: Mapping[str, Path]) -> None:
        super().__init__(corpus)
        self._cleaned = {role: CleanedRows(folder) for role, folder in cleaned.items()}

    def is_clean(self, role: str) -> bool:
        """Whether the rows of a role were cleaned before, which keeps the exam out of them too."""
        return role in self._cleaned

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role, in the same order every time."""
        return self._cleaned[role].rows() if role in self._cleaned else self._own.rows(role)

    def counts(self, role: str) -> Mapping[str, RowCount]:
        """Return the accounts of a role by source id."""
        return self._cleaned[role].counts() if role in self._cleaned else self._own.counts(role)

    def check_rows(self, roles: Sequence[str]) -> None:
        """Read every local row of the roles that were not cleaned. Raises DataError with all that is wrong."""
        self._own.check_rows([role for role in roles if role not in self._cleaned])

    def sources(self) -> list[dict[str, Any]]:
        """Return the sources for the card; how many rows each has is known of those that were cleaned."""
        rows = {
            count.source: count.rows_in - count.joined
            for cleaned in self._cleaned.values()
            for count in cleaned.counts().values()
        }
        return [
            {**source, "rows": rows.get(str(source["id"])) if source.get("rows") is None else source["rows"]}
            for source in self._own.sources()
        ]
