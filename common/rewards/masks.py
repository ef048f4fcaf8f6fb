r"""The rewards of RL pre-training: a model masks spans of a paragraph, and predicts what they hide.

Usage: `span = boxed(answer, "mask")`; `is_valid(span, paragraph, 8)`; `prediction_reward(said, span)`.

PretrainZero (arXiv 2512.03442): of a paragraph s the policy copies a span x into \mask{}; of s with [mask] in its place
it writes x into \boxed{}, G times. With the predictions x_i,

    r_pred(i) = 1[x_i = x]        a = (1/G) sum_i r_pred(i)        r_gen = 1 - a, and 0 where a = 0

A mask is worth most where it can be predicted, but seldom. A span that is not in the paragraph, or that occurs there
eight times or more, is no mask: r_gen = 0, and nothing is predicted. Groups of predictions with a = 0 or a = 1 tell
nothing apart and are dropped, as in DAPO (arXiv 2503.14476, equation 11).

Ours, where the paper says nothing: every occurrence of the span is masked, so that the answer stands nowhere else;
blanks between the words of a prediction are not compared, while a span is copied with its own; the last box of an
answer counts; random spans are runs of words, uniform in length and place.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from statistics import fmean

from common.config.rl_pretrain import MASK

_WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")
TRIES = 16  # of drawing a random span that is a valid mask


def boxed(text: str, name: str) -> str | None:
    """Return what stands in the last `\\name{...}` of a text, its braces balanced; None without a closed one."""
    start = text.rfind(f"\\{name}{{")
    if start < 0:
        return None
    begin, depth = start + len(name) + 2, 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[begin:place].strip()
    return None


def leading(text: str, span: str) -> str:
    """Return as many words from the beginning of a text as a span has, with what stands between them."""
    number = len(_WORD.findall(span))
    found = list(_WORD.finditer(text))[:number]
    return text[found[0].start() : found[-1].end()] if found else ""


def is_valid(span: str | None, paragraph: str, occurs_below: int) -> bool:
    """Whether a span is a mask of a paragraph: copied from it, and occurring in it fewer times than `occurs_below`."""
    return bool(span) and 0 < paragraph.count(span or "") < occurs_below


def masked(paragraph: str, span: str) -> str:
    """Return a paragraph with every occurrence of a span hidden."""
    return paragraph.replace(span, MASK)


def count_words(text: str) -> int:
    """Return the words of a text, as spans are made of them; a script without blanks has few."""
    return len(_WORD.findall(text))


def random_span(paragraph: str, draw: random.Random, most_words: int, occurs_below: int) -> str | None:
    """Return a random run of one to `most_words` words that is a valid mask; None where no try gave one."""
    words = list(_WORD.finditer(paragraph))
    for _ in range(TRIES if words else 0):
        length = draw.randint(1, min(most_words, len(words)))
        first = draw.randint(0, len(words) - length)
        span = paragraph[words[first].start() : words[first + length - 1].end()]
        if is_valid(span, paragraph, occurs_below):
            return span
    return None


def prediction_reward(prediction: str | None, span: str) -> float:
    """Return r_pred: 1 where a prediction is exactly the span, blanks apart; else 0."""
    return float(prediction is not None and prediction.split() == span.split())


def mask_reward(rewards: Sequence[float]) -> float:
    """Return r_gen of a mask from the rewards of its predictions; without any it was no valid mask."""
    accuracy = fmean(rewards) if rewards else 0.0
    return 1.0 - accuracy if accuracy > 0 else 0.0


def tells_apart(rewards: Sequence[float]) -> bool:
    """Whether a group is learned from: its rewards differ, so that its accuracy is neither 0 nor 1."""
    return len(set(rewards)) > 1
