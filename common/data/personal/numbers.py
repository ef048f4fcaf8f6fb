"""Numbers that identify a person or an account: IBAN, credit cards, US social security and national ids.

Usage: `list(find_ibans(text))`; `list(find_cards(text))`; `list(find_ssns(text))`; `list(find_national_ids(text))`.

Check digits are those of `python-stdnum`. Where a number's form and check digits would let too many others pass, a word
before it must say what it is. Passports and driving licences have no check digits in most countries and are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from common.data.personal.spans import Span, said

END = 2**62  # of any text

_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]{4}){2,7}(?:[ \u00a0-]?[A-Z0-9]{1,4})?(?![^\W_])")
_CARD = re.compile(r"(?<![\w.,+=/$€£-])\d(?:[ \u00a0-]?\d){13,18}(?![\w]|[.,/-]\d)")
_LAYOUTS = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (6, 13)})
# First digits of each network, and how long its numbers are (ISO/IEC 7812; ranges as the networks publish them).
_NETWORKS = re.compile(
    r"4(?:\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|(?:50|5[6-8]|6[0-9])\d{14}"
)
_SSN = re.compile(r"(?<![\w.-])(?:\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{9})(?![\w]|[.,-]\d)")
_SSN_CUE = re.compile(r"\b(?:ssns?|soc(?:ial)?\.? sec(?:urity)?|social)\b", re.I)


class NationalId(NamedTuple):
    """One country's number: its module in stdnum, what it looks like, and the words that must stand before it."""

    module: str
    form: re.Pattern[str]
    cue: re.Pattern[str] | None = None


def _id(module: str, form: str, cue: str | None = None) -> NationalId:
    bounded = re.compile(rf"(?<![\w.,+=/-])(?:{form})(?![\w]|[.,/-]\d)")
    return NationalId(module, bounded, re.compile(rf"(?<![^\W_])(?:{cue})(?![^\W_])", re.I) if cue else None)


NATIONAL_IDS = (
    _id("it.codicefiscale", r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]"),
    _id("fr.nir", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}"),
    _id("cn.ric", r"[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])[0-3]\d{4}[0-9X]"),
    _id("kr.rrn", r"\d{2}(?:0[1-9]|1[0-2])[0-3]\d-[1-8]\d{6}"),
    _id("mx.curp", r"[A-Z]{4}\d{2}(?:0[1-9]|1[0-2])[0-3]\d[HMX][A-Z]{5}[A-Z0-9]\d"),
    _id("fi.hetu", r"[0-3]\d(?:0[1-9]|1[0-2])\d{2}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]"),
    _id("se.personnummer", r"(?:19|20)?\d{2}(?:0[1-9]|1[0-2])[0-3]\d[-+]\d{4}"),
    _id("es.dni", r"\d{8}[- ]?[A-HJ-NP-TV-Z]"),
    _id("es.nie", r"[XYZ][- ]?\d{7}[- ]?[A-HJ-NP-TV-Z]"),
    _id("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    _id("br.cpf", r"\d{11}", "cpf"),
    _id("ch.ssn", r"756[.]\d{4}[.]\d{4}[.]\d{2}"),
    _id("in_.aadhaar", r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", "aadhaar|aadhar|uidai|uid|आधार"),
    _id("pl.pesel", r"\d{11}", "pesel"),
    _id("nl.bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{9}", "bsn|burgerservicenummer|sofi-?nummer"),
    _id("de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", r"id-?nr|idnr|steuer-?id(?:nr)?|identifikationsnummer|tin"),
    _id("gb.nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "nhs"),
    _id("ca.sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", r"sin|social insurance"),
    _id("dk.cpr", r"[0-3]\d(?:0[1-9]|1[0-2])\d{2}-?\d{4}", "cpr"),
    _id("be.nn", r"\d{2}[.]\d{2}[.]\d{2}-\d{3}[.]\d{2}"),
)


def find_ibans(text: str, first: int = 0, last: int = END) -> Iterator[Span]:
    """Yield the account numbers of a text whose country, length and check digits are right."""
    from stdnum import iban

    for found in _IBAN.finditer(text, first, last):
        given, ends = found[0], [*(sign.start() for sign in re.finditer(r"[ \u00a0-]", found[0])), len(found[0])]
        for end in reversed(ends):  # a word in capitals may stand behind it
            if end >= 15 and iban.is_valid(given[:end].replace("\u00a0", " ")):
                yield Span(found.start(), found.start() + end, "iban")
                break


def find_cards(text: str, first: int = 0, last: int = END) -> Iterator[Span]:
    """Yield the card numbers of a text: of a known network, grouped as cards are or not at all, right by Luhn."""
    from stdnum import luhn

    for found in _CARD.finditer(text, first, last):
        groups = re.split(r"[ \u00a0-]", found[0])
        digits = "".join(groups)
        laid_out = len(groups) == 1 or tuple(map(len, groups)) in _LAYOUTS
        if laid_out and digits.isascii() and _NETWORKS.fullmatch(digits) and luhn.is_valid(digits):
            yield Span(found.start(), found.end(), "card")


def find_ssns(text: str, first: int = 0, last: int = END) -> Iterator[Span]:
    """Yield social security numbers of the US; without hyphens where a word before says so."""
    from stdnum.us import ssn

    for found in _SSN.finditer(text, first, last):
        if ("-" in found[0] or said(text, found.start(), _SSN_CUE) >= 0) and ssn.is_valid(found[0].replace(" ", "")):
            yield Span(found.start(), found.end(), "ssn")


def find_national_ids(text: str, first: int = 0, last: int = END) -> Iterator[Span]:
    """Yield the national ids of a text, of the countries in NATIONAL_IDS."""
    from stdnum import get_cc_module

    for one in NATIONAL_IDS:
        for found in one.form.finditer(text, first, last):
            cued = one.cue is None or said(text, found.start(), one.cue) >= 0
            if cued and get_cc_module(*one.module.split(".")).is_valid(found[0]):
                yield Span(found.start(), found.end(), "national_id")
