"""Settings of a stage that extends the vocabulary, and whose tokenizer a stage of a pipeline has.

Usage: `TokenizerSettings(add=2000)`; `tokenizer_stage("sft", resolved.nodes)` names the stage that its tokenizer is of.

What such a stage does is `common.stages.tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from common.config.base import OfData, StageSettings
from common.config.kinds import kind_of
from common.config.node import Node


class TokenizerSettings(StageSettings):
    """Further tokens for the words of the domain; the rows of the model's tables that belong to them."""

    add: OfData[int] = Field(
        2000, gt=0, le=1_000_000, description="tokens to add, at most; the text may give fewer (default ours)"
    )
    min_frequency: OfData[int] = Field(
        20, ge=2, description="times that the two parts of a new token stand side by side in the text (default ours)"
    )
    characters: OfData[int] = Field(
        100_000_000, gt=0, description="characters of the domain's text that are learned from, at most (default ours)"
    )
    initialise: Literal["mean", "normal"] = Field(
        "mean", description="new rows: the mean of those of a token's old pieces (Cabrita, arXiv 2308.11878), or drawn "
        "around the mean of all rows",
    )  # fmt: skip
    pad_to_multiple_of: int | None = Field(
        None, gt=0, le=1024, description="the number of rows is a multiple of this, such as 64; none: one for each id"
    )


def tokenizer_stage(name: str, nodes: Iterable[Node]) -> str:
    """Return whose tokenizer the result of a stage has: the nearest stage that changes it, or the start."""
    by_name = {node.name: node for node in nodes}
    node = by_name[name]
    while not kind_of(node.kind).changes_tokenizer and node.parent is not None:
        node = by_name[node.parent]
    return node.name
