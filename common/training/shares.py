"""Losses that are means over tokens, alike for any number of micro batches and processes.

Usage: `class Trainer(weighted_by_tokens(DPOTrainer, count)): …`; `self.share` is then the number of tokens that the
present micro batch learns, in units of the mean over the step's micro batches.

TRL's DPO and ORPO take the mean over the tokens of each micro batch, and the mean of those means: a short batch then
weighs as much as a long one, and another split of the same pairs gives another loss. SFTTrainer needs none of this: the
library hands it the number of the whole step's tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from common.training.distributed import ranks


def weighted_by_tokens(trainer_class: Any, count: Callable[[Mapping[str, Any]], int]) -> Any:
    """Return a trainer that knows each micro batch's share of a step; `count` says how many tokens a batch learns."""

    class Weighted(trainer_class):  # type: ignore[misc] # TRL is untyped
        share = 1.0

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
            batches, number = super().get_batch_samples(epoch_iterator, num_batches, device)
            counts = [count(batch) for batch in batches]
            totals = ranks.all_gather([sum(counts), len(counts)])
            tokens, pieces = (sum(row[place] for row in totals) for place in (0, 1))
            self._shares = deque(number * pieces / tokens for number in counts) if tokens else deque()
            return batches, number

        def training_step(self, *args: Any, **options: Any) -> Any:
            self.share = self._shares.popleft() if self._shares else 1.0
            return super().training_step(*args, **options)

    return Weighted
