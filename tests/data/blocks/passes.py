"""Take rows through a block with two passes, cut into tasks as cleaning does.

Usage: `kept, dropped = through(BLOCK, settings, context, rows, tasks=3)`.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.config.blocks import Block, BlockContext, BlockSettings, Drop, Row, Task


def through(
    block: Block, settings: BlockSettings, context: BlockContext, rows: Sequence[Row], tasks: int = 1
) -> tuple[list[Row], list[Drop]]:  # fmt: skip
    """Return the rows that a block keeps, and why it drops the others; each step starts with an object of its own."""
    assert block.look is not None
    size = -(-len(rows) // tasks)
    parts = [rows[number * size : (number + 1) * size] for number in range(tasks)]
    looked = [list(block.look(settings, context).look(Task(n, tasks), iter(part))) for n, part in enumerate(parts)]
    block.look(settings, context).decide(tasks)
    found: list[Row | Drop] = []
    for number, part in enumerate(looked):
        judge = block.look(settings, context).judge(Task(number, tasks))
        found += [judge(place, row) for place, row in enumerate(part)]
    return [row for row in found if not isinstance(row, Drop)], [drop for drop in found if isinstance(drop, Drop)]


def texts(rows: Sequence[Row]) -> list[str]:
    """Return the text of each row."""
    return [row["text"] for row in rows]
