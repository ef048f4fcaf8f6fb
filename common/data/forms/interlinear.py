"""The form `interlinear`: a text and its translation as one document, sentence by sentence, tagged by the direction.

Usage: `write({"source": ["Hi."], "target": ["Jambo."]}, own)["text"] == "<en-sw> Hi.\\nJambo."`, with
`own = InterlinearSettings(languages=("en", "sw"))`. In a manifest: `form: {interlinear: {languages: [en, sw]}}` and
`columns: {source: en, target: sw}`.

The second stage of arXiv 2403.11430 continues pre-training on documents in which each source sentence is followed by
its translation, through the whole document. 2407.03145 finds that source and target have to alternate, that the
direction has to be the one that is asked for later, and that a tag does most at the source; how its tag is written is
not known to us.

`unit` says what corresponds. `row`: a record holds one sentence of each side, and records in a row make a document, up
to `rows` of them; a column `document` ends it where its value changes. `line`: a record holds whole texts whose lines
correspond. `sentence`: the same, cut into sentences, where both sides have as many. A column may hold lists of
sentences too. Two sources may read one file in both directions, and hold the same documents out. The exam is looked
for in both sides as they stood before, since weaving tears sentences apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import Formatter
from typing import Literal

from pydantic import Field, model_validator

from common.config.forms import Form, FormSettings, Row
from common.config.names import NonEmpty
from common.data.manifest.language_codes import language_problem
from common.data.manifest.values import UnusableRow
from common.data.texts import UNWOVEN


class TranslationSettings(FormSettings):
    """Of what language a text is, and of what its translation."""

    languages: tuple[NonEmpty, NonEmpty] = Field(description="ISO 639 codes of source and target, as [en, sw]")

    @model_validator(mode="after")
    def _are_two(self) -> TranslationSettings:
        problems = [problem for code in self.languages for problem in language_problem(code, answered=False)]
        if problems or self.languages[0] == self.languages[1]:
            raise ValueError("; ".join(problems) or "languages names one language twice; expected source and target")
        return self

    def filled(self, pattern: str) -> str:
        """Return a text with the codes in the place of {source} and {target}. Raises ValueError for other braces."""
        return fill(pattern, *self.languages)


def fill(pattern: str, source: str, target: str) -> str:
    """Return a text with its {source} and {target} filled. Raises ValueError for other braces; {{ and }} are signs."""
    try:
        pieces = list(Formatter().parse(pattern))
    except ValueError:  # a brace that is open
        pieces = [("", "", None, None)]
    if not {(name, form, conversion) for _, name, form, conversion in pieces} <= _FIELDS:
        raise ValueError(f"{pattern!r} may hold {{source}} and {{target}}, and no other braces")
    return pattern.format(source=source, target=target)


class InterlinearSettings(TranslationSettings):
    """What corresponds in the two texts, and how they are woven."""

    unit: Literal["row", "line", "sentence"] = Field(
        "row", description="what corresponds: records of a sentence each; or lines, or sentences, of longer texts"
    )
    rows: int = Field(32, ge=1, le=100_000, description="unit row: at most this many records make a document")
    source_tag: str = Field("<{source}-{target}> ", description="what each source sentence begins with")
    target_tag: str = Field("", description="what each translation begins with")

    @model_validator(mode="after")
    def _has_tags(self) -> InterlinearSettings:
        self.filled(self.source_tag)
        self.filled(self.target_tag)
        return self


def write(row: Row, own: InterlinearSettings) -> Row:
    """Return the woven text, one sentence in each line, and both sides as they stood before.

    Raises UnusableRow where the sides do not correspond.
    """
    sides = [_cut(row[name], own.unit) for name in ("source", "target")]
    if len(sides[0]) != len(sides[1]):
        raise UnusableRow(f"source and target have different numbers of {_WHAT[own.unit]}")
    pairs = [pair for pair in zip(*sides, strict=True) if any(pair)]
    if not all(all(pair) for pair in pairs):
        raise UnusableRow(f"{_WHAT[own.unit]} without a translation")
    tags = [own.filled(tag) for tag in (own.source_tag, own.target_tag)]
    lines = [tag + text for pair in pairs for tag, text in zip(tags, pair, strict=True)]
    return {"text": "\n".join(lines), UNWOVEN: ["\n".join(side) for side in zip(*pairs, strict=True)]}


def _cut(texts: Sequence[str], unit: str) -> list[str]:
    """Return the sentences of one side, each in one line."""
    return [" ".join(part.split()) for text in texts for part in _parts(text, unit)]


def _parts(text: str, unit: str) -> Iterator[str]:
    if unit == "sentence":
        from common.data.splitting import splitter  # imports datatrove

        yield from (sentence for sentence in splitter().sent_tokenize(text) if sentence)
    else:
        yield from text.splitlines() if unit == "line" else [text]


def joined(own: InterlinearSettings) -> int:
    """Return how many records make a document, at most."""
    return own.rows if own.unit == "row" else 1


_FIELDS = {("source", "", None), ("target", "", None), (None, None, None)}
_WHAT = {"row": "sentences", "line": "lines", "sentence": "sentences"}

FORM = Form(
    name="interlinear", settings=InterlinearSettings, takes=("parallel",), write=write,
    phrase="a text and its translation woven sentence by sentence, with a tag of the direction",
    paper="arXiv 2403.11430, stage 2; 2407.03145",
    ours="how the tag is written, and how many sentences make a document",
    joins=joined,
    cuts=lambda own: (own.unit, joined(own)),
)  # fmt: skip
