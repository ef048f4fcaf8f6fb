"""Words and sentences of any script, as datatrove's steps ask for them. Nothing is downloaded.

Usage: `MinhashDedupSignature(folder, config, language=word_tokenizer())`; `config.norm_config = unchanged()`.

Words are those of `common.data.words`: datatrove's own way to simplify a text would take the vowel signs of Indic
scripts off, and read all numbers as one. A sentence ends with the signs that end one in its script, or with a line; it
has at least one word, and all sentences of a text together are the text.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from common.data.words import words_of

_CLOSERS = "[\"'\u201d\u2019\u00bb)\\]\u300d\u300f\uff09\u3011]*"
Span = tuple[int, int]


class WordTokenizer:
    """Words and sentences under the names that datatrove calls."""

    language = None

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words of a text as they are compared."""
        return words_of(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the sentences of a text as they are compared: their words."""
        return [" ".join(words_of(text[start:end])) for start, end in sentence_spans(text)]

    def span_tokenize(self, text: str) -> list[Span]:
        """Return where the sentences of a text are; blanks behind one belong to it."""
        return sentence_spans(text)


@functools.cache
def word_tokenizer() -> WordTokenizer:
    """Return the one tokenizer, which datatrove takes for one of its own."""
    from datatrove.utils import word_tokenizers

    word_tokenizers.WordTokenizer.register(WordTokenizer)
    return WordTokenizer()


def unchanged() -> Any:
    """Return settings by which datatrove does not simplify a text."""
    from datatrove.utils.text import TextNormConfig

    return TextNormConfig(
        lowercase=False, norm_whitespace=False, remove_punctuation=False, norm_unicode_diacritics=False,
        norm_numbers=False,
    )  # fmt: skip


def hashing() -> Any:
    """Return how datatrove hashes: its xxhash takes text, which releases of xxhash from 4 on refuse."""
    from datatrove.utils.hashing import HashConfig

    return HashConfig(precision=64, hash_fc="sha1")


def sentence_spans(text: str) -> list[Span]:
    """Return where each sentence of a text begins and ends, with no gap between them."""
    spans: list[Span] = []
    start = 0
    for end in [*(found.end() for found in _sentence_end().finditer(text)), len(text)]:
        if end == start:
            continue
        if words_of(text[start:end]):
            spans.append((start if spans else 0, end))
        elif spans:  # a line of stars belongs to the sentence before
            spans[-1] = (spans[-1][0], end)
        else:
            continue
        start = end
    return spans


@functools.cache
def _sentence_end() -> re.Pattern[str]:
    from datatrove.utils.text import TERMINAL_PUNCTUATION

    others = "".join(re.escape(sign) for sign in sorted(TERMINAL_PUNCTUATION - set(".!?")))
    return re.compile(rf"(?:[.!?]+{_CLOSERS}(?=\s|$)|[{others}][.!?{others}]*{_CLOSERS})\s*|\s*\n\s*")
