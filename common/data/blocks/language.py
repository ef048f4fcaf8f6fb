"""Leave out rows in another language than the ones to keep, or than the one that their source declares.

Usage: in a manifest, `blocks: [language]`, or `blocks: [{language: {keep: [en, de], least: 0.7}}]`.

py3langid tells languages apart (a naive Bayes classifier over byte n-grams, after Lui and Baldwin 2012), or a fastText
model where its library is installed and `model` names the file. A long row is sampled. A row with few letters, or whose
language nobody said, stays as it is and is not counted as changed: nothing is known against it. Malay is taken for
Indonesian and so on (ALIKE): their writing hardly differs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from common.config.base import Share
from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Drop, Row, RowFunction
from common.config.names import NonEmpty
from common.data.data_files import data_file
from common.data.manifest.language_codes import IDENTIFIED
from common.data.texts import texts_of
from common.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger(__name__)
# Languages that are hard to tell apart in writing: a row in one of them is taken for any other of its group.
ALIKE = (
    frozenset({"zh", "wuu"}), frozenset({"id", "ms"}), frozenset({"bs", "hr", "sr", "sh"}),
    frozenset({"nb", "nn", "no"}),
)  # fmt: skip
PIECES = 4  # that a long row is sampled in, from its start to its end
Rank = Callable[[str], Mapping[str, float]]  # text -> probability of each language


class LanguageSettings(BlockSettings):
    """Which languages stay, and how sure it must be."""

    keep: tuple[NonEmpty, ...] = Field(
        (), description="ISO 639 codes of the languages to keep; none: the one that a row's source declares"
    )
    least: Share = Field(0.5, description="least probability that a row is in one of them")
    shortest: int = Field(100, ge=0, description="letters below which a row is not judged, and stays")
    sample: int = Field(1000, ge=100, description="characters of a row that are looked at, in 4 pieces over its length")
    model: NonEmpty | None = Field(
        None, description="file of a fastText model below the data folder, whose labels `keep` names; none: py3langid"
    )

    @model_validator(mode="after")
    def _can_be_told(self) -> LanguageSettings:
        unknown = [] if self.model else [code for code in self.keep if not _alike(code) & IDENTIFIED]
        if unknown:
            raise ValueError(f"keep: py3langid cannot identify '{unknown[0]}'.{did_you_mean(unknown[0], IDENTIFIED)}")
        return self


def start(settings: LanguageSettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by its language."""
    labels, rank = _py3langid() if settings.model is None else _fasttext(settings.model, context)
    if unknown := [code for code in settings.keep if not _alike(code) & labels]:
        raise ConfigError(f"language.keep: {settings.model} has no '{unknown[0]}'.{did_you_mean(unknown[0], labels)}")
    keep = frozenset().union(*map(_alike, settings.keep)) & labels

    def judge(row: Row) -> Row | Drop:
        kept = keep or _declared(row, context, labels)
        if not kept:
            return row
        text = _sampled("\n".join(filter(None, texts_of(row))), settings.sample)
        if sum(map(str.isalpha, text)) < settings.shortest:
            return row
        found = rank(text)
        if sum(found.get(code, 0.0) for code in kept) >= settings.least:
            return row
        likely = max(found, key=lambda code: found[code])
        reason = "language is not sure" if likely in kept else "another language"
        return Drop(reason, f"{likely} {found[likely]:.2f}, expected {', '.join(sorted(kept))}")

    return judge


def _declared(row: Row, context: BlockContext, labels: frozenset[str]) -> frozenset[str]:
    """Return the language that the source of a row declares, if it can be told; else nothing, and say so once."""
    code = row.get("language") or ""
    found = _alike(code) & labels
    if not found:
        _say(row["source"], code)
    return found


@functools.cache
def _say(source: str, code: str) -> None:
    why = f"declares {code}, which cannot be identified" if code else "declares no language, and keep names none"
    log.info(f"language: rows of {source} are not checked: it {why}")


@functools.cache
def _alike(code: str) -> frozenset[str]:
    """Return the language of a code, zh for zh-hans, with those that are written alike."""
    primary = code.partition("-")[0]
    return next((group for group in ALIKE if primary in group), frozenset({primary}))


def _sampled(text: str, size: int) -> str:
    """Return a text, or pieces of it over its whole length that have about `size` characters together."""
    if len(text) <= size:
        return text
    piece = size // PIECES
    places = (number * (len(text) - piece) // (PIECES - 1) for number in range(PIECES))
    return "\n".join(text[place : place + piece] for place in places)


@functools.cache
def _py3langid() -> tuple[frozenset[str], Rank]:
    """Return the languages that py3langid knows, and what ranks them; loading it takes a second or more."""
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.nb_ptc = identifier.nb_ptc.astype(np.float32)  # processors multiply halves at a third of the speed
    return frozenset(identifier.labels), lambda text: dict(identifier.rank(text))


def _fasttext(name: str, context: BlockContext) -> tuple[frozenset[str], Rank]:
    """Return the languages of a fastText model, and what ranks them. Raises DataError where it cannot be loaded."""
    model = _load_fasttext(data_file(context, name, "language.model"))
    codes = {label: label.removeprefix("__label__").partition("_")[0] for label in model.get_labels()}

    def rank(text: str) -> Mapping[str, float]:
        found: dict[str, float] = {}
        # The library's own method of Python asks numpy for what numpy 2 refuses.
        for probability, label in model.f.predict(" ".join(text.split()) + "\n", -1, 0.0, "strict"):
            found[codes[label]] = found.get(codes[label], 0.0) + probability  # scripts of a language count together
        return found or {"": 0.0}

    return frozenset(codes.values()), rank


def _load_fasttext(path: Path) -> Any:
    try:
        import fasttext  # type: ignore[import-not-found, unused-ignore]  # an extra, often not installed
    except ImportError:
        raise DataError(
            "language.model needs the library fasttext, which is not installed. Install it, or remove model: py3langid "
            "needs no model file."
        ) from None
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise DataError(f"language.model: {path.name} is no fastText model that can be loaded: {error}") from error


BLOCK = Block(
    name="language", settings=LanguageSettings, start=start, rows=ALL,
    phrase="rows in another language than asked for, or than their source declares",
    files=lambda settings: [settings.model] if settings.model else [],
    paper="Lui and Baldwin 2012, langid.py; Joulin et al. 2017, arXiv:1607.01759 (fastText)",
)  # fmt: skip
