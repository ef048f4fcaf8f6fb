"""Mask personal data: mail addresses, phone numbers, IP addresses, account, card and identity numbers, and names.

Usage: in a manifest, `blocks: [pii]`, or `blocks: [{pii: {kinds: [mail, phone], replacement: fake}}]`.

All texts of a row are masked, prompts and arguments of tools too. What counts as each kind is `common.data.personal`.
It changes rows and leaves none out. It makes no text anonymous: what a text tells about a person stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from pydantic import Field, field_validator

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Row, RowFunction
from common.config.names import NonEmpty
from common.data.personal.fakes import fake
from common.data.personal.finding import Kind, find_personal, is_personal
from common.data.personal.names import name_finder
from common.data.personal.phones import REGIONS
from common.data.personal.spans import Span, apart
from common.data.texts import map_texts, noted
from common.errors import ConfigError

NAMED = {"mail": "EMAIL", "phone": "PHONE", "ip": "IP", "iban": "IBAN", "card": "CARD", "ssn": "SSN",
         "national_id": "ID", "name": "NAME"}  # fmt: skip
Find = Callable[[str], list[Span]]


class PiiSettings(BlockSettings):
    """What is masked, and what stands there instead."""

    kinds: tuple[Kind, ...] = Field(get_args(Kind), description="kinds of data that are masked, names apart")
    replacement: Literal["placeholder", "fake"] = Field(
        "placeholder", description="placeholder: <EMAIL> and the like; fake: another value of the same form"
    )
    local: bool = Field(False, description="also mask private and reserved IP addresses, and mail at example.com")
    regions: tuple[NonEmpty, ...] = Field(
        REGIONS, description="countries, as ISO 3166 codes, whose phone numbers are found without a country code"
    )
    names: bool = Field(False, description="also mask names of persons; needs presidio and a spaCy pipeline")
    pipeline: NonEmpty = Field("en_core_web_sm", description="installed spaCy pipeline for names, or its folder")
    language: NonEmpty = Field("en", description="ISO 639 code of that pipeline's language")

    @field_validator("kinds", "regions")
    @classmethod
    def _once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(given)) < len(given):
            raise ValueError(f"{', '.join(given)}: one is named twice")
        return given


def start(settings: PiiSettings, context: BlockContext) -> RowFunction:
    """Return what masks a row. Raises ConfigError where a library is missing, or a region is unknown."""
    _check_regions(settings)
    find = _finder(settings)
    replace = _faked(settings, context.seed) if settings.replacement == "fake" else lambda _, kind: f"<{NAMED[kind]}>"

    def mask(row: Row) -> Row:
        masked: dict[str, None] = {}  # kinds, in the order of the text

        def change(text: str) -> str:
            spans = find(text)
            masked.update(dict.fromkeys(span.kind for span in spans))
            return "".join(_pieces(text, spans, replace)) if spans else text

        found = map_texts(row, change)
        for kind in masked:
            found = noted(found, f"{kind.replace('_', ' ')} masked")
        return found

    return mask


def _finder(settings: PiiSettings) -> Find:
    kinds, regions, local = frozenset(settings.kinds), settings.regions, settings.local
    find = functools.partial(find_personal, kinds=kinds, regions=regions, local=local)
    if not settings.names:
        return find
    names = name_finder(settings.language, settings.pipeline)
    return lambda text: apart([*find(text), *names(text)])


def _faked(settings: PiiSettings, seed: int) -> Callable[[str, str], str]:
    def replace(value: str, kind: str) -> str:
        real = None if kind == "name" else functools.partial(is_personal, kind=kind, regions=settings.regions)
        return fake(value, kind, seed, real or (lambda value: False))

    return replace


def _pieces(text: str, spans: list[Span], replace: Callable[[str, str], str]) -> Iterator[str]:
    start = 0
    for span in spans:
        yield text[start : span.start]
        yield replace(text[span.start : span.end], span.kind)
        start = span.end
    yield text[start:]


def _check_regions(settings: PiiSettings) -> None:
    if "phone" not in settings.kinds:
        return
    from phonenumbers import SUPPORTED_REGIONS

    if wrong := sorted(set(settings.regions) - set(SUPPORTED_REGIONS)):
        raise ConfigError(
            f"pii.regions: {', '.join(wrong)} is no country of phonenumbers; expected ISO 3166 codes such as US and DE."
        )


BLOCK = Block(
    name="pii", settings=PiiSettings, start=start, rows=ALL, seeded=True, phrase="personal data that is masked",
)  # fmt: skip
