"""Tokens that were learned for a tokenizer, and its tokenizer.json with them.

Usage: `extended(json.loads(core.to_str()), learned)["model"]["vocab"]`.

It edits what a tokenizer.json says, and loads no tokenizer: that is `common.models.vocabulary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNLIKELY = -1e4  # score of what a Unigram must never choose


@dataclass(frozen=True)
class Learned:
    """New tokens by name, in the order of their ids, and how words come to be cut into them."""

    pieces: dict[str, tuple[int, ...]] = field(default_factory=dict)  # name -> the old tokens that it is made of
    merges: list[tuple[str, str]] = field(default_factory=list)  # names of two tokens each, the most frequent first
    scores: dict[str, float] = field(default_factory=dict)  # log-probabilities, of Unigram


def extended(facts: Mapping[str, Any], learned: Learned) -> dict[str, Any]:
    """Return a tokenizer.json with further tokens, their ids behind all that there are.

    Added tokens stand in the model's vocabulary then: tokenizers numbers those that do not by its length.
    """
    model = dict(facts["model"])
    added = {token["content"]: token["id"] for token in facts["added_tokens"]}
    if model["type"] == "BPE":
        vocabulary = {**model["vocab"], **added}
        first = 1 + max(vocabulary.values())
        vocabulary |= {name: first + place for place, name in enumerate(learned.pieces)}
        model |= {"vocab": vocabulary, "merges": [*model["merges"], *map(list, learned.merges)]}
    else:
        pieces = list(model["vocab"])
        for name, index in sorted(added.items(), key=lambda item: item[1]):
            pieces += [[name, UNLIKELY]] * (index == len(pieces))
        model["vocab"] = [*pieces, *([name, learned.scores[name]] for name in learned.pieces)]
    return {**facts, "model": model}
