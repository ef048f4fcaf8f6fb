"""Leave out lines that are no sentences, and texts with too few of them or with code, by the rules of C4.

Usage: in a manifest, `blocks: [{c4: {filter_no_terminal_punct: false, min_num_sentences: 3}}]`.

The rules are datatrove's C4QualityFilter, with our sentences. It changes texts: lines that it leaves out are gone, and
blanks around lines. In languages whose sentences end in other signs than . ! ? that rule is off, in those without
spaces between words also the one of words per line; a line of the log says so. C4's list of bad words is not used.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from common.config.blocks import Block, BlockContext, RowFunction
from common.data.language_rules import OWN_STOPS, WITHOUT_SPACES
from common.data.splitting import FilterSettings, drops_of, judged_by, say_off

OFF = dict.fromkeys(("min_num_sentences", "min_words_per_line", "max_word_length"), -1)  # as datatrove turns them off
REASONS = {  # of datatrove -> ours, and the setting that decides
    "lorem_ipsum": ("lorem ipsum", "filter_lorem_ipsum"),
    "curly_bracket": ("curly bracket", "filter_curly_bracket"),
    "too_few_sentences": ("too few sentences", "min_num_sentences"),
}


class C4Settings(FilterSettings):
    """The settings of datatrove's C4QualityFilter, by its names; false or none: that rule is off."""

    split_paragraph: bool = Field(True, description="judge lines; false: judge sentences, and join them by blanks")
    remove_citations: bool = Field(True, description="cut [1], [edit] and [citation needed]")
    filter_no_terminal_punct: bool = Field(True, description="leave out lines that do not end in . ! ? or a quote")
    min_num_sentences: int | None = Field(5, ge=1, description="least sentences of what is left of a text")
    min_words_per_line: int | None = Field(3, ge=1, description="leave out lines with fewer words")
    max_word_length: int | None = Field(1000, ge=1, description="leave out lines with a longer word, in characters")
    filter_lorem_ipsum: bool = Field(True, description="leave out texts that contain lorem ipsum")
    filter_javascript: bool = Field(True, description="leave out lines that mention javascript")
    filter_curly_bracket: bool = Field(True, description="leave out texts that contain {")
    filter_policy: bool = Field(True, description="leave out lines on cookies, terms of use and privacy policies")


def start(settings: C4Settings, context: BlockContext) -> RowFunction:
    """Return what cuts and judges a row by the rules of C4."""
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter

    def rules(language: str | None) -> dict[str, Any]:
        given = settings.rules(OFF)
        if language in OWN_STOPS and given["filter_no_terminal_punct"]:
            say_off("c4", language, ["ends of lines"], "its sentences end in other signs than . ! ?")
            given["filter_no_terminal_punct"] = False
        if language in WITHOUT_SPACES and settings.min_words_per_line is not None:
            say_off("c4", language, ["words per line"], "it has no spaces between words")
            given["min_words_per_line"] = OFF["min_words_per_line"]
        return given

    return judged_by(C4QualityFilter, rules, drops_of(settings, REASONS), settings.language)


BLOCK = Block(
    name="c4", settings=C4Settings, start=start,
    phrase="lines that are no sentences, and texts with too few of them or with code, by the rules of C4",
    paper="Raffel et al. 2020, arXiv:1910.10683, section 2.2",
)  # fmt: skip
