"""What a plan says of stages that go on in the data behind the stage before (`continue_data`), and when it refuses it.

Usage: `check_continued(resolved, corpus)`; `for line in continued_lines(node, resolved, sizes): print(line)`.

Settings that do not go together are refused when layers are merged (`common.config.continued`). Here is what follows
from the data: whether a length drops rows, and about how many tokens there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.continued import ahead_of, behind_of, budgets_of
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

    def length_of(name: str) -> int:
        return int(getattr(stages[name], "sequence_length", 0))

    for node in resolved.own:
        own = budgets_of(node, stages[node.name])
        for other in ahead_of(node, resolved.nodes, stages):
            shared = own.keys() & budgets_of(other, stages[other.name]).keys()
            talking = [
                name for role in sorted(shared) for name, talks in corpus.conversations(role).items() if talks
            ]  # fmt: skip
            if talking and length_of(other.name) != length_of(node.name):
                raise ConfigError(
                    f"{node.name}.continue_data=true: sequence_length is {length_of(other.name)} in {other.name} and "
                    f"{length_of(node.name)} in {node.name}, and longer conversations of the source '{talking[0]}' are "
                    "left out, so that the two read other rows. Set "
                    f"{node.name}.sequence_length={length_of(other.name)}."
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
        if found is None or not (total := found.total(getattr(stages[node.name], "sequence_length", None))):
            continue
        again = 1 - max(0.0, total - sum(read)) / max(1, budgets[role])
        if again >= LEAST:
            yield (
                f"{node.name}: {role} has about {total:,.0f} tokens, so about {again:.0%} of the {budgets[role]:,} "
                "that it reads of them is read again."
            )
