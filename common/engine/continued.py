"""What a plan says of stages that go on in the data behind the stage before (`continue_data`), and when it refuses it.

Usage: `check_continued(resolved, corpus)`; `for line in continued_lines(node, resolved, sizes): print(line)`.

Settings that do not go together are refused when layers are merged (`common.config.continued`). Here is what follows
from the data: whether a length drops rows, and about how many tokens there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.continued import behind_of, budgets_of, continues
from common.config.node import Node
from common.config.resolve import Resolved
from common.data.corpus import Corpus
from common.data.sizes import RowSizes
from common.errors import ConfigError

LEAST = 0.01  # share of a budget that is read again, from which on a plan says so: sizes are estimates


def check_continued(resolved: Resolved, corpus: Corpus) -> None:
    """Check that stages which go on behind others read rows of one length, where it decides which. Raises ConfigError.

    Conversations that are longer than a row are left out.
    """
    stages = resolved.config.stages
    for node in resolved.own:
        if node.parent is None or not continues(stages[node.name]):
            continue
        lengths = {name: getattr(stages[name], "sequence_length", 0) for name in (node.parent, node.name)}
        talking = [
            name
            for role in behind_of(node, resolved.nodes, stages)
            for name, talks in corpus.conversations(role).items()
            if talks
        ]
        if talking and len(set(lengths.values())) > 1:
            raise ConfigError(
                f"{node.name}.continue_data=true: sequence_length is {lengths[node.parent]} in {node.parent} and "
                f"{lengths[node.name]} in {node.name}, and longer conversations of the source '{talking[0]}' are left "
                f"out, so that the two read other rows. Set {node.name}.sequence_length={lengths[node.parent]}."
            )


def continued_lines(node: Node, resolved: Resolved, sizes: RowSizes) -> Iterator[str]:
    """Yield a line for a stage that goes on behind others: behind what, and about how much is read again."""
    stages = resolved.config.stages
    behind, budgets = behind_of(node, resolved.nodes, stages), budgets_of(node, stages[node.name])
    if not behind:
        return
    tokens = " and ".join(f"{sum(read):,} tokens of {role}" for role, read in behind.items())
    yield f"{node.name}: goes on in the data behind {tokens}, which the stages before it read (continue_data)."
    for role, read in behind.items():
        found = sizes.of(role)
        if found is None or not (total := found.total()):
            continue
        again = 1 - max(0.0, total - sum(read)) / budgets[role]
        if again >= LEAST:
            yield (
                f"{node.name}: {role} has about {total:,.0f} tokens, so about {again:.0%} of the {budgets[role]:,} "
                "that it reads of them is read again."
            )
