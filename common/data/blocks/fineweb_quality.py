"""Leave out texts that are lists or broken lines, by FineWeb's rules: ends of lines, short lines, repeats, line breaks.

Usage: in a manifest, `blocks: [{fineweb_quality: {short_line_length: 20, char_duplicates_ratio: 0.1}}]`.

The rules are datatrove's FineWebQualityFilter, with words of `common.data.words`. They were made for pages of the web
whose paragraphs are one line each; text that is wrapped at 70 characters fails them.
"""

from __future__ import annotations

import math

from pydantic import Field

from common.config.base import Share
from common.config.blocks import Block, BlockContext, RowFunction
from common.config.names import NonEmpty
from common.data.splitting import FilterSettings, drops_of, judged_by

REASONS = {  # of datatrove -> ours, and the setting that decides
    "line_punct_ratio": ("too few lines end in punctuation", "line_punct_thr"),
    "short_line_ratio": ("too many short lines", "short_line_thr"),
    "char_dup_ratio": ("characters in repeated lines", "char_duplicates_ratio"),
    "list_ratio": ("too many line breaks", "new_line_ratio"),
    "empty": ("empty", ""),
}
# Thresholds that no text passes over.
OFF = {"line_punct_thr": 0.0, "short_line_thr": 1.0, "char_duplicates_ratio": 1.0, "new_line_ratio": math.inf}


class FinewebQualitySettings(FilterSettings):
    """The thresholds of datatrove's FineWebQualityFilter, by its names; none: that rule is off."""

    line_punct_thr: Share | None = Field(0.12, description="least share of lines that end in a sign of `stop_chars`")
    line_punct_exclude_zero: bool = Field(False, description="keep texts of which no line ends in such a sign")
    stop_chars: tuple[NonEmpty, ...] | None = Field(
        None, min_length=1, description="signs that end a sentence; none: those of all scripts"
    )
    short_line_thr: Share | None = Field(0.67, description="largest share of lines that are short")
    short_line_length: int = Field(30, ge=0, description="characters up to which a line is short")
    char_duplicates_ratio: Share | None = Field(0.01, description="largest share of characters in repeated lines")
    new_line_ratio: float | None = Field(0.3, ge=0, description="most line breaks per word")


def start(settings: FinewebQualitySettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by FineWeb's rules."""
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

    rules = settings.rules(OFF)
    return judged_by(FineWebQualityFilter, lambda _: rules, drops_of(settings, REASONS), settings.language)


BLOCK = Block(
    name="fineweb_quality", settings=FinewebQualitySettings, start=start,
    phrase="texts that are lists or broken lines, by FineWeb's rules",
    paper="Penedo et al. 2024, arXiv:2406.17557, section 3.6",
)  # fmt: skip
