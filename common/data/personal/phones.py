"""Phone numbers in a text, of all countries where they begin with +, else of given ones; valid by `phonenumbers`.

Usage: `list(find_phones("Tel. 030 901820", ("DE",)))`.

Many a number is a valid phone number somewhere. So one without + must be laid out as phone numbers are, or a word
before it must say that it is one, in one of many languages. Words such as ISBN before it say that it is not. Numbers
with letters (1-800-FLOWERS) are not found.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from common.data.personal.spans import Span, said

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "IN", "CN", "JP", "RU")
LEAST, MOST = 7, 17  # digits
UNCUED = 9  # digits, where no word says that it is a phone number

_SIGN = r"[ \u00a0\u202f\t.\-\u2010\u2011\u2012\u2013/()]"
_CANDIDATE = re.compile(
    rf"[+\uff0b(\d](?<![\w@#$€£¥%=.,+\-/&*].)(?:(?<=\()[+\uff0b]\s?|(?<=[+\uff0b])\s?)?\(?\d?(?:{_SIGN}{{0,3}}\d)"
    rf"{{{LEAST - 1},{MOST + 8}}}(?![\w%]|[.,:/\-\u2013]\d|\s?[€£¥%])"
)
_EXTENSION = re.compile(r"(?:\s?,?\s?(?:ext\.?|extension|x|#|;ext=)\s?\d{1,6})(?!\w)", re.I)
_WORDS = (
    "telephone|telephon|telefono|teléfono|telefone|téléphone|telefoon|telefon|telefax|telecopy|tel|tél|phone|fax|"
    "mobile|mobiel|mobil|cellphone|cellulare|celular|cell|móvil|movil|portable ?:|handy ?:|hotline|helpline|landline|"
    "whatsapp|telegram|signal ?:|sms|viber|call(?:ing)?|dial(?:ling)?|ring|ph|rufen|anruf\\w*|ruf|appel\\w*|llam\\w*|"
    "chiam\\w*|ligue|bel|zadzwo\\w*|toll[- ]free|voicemail|reach(?: \\w+)? (?:at|on)|"
    "тел\\w*|моб\\w*|факс|звон\\w*|позвон\\w*|фон"
)
_CUE = re.compile(
    rf"(?:(?<![^\W_])(?:{_WORDS})(?![^\W_])|电话|電話|手机|手機|携帯|致电|传真|拨打|फ़?ोन|फोन|मोबाइल|هاتف|جوال|تلفون|전화|휴대폰|โทร|"
    r"[\u260e\u260f\U0001f4de\U0001f4f1\U0001f57f\u2706]|\b[TMFtmf]:)(?:\W{0,3}(?:no|nr|number|numbers|num|nummer|número|numéro|numero|"
    r"is|номер|号码|番号|#)\b)?",
    re.I,
)
_OTHER = re.compile(
    r"(?:\b(?:isbn|issn|doi|pmid|pmc|arxiv|cas|ein|vin|imei|isin|cusip|rfc|cve|order|invoice|tracking|serial|sku|model|"
    r"patent|account|acct|case|docket|claim|policy|member|part|item|grant|trial|id|ref|reference|file|no|nr|number|"
    r"article|art|section|sections|sec|version|zip|code|lot|batch|ticket|between|range|years?|pages?|pp?)\b|№)"
    r"[\s.:#(\-]*(?:1[03])?[\s.:#(\-]*$|§[^a-z§]*$",
    re.I,
)
# Laid out so that no word is needed: an area in brackets, American groups, or a leading 0 and groups behind it.
_LAID_OUT = re.compile(
    r"(?:1[ .\-])?\(\d{3}\) ?\d{3}[ .\-]\d{4}|(?:1[.\-])?\d{3}(?P<sign>[.\-])\d{3}(?P=sign)\d{4}|1 \d{3} \d{3} \d{4}"
    r"|\(0\d{1,5}\) ?\d{2,}(?:[ \-]?\d{2,}){0,4}|0\d{1,4}[ /\-]\d{2,}(?:[ \-]\d{2,}){0,4}|\(\d{2}\) ?9?\d{4}-\d{4}"
    r"|00[1-9]\d{0,2}(?:[ \-]\d{1,5}){2,5}|011 [1-9]\d{0,2}(?:[ \-]\d{1,5}){2,5}"
)
_FOLLOWS = re.compile(r"\d[ \t\u00a0]\Z")
_BEGINS = re.compile(r"[+\uff0b(]|(?:1-)?\d{3}-\d{3}-\d{4}\Z")
_DATE = re.compile(r"\d{1,2}([./\-])\d{1,2}\1\d{2,4}|\d{4}([./\- ])\d{1,2}\2\d{1,2}.*|\d{2}(?:[./\-]\d{2}){2,3} .*")


def find_phones(text: str, regions: Sequence[str] = REGIONS, first: int = 0, last: int | None = None) -> Iterator[Span]:
    """Yield the phone numbers of a text; those without a country code are tried in each of some regions."""
    for found in _CANDIDATE.finditer(text, first, len(text) if last is None else last):
        cued = said(text, found.start(), _CUE)
        other = _OTHER.search(text, max(0, found.start() - 30), found.start())
        if other is not None and cued < other.start() and "+" not in found[0][:2]:
            continue
        for start, end in _pieces(found):
            # Groups of digits before it make it the end of a longer number, unless its form says where it begins.
            if _FOLLOWS.search(text, max(0, start - 2), start) and not _BEGINS.match(text, start, end):
                continue
            if is_phone(text[start:end], regions, cued=cued >= 0):
                behind = _EXTENSION.match(text, end)
                yield Span(start, behind.end() if behind else end, "phone")
                break


def is_phone(number: str, regions: Sequence[str] = REGIONS, *, cued: bool = True) -> bool:
    """Whether a whole text is a valid phone number, with a + or in one of the regions.

    `cued` says that a word before it calls it one; without, it has to be laid out like one.
    """
    digits = sum(map(str.isdigit, number))
    if not LEAST <= digits <= MOST or _DATE.fullmatch(number):
        return False
    if number.lstrip("(")[:1] in "+\uff0b":
        return _is_valid(number, None)
    if number.count("(") != number.count(")"):
        return False
    if not cued and digits < UNCUED:
        return False
    if not cued and not _LAID_OUT.fullmatch(number.replace("\u00a0", " ").replace("\u2011", "-")):
        return False
    return any(_is_valid(number, region) for region in regions)


def _pieces(found: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans of numbers that a run of digits may hold, the longest first: whole, or cut at blanks."""
    words = [(found.start() + word.start(), found.start() + word.end()) for word in re.finditer(r"[^ \t]+", found[0])]
    if len(words) > 8:  # a row of a table
        return
    for size in range(len(words), 0, -1):
        for first in range(len(words) - size + 1):
            start, end = words[first][0], words[first + size - 1][1]
            if size > 1 and end - words[first + size - 1][0] == 1:  # a number of something else behind it
                continue
            opened = found.string[start] == "(" and ")" not in found.string[start:end]
            yield start + opened, end


@functools.lru_cache(maxsize=65536)
def _is_valid(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False
