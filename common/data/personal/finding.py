"""All personal data of a text in one pass over it.

Usage: `spans = find_personal(text, ("mail", "ip"), regions=("DE",))`.

Where two kinds overlap the one with the stronger check wins: an IBAN before a card, a card before a phone number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from common.data.personal import addresses, numbers, phones
from common.data.personal.spans import Span, apart

Kind = Literal["mail", "ip", "iban", "card", "ssn", "national_id", "phone"]
# Digits, capital letters and what stands between them, from a digit on. Every number that is looked for is in such a
# run, or begins a few letters before it.
_RUN = re.compile(r"\d[\dA-Z \u00a0\u202f\t.,+\-\u2010-\u2013/()]{4,}")
_LEAST = 6  # digits in a run
_BEFORE, _BEHIND = 8, 4


def find_personal(
    text: str, kinds: Collection[Kind], *, regions: Sequence[str] = phones.REGIONS, local: bool = False
) -> list[Span]:
    """Return the personal data of some kinds in a text, in its order; no two overlap."""
    return apart(_found(text, kinds, regions, local=local))


def _found(text: str, kinds: Collection[str], regions: Sequence[str], *, local: bool) -> Iterator[Span]:
    if "mail" in kinds:
        yield from addresses.find_mails(text, local=local)
    if "ip" in kinds:
        yield from addresses.find_ips(text, local=local)
    for first, last in _runs(text):
        for kind, find in _NUMBERS.items():
            if kind in kinds:
                yield from find(text, first, last)
        if "phone" in kinds:
            yield from phones.find_phones(text, regions, first, last)


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Yield the parts of a text in which numbers of several digits may stand."""
    for run in _RUN.finditer(text):
        if sum(map(str.isdigit, run[0])) >= _LEAST:
            yield max(0, run.start() - _BEFORE), min(len(text), run.end() + _BEHIND)


def is_personal(value: str, kind: str, regions: Sequence[str] = phones.REGIONS) -> bool:
    """Whether a whole text is of a kind, as one that a word before it calls so."""
    if kind == "phone":
        return phones.is_phone(value, regions)
    return any(span[:2] == (0, len(value)) for span in _found(value, {kind}, regions, local=False))


_NUMBERS: dict[Kind, Callable[[str, int, int], Iterator[Span]]] = {
    "iban": numbers.find_ibans, "card": numbers.find_cards, "ssn": numbers.find_ssns,
    "national_id": numbers.find_national_ids,
}  # fmt: skip
