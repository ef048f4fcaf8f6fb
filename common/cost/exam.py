"""How many tokens an exam computes.

Usage: `question_tokens(context=380, choices=[2, 2, 3])` is 384.

It counts; how an exam is run is `common.evaluation.shared_context`.
"""

from __future__ import annotations

from collections.abc import Sequence


def question_tokens(context: int, choices: Sequence[int]) -> int:
    """Return the tokens that a model reads for one question: its context once, and each choice but its last token.

    Where choices cannot share a context, it is `sum(context + choice - 1 for choice in choices)`.
    """
    return context + sum(choice - 1 for choice in choices)
