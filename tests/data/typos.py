"""Typing errors, as people make them: one character of a word replaced, dropped, doubled, or swapped with the next.

Usage: `mistyped("What is the capital of Mali?", "swapped", random.Random(0))`.
"""

from __future__ import annotations

import random
import re
import unicodedata

KINDS = ("replaced", "dropped", "doubled", "swapped")


def mistyped(text: str, kind: str, rng: random.Random) -> str:
    """Return a text with an error of a kind at a random letter; a replaced one becomes another letter of the text."""
    letters = [match.start() for match in re.finditer(r"[^\W\d_]", text)]
    place = rng.choice(letters)
    if kind == "replaced":
        other = rng.choice([text[at] for at in letters if text[at].casefold() != text[place].casefold()])
        return text[:place] + other + text[place + 1 :]
    if kind == "dropped":
        return text[:place] + text[place + 1 :]
    if kind == "doubled":
        return text[:place] + text[place] + text[place:]
    pairs = [at for at in letters if at + 1 < len(text) and text[at] != text[at + 1] and _is_part(text[at + 1])]
    place = rng.choice(pairs)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def _is_part(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LM"
