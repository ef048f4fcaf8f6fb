"""Leave out rows that are shorter or longer than asked for, in characters or in words.

Usage: in a manifest, `blocks: [{length: {characters: [200, 100000]}}]`.

It counts all texts of a row together. What a word is in each script is `common.data.words`.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Drop, Row, RowFunction
from common.data.texts import texts_of
from common.data.words import count_words

Range = tuple[int, int | None]


class LengthSettings(BlockSettings):
    """How long rows may be."""

    characters: Range | None = Field(None, description="least and most characters of a row; most may be null: no end")
    words: Range | None = Field(None, description="least and most words of a row; most may be null: no end")

    @model_validator(mode="after")
    def _asks(self) -> LengthSettings:
        if self.characters is None and self.words is None:
            raise ValueError("length needs characters or words, each as [least, most]")
        for name, given in (("characters", self.characters), ("words", self.words)):
            if given is not None and (given[0] < 0 or (given[1] is not None and given[1] < given[0])):
                raise ValueError(f"{name} is {list(given)}; expected [least, most]")
        return self


def start(settings: LengthSettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by its length."""

    def judge(row: Row) -> Row | Drop:
        texts = list(texts_of(row))
        if settings.characters is not None and (found := _outside(sum(map(len, texts)), settings.characters)):
            return Drop(f"too {found[0]}", f"{found[1]:g} characters")
        if settings.words is not None and (found := _outside(sum(map(count_words, texts)), settings.words)):
            return Drop(f"too {found[0]}", f"{found[1]:g} words")
        return row

    return judge


def _outside(size: float, limits: Range) -> tuple[str, float] | None:
    least, most = limits
    return ("short", size) if size < least else ("long", size) if most is not None and size > most else None


BLOCK = Block(
    name="length", settings=LengthSettings, start=start, rows=ALL, phrase="rows that are too short or too long",
)  # fmt: skip
