"""A warning where a large model trains on little text of a domain.

Usage: `lines = small_corpora(resolved, nodes, sizes)`, for the notes of a plan.

Yildiz et al. (arXiv 2402.17400) trained Llama-2-7B on single domains: on those of less than 100 MB its perplexity rose
(from 6.84 to 11.42 at the last checkpoint). It is a warning and no limit: it is one model family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.cost.shapes import shape_of
from common.data.sizes import RowSizes

LEAST_BYTES = 100_000_000
LARGE = 7_000_000_000  # parameters
BARELY = 0.95  # "7B" models have 6.7 billion parameters and more


def small_corpora(resolved: Resolved, nodes: Sequence[Node], sizes: RowSizes) -> Iterator[str]:
    """Yield a line for each stage of CPT of a model of 7 billion parameters and more on less than 100 MB of text.

    Nothing where the model or the size of its text is not known, as on the Hub.
    """
    shape = shape_of(resolved.config.model)
    if shape is None or shape.parameters < BARELY * LARGE:
        return
    for node in nodes:
        kind = kind_of(node.kind)
        found = sizes.of(kind.roles[0]) if kind.part == "text" and not kind.starts else None
        size = 0.0 if found is None else found.rows * found.mean_bytes
        if found is not None and size < LEAST_BYTES and getattr(resolved.config.stages[node.name], "replay", 0) != 1:
            yield (
                f"{node.name}: {size / 1e6:,.1f} MB of domain text for a model of {shape.parameters / 1e9:.1f} billion "
                "parameters. Llama-2-7B got worse on domains of less than 100 MB (arXiv 2402.17400); more text, or a "
                "smaller model, is safer."
            )
