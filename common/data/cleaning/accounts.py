"""What blocks did to rows: seen, dropped and why, changed and how, by block and source, with a sample of what went.

Usage: `accounts = TaskAccounts(sample=20)`; `accounts.of("2 pii", "web").seen += 1`; `accounts.add(later.as_dict())`.

It only counts. Each task has accounts of its own; added in the order of the tasks they are the same for any number of
workers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.config.blocks import Drop, Row
from common.data.cleaning.amounts import CHARACTERS, Amount
from common.data.texts import texts_of

CLASSES = 8  # of lengths between one power of two and the next: a quantile of them is right within 9%
EXCERPT = 400  # characters of a rejected row that are kept
DETAIL = 300
BEFORE, LEFT = "before", "left"  # of cleaning: the two amounts of each source


def length_class(characters: int) -> int:
    """Return the class of lengths that a row belongs to; it grows with the logarithm of its characters."""
    return round(CLASSES * math.log2(characters + 1))


def characters_of(number: int) -> float:
    """Return about how many characters the rows of a class of lengths have."""
    return float(2 ** (number / CLASSES) - 1)


def quantiles(lengths: Mapping[int, int], shares: Sequence[float]) -> list[float]:
    """Return the characters of the rows at some shares of all rows, from the shortest to the longest."""
    found, total = [], sum(lengths.values())
    for share in shares:
        left = share * total
        for number in sorted(lengths):
            left -= lengths[number]
            if left <= 0:
                break
        found.append(characters_of(number) if total else 0.0)
    return found


@dataclass
class BlockCount:
    """The rows of one source that one block saw."""

    seen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    changed: Counter[str] = field(default_factory=Counter)  # by what was done

    @property
    def num_dropped(self) -> int:
        return self.dropped.total()


class TaskAccounts:
    """The counts of a task by block and source, what it wrote, and the first rows that each block rejected."""

    def __init__(self, sample: int, texts: int = CHARACTERS) -> None:
        """`sample` is how many rejected rows are kept for each block and reason, `texts` the characters of a sample."""
        self.blocks: dict[str, dict[str, BlockCount]] = {}
        self.rows: Counter[str] = Counter()  # written, by source
        self.amounts: dict[str, dict[str, Amount]] = {BEFORE: {}, LEFT: {}}  # by source
        self.lengths: dict[str, Counter[int]] = {}  # of rows written, by source and `length_class`
        self.rejects: list[dict[str, Any]] = []
        self._sample, self._texts, self._kept = sample, texts, Counter[tuple[str, str]]()

    def of(self, block: str, source: str) -> BlockCount:
        """Return the count of a block and a source, opened when first asked for."""
        return self.blocks.setdefault(block, {}).setdefault(source, BlockCount())

    def reject(self, block: str, row: Row, drop: Drop, *, always: bool = False) -> None:
        """Count a row that a block leaves out, and keep it while there are few for its reason, or `always`."""
        self.of(block, row["source"]).dropped[drop.reason] += 1
        self._keep(
            {
                "block": block, "reason": drop.reason, "detail": drop.detail[:DETAIL], "source": row["source"],
                "text": "\n".join(text for text in texts_of(row) if text)[:EXCERPT],
            },
            always=always,
        )  # fmt: skip

    def amount(self, side: str, source: str) -> Amount:
        """Return how much text a source has on one side of cleaning, counted from when it is first asked for."""
        amounts = self.amounts[side]
        if source not in amounts:
            amounts[source] = Amount(self._texts)
        return amounts[source]

    def written(self, row: Row, key: str) -> None:
        """Count a row that goes on; `key` tells it from every other."""
        self.rows[row["source"]] += 1
        size = self.amount(LEFT, row["source"]).add(key, row)
        self.lengths.setdefault(row["source"], Counter())[length_class(size)] += 1

    def samples(self) -> Iterator[Row]:
        """Yield the rows of all samples of texts."""
        for side, amounts in self.amounts.items():
            for source, amount in amounts.items():
                for number, texts in amount.sampled():
                    yield {"side": side, "source": source, "number": number, "texts": texts}

    def add_sample(self, row: Row) -> None:
        """Add a row of a sample, as `samples` gives it."""
        self.amount(row["side"], row["source"]).keep(row["number"], row["texts"])

    def _keep(self, reject: dict[str, Any], *, always: bool) -> None:
        key = (reject["block"], reject["reason"])
        if always or self._kept[key] < self._sample:
            self._kept[key] += 1
            self.rejects.append({**reject, **({"always": True} if always else {})})

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        blocks = {
            block: {
                source: {"seen": count.seen, "dropped": dict(count.dropped), "changed": dict(count.changed)}
                for source, count in sources.items()
            }
            for block, sources in self.blocks.items()
        }
        return {
            "blocks": blocks, "rows": dict(self.rows),
            "amounts": {
                side: {source: amount.as_dict() for source, amount in found.items()}
                for side, found in self.amounts.items()
            },
            "lengths": {source: dict(sorted(found.items())) for source, found in self.lengths.items()},
            "rejects": self.rejects,
        }  # fmt: skip

    def add(self, found: Mapping[str, Any]) -> None:
        """Add the accounts of a later task, or of a later pass, as `as_dict` gives them."""
        for block, sources in found["blocks"].items():
            for source, values in sources.items():
                count = self.of(block, source)
                count.seen += values["seen"]
                count.dropped.update(values["dropped"])
                count.changed.update(values["changed"])
        self.rows.update(found["rows"])
        for side, amounts in found["amounts"].items():
            for source, amount in amounts.items():
                self.amount(side, source).merge(amount)
        for source, lengths in found["lengths"].items():
            self.lengths.setdefault(source, Counter()).update({int(name): number for name, number in lengths.items()})
        for reject in found["rejects"]:
            always = reject.get("always", False)
            self._keep({key: value for key, value in reject.items() if key != "always"}, always=always)
