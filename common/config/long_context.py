"""Settings of what an exam measures of long inputs.

Usage: `evaluate: {long_context: {length: 32768}}`; `settings.needle_lengths`.

What is done with them is `common.evaluation.long_context`.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from common.config.base import Frozen

SHORTEST_NEEDLE = 64  # tokens, room for a pass key and its question with usual tokenizers
MOST_WINDOWS = 64  # windows of a side's held-out texts that are read, the first ones
PIECE = 1024  # tokens of a window whose logits are computed at once


class LongContextSettings(Frozen):
    """Diagnostics of long inputs, which count in no score: a needle test, and bits per byte by position."""

    length: int = Field(ge=64, le=10**7, description="longest input, in tokens; beyond a model's context too")
    lengths: int = Field(3, ge=1, le=12, description="lengths of the needle test, each half of the next longer one")
    depths: int = Field(5, ge=1, description="places of the pass key, from the beginning of a text to its end")
    samples: int = Field(8, ge=1, description="texts for each length and place")
    choices: int = Field(4, ge=2, le=20, description="pass keys among which the model chooses; chance is 1 of them")
    buckets: int = Field(8, ge=1, description="parts of the positions that get a value of bits per byte each")

    @property
    def needle_lengths(self) -> list[int]:
        """The lengths of the needle test, the shortest first."""
        return [self.length // 2**halved for halved in range(self.lengths)][::-1]

    @property
    def num_needles(self) -> int:
        return self.lengths * self.depths * self.samples

    @property
    def needle_tokens(self) -> int:
        """Tokens of all texts of the needle test."""
        return sum(self.needle_lengths) * self.depths * self.samples

    @model_validator(mode="after")
    def _has_room(self) -> LongContextSettings:
        if self.needle_lengths[0] < SHORTEST_NEEDLE:
            raise ValueError(
                f"length={self.length} and lengths={self.lengths} make a shortest text of {self.needle_lengths[0]} "
                f"tokens, below the {SHORTEST_NEEDLE} of a pass key and its question. Set more, or fewer lengths"
            )
        if self.buckets > self.length // 2:
            raise ValueError(f"buckets={self.buckets} is more than half of length={self.length}; set fewer")
        return self
