"""The parts that a stage's rows are made of, each prepared once; also those behind what stages before have read.

Usage: `parts = Parts(context, {"assistant_only": False, "sequence_length": 64})`, then `parts.add(reader, 4096)`.

Documents come in one seeded order for each role, and each stage has read them up to its budget of tokens. A stage with
`continue_data` passes over as many, stage by stage and by the same rule. Where the documents end before its budget is
full, it goes on from their start, as if they came in a circle: those rows are further parts, and count as read again.
What stages before have read follows from their settings (`common.config.continued`), and their rows are not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from common.config.continued import continues
from common.data.accounting import RowCount
from common.training.rows.prepared import Prepared, open_prepared, prepare

if TYPE_CHECKING:
    from datasets import Dataset

    from common.stage import StageContext
    from common.training.rows.reader import Reader


@dataclass
class Parts:
    """What has been prepared of a stage's rows, in its order."""

    context: StageContext
    options: Mapping[str, Any]  # of tokens, alike in all parts
    names: list[str] = field(default_factory=list)
    rows: list[Dataset] = field(default_factory=list)
    counts: list[RowCount] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # the names of those that stages before have read
    continued: dict[str, Any] = field(default_factory=dict)  # role -> tokens passed over, and the share read again

    def add(self, reader: Reader, budget: int | None, **how: Any) -> int:
        """Prepare the rows of a reader up to a budget of tokens, and return how many packed rows they are."""
        behind = self.context.behind.get(reader.role, ()) if continues(self.context.settings) else ()
        before = len(self.rows)
        position = self._prepare(reader, budget, behind, how)
        if behind and budget is not None:
            share = max(0.0, 1 - position["read"] / max(1, budget))
            self.continued[reader.role] = {"passed": position["passed"], "again": round(share, 4)}
        left = budget
        while left is not None and position and position["read"] < left:
            left -= int(position["read"])
            reader = reader.next_round()
            around = _around(position["left"], position["passed"] + position["read"])
            position = self._prepare(reader, left, around, how)
            self.again.append(self.names[-1])
        return sum(map(len, self.rows[before:]))

    def _prepare(
        self, reader: Reader, budget: int | None, behind: Sequence[int], how: Mapping[str, Any]
    ) -> Mapping[str, Any]:  # fmt: skip
        """Prepare a part, and return where it has ended; nothing of one that is behind nobody."""
        reader.behind = behind
        found = self.append(prepare(reader, budget=budget, **self.options, **how))
        self.counts.extend(found.counts(0.0))
        return found.position

    def append(self, name: str) -> Prepared:
        """Add a part that has been prepared."""
        found = open_prepared(self.context, name)
        assert found is not None, "it has just been made"
        self.names.append(name)
        self.rows.append(found.rows)
        return found

    def tell(self) -> None:
        """Say where too few documents are left, so that some are read again."""
        stage = self.context.stage
        for role, found in self.continued.items():
            if found["again"]:
                self.context.console.line(
                    f"  {stage}: what is left of {role} behind {found['passed']:,} tokens fills "
                    f"{1 - found['again']:.1%} of its budget; {found['again']:.1%} of it is read again.",
                    always=True,
                )


def _around(left: Sequence[int], whole: int) -> tuple[int, ...]:
    """Return what is to be passed over from the start, where documents of `whole` tokens have ended before `left`."""
    if sum(left) < whole:
        return tuple(left)
    rest = sum(left) % whole if whole else 0
    return (rest,) if rest else ()


def counts_of(part: Prepared, number: int, again: bool) -> Iterable[RowCount]:
    """Yield the accounts of the sources of a part of which so many rows are read; not those of which none were left."""
    for count in part.counts(number / max(1, len(part.rows))):
        if count.num_read or count.tokens or not part.position:
            yield replace(count, again=again)
