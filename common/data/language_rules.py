"""What rules of quality must know of a language: its stop words, whether it has spaces, the signs that end sentences.

Usage: `stop_words().get("de")`; `"zh" in WITHOUT_SPACES`.

Rules made for English are off where they would drop good text of another language. Stop words are the most frequent
short words of a language, of which any paragraph has some. The lists are ours, one line of `stop_words.txt` for each
language: those alone that were found in real text, two words in at least 96% of its pieces of 50. A language without a
list is no mistake: its rule is off.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).parent / "general" / "stop_words.txt"
# Each character counts as a word here.
WITHOUT_SPACES = frozenset({"bo", "dz", "ja", "km", "lo", "lzh", "my", "th", "wuu", "yue", "zh"})
# Languages whose sentences end in signs that no ASCII text has; those without spaces are among them.
OWN_STOPS = WITHOUT_SPACES | frozenset(
    {"am", "as", "bn", "hi", "hy", "mai", "mni", "mr", "ne", "or", "pa", "sa", "sat", "sd", "ti", "ur"}
)


@functools.cache
def stop_words() -> Mapping[str, tuple[str, ...]]:
    """Return stop words by ISO 639 code."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return {code: tuple(words) for code, *words in map(str.split, lines)}
