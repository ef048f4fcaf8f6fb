"""Identifies the language of an answer, and measures the tokenizer's fertility in a language.

Usage: `check = LanguageCheck(questions)`; `check.is_in("Indischer Ozean", "de")`; `fertility(tokenizer, texts)`.

Identification is py3langid's (a naive Bayes classifier over byte n-grams, after Lui and Baldwin 2012), restricted to
the exam's languages. One word says little about its language, so the exam's own choices are looked up first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.models.control_tokens import reader_of


class LanguageCheck:
    """Identifies the exam's languages; `languages` is empty for an exam in one language."""

    def __init__(self, questions: Iterable[Mapping[str, Any]]) -> None:
        self._known: dict[str, set[str]] = {}
        languages = set()
        for row in questions:
            if "language" not in row:
                continue
            languages.add(str(row["language"]))
            for text in row.get("choices", ()):
                self._known.setdefault(_folded(text), set()).add(str(row["language"]))
        self.languages = tuple(sorted(languages)) if len(languages) > 1 else ()

    def is_in(self, text: str, language: str) -> bool | None:
        """Return whether a text is in the language: a choice of its questions, or identified as such.

        An empty text is in no language. A text without letters, such as a number, could be in any: None.
        """
        folded = _folded(text)
        if not folded:
            return False
        if not any(map(str.isalpha, folded)):
            return None
        if folded in self._known:
            return language in self._known[folded]
        return identify(text, self.languages) == _primary(language)


def _primary(code: str) -> str:
    """Return the language of a code without script and region: zh for zh-hans."""
    return code.partition("-")[0]


def _folded(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()


def identify(text: str, languages: Sequence[str]) -> str:
    """Return the likeliest of some languages (ISO 639-1 codes). Raises ValueError for a code that is not known."""
    return str(_identifier(tuple(languages)).classify(text)[0])


@functools.cache
def _identifier(languages: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([_primary(code) for code in languages])
    return identifier


def fertility(tokenizer: Any, texts: Sequence[str]) -> float | None:
    """Return tokens per character of some texts, or None without text; a higher value means higher cost."""
    characters = sum(len(text) for text in texts)
    if not characters:
        return None
    reader = reader_of(tokenizer)
    tokens = sum(map(len, reader.encode([reader.mark(text) for text in texts])))
    return tokens / characters
