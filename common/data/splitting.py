"""Give datatrove's filters our words and sentences, and judge rows by such a filter.

Usage: `judge = judged_by(C4QualityFilter, lambda language: settings.rules(), drops, settings.language)`.

datatrove 0.10 takes an object of its class WordTokenizer wherever it takes a language. Its own ones need the data of
spaCy, NLTK or Stanza; words are those of `common.data.words` instead, in all languages and without any download.
Filters that get the same object share the words of a text: datatrove keeps those of the last five.

It decides nothing itself: rules, thresholds and reasons are the filter's.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import Field

from common.config.blocks import BlockSettings, Drop, Row, RowFunction
from common.config.names import NonEmpty
from common.data.texts import noted
from common.data.words import written_words

log = logging.getLogger(__name__)
EMPTY = Drop("empty")  # of a text without any sign; filters divide by numbers of words and lines


class FilterSettings(BlockSettings):
    """What the blocks made of datatrove's filters have in common."""

    language: NonEmpty | None = Field(
        None, description="ISO 639 code for rows whose source declares none; none: rules that need it are off for them"
    )

    def rules(self, off: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return what the filter is made with, by its own names; `off` are the values of rules that none turns off."""
        rules = self.model_dump(exclude=set(FilterSettings.model_fields))
        return {name: (off or {}).get(name) if value is None else value for name, value in rules.items()}


@functools.cache
def splitter() -> Any:
    """Return the WordTokenizer of datatrove that uses our words; one object per process."""
    from datatrove.utils.text import TERMINAL_PUNCTUATION
    from datatrove.utils.word_tokenizers import WordTokenizer

    others = re.escape("".join(sorted(TERMINAL_PUNCTUATION - set(".!?"))))
    # A full stop ends a sentence before a blank only, so not in 3.5; signs of other scripts need none behind them.
    end = re.compile(
        rf"(?:[.!?\u2026]+[\"')\]\u201d\u2019\u00bb]*(?=\s|$)|[{others}]+[\"')\]\u201d\u2019\u300d\u300f\uff09]*|\n)\s*"
    )

    class Splitter(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
        """Words as `common.data.words` cuts them; sentences by the signs that end them."""

        def word_tokenize(self, text: str) -> list[str]:
            return written_words(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[start:stop].strip() for start, stop in self.span_tokenize(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            stops = [found.end() for found in end.finditer(text)]
            if not stops or stops[-1] < len(text):
                stops.append(len(text))
            return list(zip([0, *stops[:-1]], stops, strict=True))

    return Splitter()


def judged_by(
    make: Callable[..., Any], rules: Callable[[str | None], dict[str, Any]], drops: Mapping[str, Drop],
    language: str | None,
) -> RowFunction:  # fmt: skip
    """Return what judges text rows by filters of datatrove: `make` is their class, `rules` tells those of a language.

    `drops` are the reasons and details by datatrove's own reasons. `language` is that of rows that say none.
    """
    from datatrove.data import Document

    filters: dict[str | None, Callable[[Any], Any]] = {}

    def judge(row: Row) -> Row | Drop:
        code = row.get("language") or language
        judged = filters.get(code)
        if judged is None:
            judged = filters[code] = make(**rules(code and code.partition("-")[0]), language=splitter()).filter
        text = row["text"]
        if not text or text.isspace():
            return EMPTY
        document = Document(text, "")
        result = judged(document) if any(map(str.isalnum, text)) else _quietly(judged, document)
        if result is not True:
            reason = result[1] if isinstance(result, tuple) else "dropped"
            return drops.get(reason) or Drop(reason)
        return row if document.text == text else noted(row | {"text": document.text}, _changed(text, document.text))

    return judge


def drops_of(settings: BlockSettings, reasons: Mapping[str, tuple[str, str]]) -> dict[str, Drop]:
    """Return the drops by datatrove's reasons, of ours and the name of the setting each is decided by."""
    return {
        theirs: Drop(ours, f"{name} is {getattr(settings, name)}" if name else "")
        for theirs, (ours, name) in reasons.items()
    }


def say_off(block: str, language: str | None, rules: Iterable[str], why: str) -> None:
    """Say once per process that rules of a block are off for the rows of a language."""
    _say(f"{block}: {', '.join(rules)} not checked for rows in {language or 'a language that is not declared'}: {why}")


@functools.cache
def _say(text: str) -> None:
    log.info(text)


def _quietly(judged: Callable[[Any], Any], document: Any) -> Any:
    """Judge a text without any letter or digit, of whose words datatrove would take the mean length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return judged(document)


def _changed(before: str, after: str) -> str:
    """Say what a filter that changes texts has done."""
    return "lines left out" if len(after.splitlines()) < len(before.splitlines()) else "citations or blanks cut"
