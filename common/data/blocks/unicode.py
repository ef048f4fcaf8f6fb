"""Repair the characters of texts: mojibake, broken surrogates, control characters, forms of one letter, line ends.

Usage: in a manifest, `blocks: [unicode]`, or `blocks: [{unicode: {format_characters: true, normalise: NFKC}}]`.

The repairs are ftfy's. A row that is changed says by which of them. What changes how text looks on purpose (straight
quotes, ligatures, width, entities of HTML) is off unless asked for, so that a model still meets those characters. It
drops no row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Row, RowFunction
from common.data.texts import map_texts, noted

Step = tuple[str, Callable[[str], str]]
# Characters without a glyph that text can do without. Joiners (U+200C and U+200D) belong to the spelling of Persian and
# of Indian scripts, and to emoji; so do the tags behind a black flag.
_FORMAT = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufffc\ufeff\u206a-\u206f\ufff9-\ufffb]")
_LINE_ENDS = re.compile("[\r\u0085\u2028\u2029]")


class UnicodeSettings(BlockSettings):
    """Which repairs are made."""

    repair: bool = Field(
        True, description="undo wrong decoding, such as \u00e2\u20ac\u2122 for an apostrophe, and lone surrogates"
    )
    controls: bool = Field(True, description="remove control characters and terminal escapes")
    line_ends: bool = Field(True, description="write all line ends as \\n")
    normalise: Literal["NFC", "NFKC"] | None = Field(
        "NFC", description="one form for each letter; NFKC also replaces ligatures, full width and superscripts"
    )
    format_characters: bool = Field(
        False, description="remove soft hyphens, zero-width spaces, byte order marks, tags and marks of direction"
    )
    quotes: bool = Field(False, description="write typographic quotes as straight ones")
    ligatures: bool = Field(False, description="write ligatures, such as \ufb01, as letters")
    width: bool = Field(False, description="write full-width Latin letters and half-width kana in their usual width")
    entities: bool = Field(False, description="replace entities of HTML, such as &amp;, by what they stand for")


def start(settings: UnicodeSettings, context: BlockContext) -> RowFunction:
    """Return what repairs the texts of a row."""
    steps = _steps(settings)

    def repair(row: Row) -> Row:
        done: list[str] = []

        def change(text: str) -> str:
            for what, step in steps:
                changed = step(text)
                if changed is not text and changed != text:
                    if what not in done:
                        done.append(what)
                    text = changed
            return text

        found = map_texts(row, change)
        if found is not row:
            for what in done:
                found = noted(found, what)
        return found

    return repair


def _steps(settings: UnicodeSettings) -> list[Step]:
    """Return the repairs that are asked for, each with what a row says of it."""
    from ftfy import TextFixerConfig, fix_text, fixes

    encoding = TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, remove_control_chars=False, normalization=None,
    )  # fmt: skip

    def repaired(text: str) -> str:
        return text if text.isascii() else fix_text(text, encoding)

    def without_controls(text: str) -> str:
        if "\x1b" in text:
            text = fixes.remove_terminal_escapes(text)
        return _CONTROLS.sub("", text) if _CONTROLS.search(text) else text

    def with_line_ends(text: str) -> str:
        return fixes.fix_line_breaks(text) if _LINE_ENDS.search(text) else text

    def normalised(text: str) -> str:
        form = settings.normalise or "NFC"
        return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)

    def plain(step: Callable[[str], str]) -> Callable[[str], str]:
        return lambda text: text if text.isascii() else step(text)

    steps: list[tuple[bool, str, Callable[[str], str]]] = [
        (settings.repair, "wrong decoding undone", repaired),
        (settings.line_ends, "line ends unified", with_line_ends),
        (settings.entities, "entities replaced", fixes.unescape_html),
        (settings.controls, "control characters removed", without_controls),
        (settings.format_characters, "format characters removed", plain(lambda text: _FORMAT.sub("", text))),
        (settings.quotes, "quotes straightened", plain(fixes.uncurl_quotes)),
        (settings.ligatures, "ligatures written out", plain(fixes.fix_latin_ligatures)),
        (settings.width, "width unified", plain(fixes.fix_character_width)),
        (settings.normalise is not None, f"normalised to {settings.normalise}", normalised),
    ]
    return [(what, step) for asked, what, step in steps if asked]


BLOCK = Block(
    name="unicode", settings=UnicodeSettings, start=start, rows=ALL,
    phrase="repairs of characters: wrong decoding, control characters, forms of one letter, line ends",
)  # fmt: skip
