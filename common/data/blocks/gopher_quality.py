"""Leave out texts that are no prose by Gopher's rules: lengths, symbols, bullets, ellipses, letters, stop words.

Usage: in a manifest, `blocks: [{gopher_quality: {min_doc_words: 30, stop_words: {sw: [na, ya, wa]}}}]`.

The rules are datatrove's GopherQualityFilter, with words of `common.data.words`. They were made for English. Stop words
are checked in languages that have a list (`common.data.language_rules`, or `stop_words`), the length of words in those
that have spaces between words; elsewhere these rules are off, and a line of the log says so.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from common.config.base import Share
from common.config.blocks import Block, BlockContext, RowFunction
from common.config.names import NonEmpty
from common.data.language_rules import WITHOUT_SPACES, stop_words
from common.data.splitting import FilterSettings, drops_of, judged_by, say_off

REASONS = {  # of datatrove -> ours, and the setting that decides
    "gopher_short_doc": ("too few words", "min_doc_words"),
    "gopher_long_doc": ("too many words", "max_doc_words"),
    "gopher_below_avg_threshold": ("words too short", "min_avg_word_length"),
    "gopher_above_avg_threshold": ("words too long", "max_avg_word_length"),
    "gopher_too_many_hashes": ("too many hashes", "max_symbol_word_ratio"),
    "gopher_too_many_ellipsis": ("too many ellipses", "max_symbol_word_ratio"),
    "gopher_too_many_bullets": ("too many bullets", "max_bullet_lines_ratio"),
    "gopher_too_many_end_ellipsis": ("too many lines end in an ellipsis", "max_ellipsis_lines_ratio"),
    "gopher_below_alpha_threshold": ("too few words with letters", "max_non_alpha_words_ratio"),
    "gopher_enough_stop_words": ("too few stop words", "min_stop_words"),
}


class GopherQualitySettings(FilterSettings):
    """The thresholds of datatrove's GopherQualityFilter, by its names; none: that rule is off."""

    min_doc_words: int | None = Field(50, ge=1, description="least words that are not only signs")
    max_doc_words: int | None = Field(100_000, ge=1, description="most words that are not only signs")
    min_avg_word_length: float | None = Field(3, gt=0, description="least mean length of words, in characters")
    max_avg_word_length: float | None = Field(10, gt=0, description="largest mean length of words, in characters")
    max_symbol_word_ratio: float | None = Field(
        0.1, gt=0, description="most hash signs per word, and most ellipses per word"
    )
    max_bullet_lines_ratio: Share | None = Field(
        0.9, gt=0, description="largest share of lines that begin with a bullet or hyphen"
    )
    max_ellipsis_lines_ratio: Share | None = Field(
        0.3, gt=0, description="largest share of lines that end in an ellipsis"
    )
    max_non_alpha_words_ratio: Share | None = Field(
        0.8, gt=0, description="least share of words with a letter; the name is datatrove's"
    )
    min_stop_words: int | None = Field(2, ge=1, description="least different stop words of the row's language")
    stop_words: dict[NonEmpty, tuple[NonEmpty, ...]] = Field(
        default_factory=dict, description="stop words by ISO 639 code, in place of our list of that language"
    )

    @field_validator("stop_words")
    @classmethod
    def _has_words(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if empty := [code for code, words in given.items() if not words]:
            raise ValueError(f"stop_words.{empty[0]} has no words; leave it out, or set min_stop_words to null")
        return given


def start(settings: GopherQualitySettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by Gopher's rules of quality."""
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter

    lists = {**stop_words(), **settings.stop_words}

    def rules(language: str | None) -> dict[str, Any]:
        words = lists.get(language or "")
        given = settings.rules() | {"stop_words": list(words or ())}
        if not words and given["min_stop_words"] is not None:
            say_off("gopher_quality", language, ["stop words"], "there is no list; give stop_words.<code>")
            given["min_stop_words"] = None
        if language in WITHOUT_SPACES and given["min_avg_word_length"] is not None:
            say_off("gopher_quality", language, ["the least length of words"], "each character is a word")
            given["min_avg_word_length"] = None
        return given

    return judged_by(GopherQualityFilter, rules, drops_of(settings, REASONS), settings.language)


BLOCK = Block(
    name="gopher_quality", settings=GopherQualitySettings, start=start,
    phrase="texts that are no prose by Gopher's rules: length, symbols, bullets, letters, stop words",
    paper="Rae et al. 2021, arXiv:2112.11446, appendix A",
)  # fmt: skip
