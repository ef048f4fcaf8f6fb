"""Which answer each row of KTO gets from another prompt, for the reference point of its loss.

Usage: `sources = mismatched(prompts, batch_size)`; row i gets the answer of row `sources[i]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def mismatched(prompts: Sequence[Hashable], batch_size: int) -> list[int]:
    """Return for each row another one, of another prompt; every row is taken once.

    The answers come from the micro batch itself (Ethayarajh et al. 2024, section 4.1). Where more than half of its rows
    have one prompt there are too few others, so that it shares with as many micro batches beside it as it needs. Only
    where one prompt has more than half of all rows do some keep an answer of their own prompt.
    """
    windows: list[list[int]] = []
    for start in range(0, len(prompts), batch_size):
        batch = list(range(start, min(start + batch_size, len(prompts))))
        if windows and _most(prompts, windows[-1]) * 2 > len(windows[-1]):
            windows[-1] += batch
        else:
            windows.append(batch)
    while len(windows) > 1 and _most(prompts, windows[-1]) * 2 > len(windows[-1]):
        last = windows.pop()
        windows[-1] += last
    sources = [0] * len(prompts)
    for window in windows:
        first: dict[Hashable, int] = {}
        rows = sorted(window, key=lambda row: first.setdefault(prompts[row], row))  # one prompt's rows side by side
        shift = _most(prompts, window)
        for place, row in enumerate(rows):
            sources[row] = rows[(place - shift) % len(rows)]
    return sources


def _most(prompts: Sequence[Hashable], rows: Sequence[int]) -> int:
    """Return how many of some rows have the prompt that most of them have."""
    return max(Counter(prompts[row] for row in rows).values())
