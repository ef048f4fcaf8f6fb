"""Leave out texts that repeat themselves, by Gopher's rules: lines, paragraphs and n-grams of words.

Usage: in a manifest, `blocks: [{gopher_repetition: {dup_line_frac: 0.2, top_n_grams: []}}]`.

The rules are datatrove's GopherRepetitionFilter, with words of `common.data.words`. An n-gram that occurs once is no
repeat here: the filter counts it, and would drop every text of less than about thirty words. It looks into one text at
a time; copies of whole rows are the business of deduplication.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.config.base import Share
from common.config.blocks import Block, BlockContext, Drop, Row, RowFunction
from common.data.language_rules import WITHOUT_SPACES
from common.data.splitting import FilterSettings, drops_of, judged_by, splitter

Count = Annotated[int, Field(ge=2, le=100)]
REASONS = {  # of datatrove -> ours, and the setting that decides
    "dup_para_frac": ("paragraphs repeat", "dup_para_frac"),
    "dup_para_char_frac": ("characters in repeated paragraphs", "dup_para_char_frac"),
    "dup_line_frac": ("lines repeat", "dup_line_frac"),
    "dup_line_char_frac": ("characters in repeated lines", "dup_line_char_frac"),
}


class GopherRepetitionSettings(FilterSettings):
    """The thresholds of datatrove's GopherRepetitionFilter, by its names; none, or an empty list: that rule is off."""

    dup_line_frac: Share | None = Field(0.3, gt=0, description="largest share of lines that are repeats")
    dup_para_frac: Share | None = Field(0.3, gt=0, description="largest share of paragraphs that are repeats")
    dup_line_char_frac: Share | None = Field(0.2, gt=0, description="largest share of characters in repeated lines")
    dup_para_char_frac: Share | None = Field(
        0.2, gt=0, description="largest share of characters in repeated paragraphs"
    )
    top_n_grams: tuple[tuple[Count, Share], ...] = Field(
        ((2, 0.2), (3, 0.18), (4, 0.16)),
        description="[n, largest share of characters in the most frequent n words in a row]",
    )
    dup_n_grams: tuple[tuple[Count, Share], ...] = Field(
        ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
        description="[n, largest share of characters in repeated n words in a row]",
    )


def start(settings: GopherRepetitionSettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by Gopher's rules of repetition."""
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter, get_n_grams

    drops = drops_of(settings, REASONS)
    for n, limit in settings.top_n_grams:
        drops[f"top_{n}_gram"] = Drop(f"one {n}-gram too frequent", f"the limit is {limit}")
    for n, limit in settings.dup_n_grams:
        drops[f"duplicated_{n}_n_grams"] = Drop(f"{n}-grams repeat", f"the limit is {limit}")

    def rules(language: str | None) -> dict[str, Any]:
        # Between the words of an n-gram the filter counts blanks, which texts of some languages do not have.
        unspaced = language in WITHOUT_SPACES
        tops = [(n, limit * (2 * n - 1) / n if unspaced else limit) for n, limit in settings.top_n_grams]
        return settings.rules() | {"top_n_grams": tuple(sorted(tops))}  # shorter ones first

    judge = judged_by(GopherRepetitionFilter, rules, drops, settings.language)
    judge_others = judged_by(
        GopherRepetitionFilter, lambda language: rules(language) | {"top_n_grams": ()}, drops, settings.language
    )
    lengths = {drops[f"top_{n}_gram"]: n for n, _ in settings.top_n_grams}

    def judge_repeats(row: Row) -> Row | Drop:
        found = judge(row)
        if isinstance(found, Drop) and found in lengths:
            n_grams = get_n_grams(splitter().word_tokenize(row["text"]), lengths[found])
            if len(set(n_grams)) == len(n_grams):  # then longer ones, which come next, do not repeat either
                return judge_others(row)
        return found

    return judge_repeats


BLOCK = Block(
    name="gopher_repetition", settings=GopherRepetitionSettings, start=start,
    phrase="texts that repeat lines, paragraphs or n-grams of words",
    paper="Rae et al. 2021, arXiv:2112.11446, table A1",
)  # fmt: skip
