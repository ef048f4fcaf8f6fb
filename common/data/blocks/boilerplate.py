"""Take lines out of texts that are navigation, notices on cookies and rights, page numbers, or headers of pages.

Usage: in a manifest, `blocks: [boilerplate]`, or `blocks: [{boilerplate: {repeats: 4, phrases: [Read more at]}}]`.

It cuts short lines only, and by fixed rules: lines of menu entries, known phrases, a line that comes again and again in
one text. Pages of HTML lose most of it when they are read; lines that many documents of a source have in common are the
block `repeated_lines`. In texts about cookies or rights, a short line that is meant may go; name other `sources` then.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from common.config.base import Share
from common.config.blocks import Block, BlockContext, BlockSettings, Drop, Row, RowFunction
from common.config.names import NonEmpty
from common.data.texts import noted

Verdict = Literal["keep", "maybe", "sure"]  # maybe: a menu entry if the line before or behind is one too
_NOTICES = (
    "accept all cookies", "accept cookies", "cookie policy", "cookie preferences", "cookie settings", "manage cookies",
    "uses cookies", "we use cookies", "verwendet cookies", "verwenden cookies", "utilise des cookies",
    "utilisons des cookies", "utiliza cookies", "utilizamos cookies", "utilizza i cookie", "gebruikt cookies",
    "all rights reserved", "alle rechte vorbehalten", "tous droits r\u00e9serv\u00e9s", "todos los derechos reservados",
    "todos os direitos reservados", "tutti i diritti riservati", "alle rechten voorbehouden",
    "enable javascript", "javascript is disabled", "javascript is required", "browser does not support",
    "our newsletter", "follow us on", "share on facebook", "share on twitter", "skip to content",
    "skip to main content", "click here to", "powered by wordpress", "leave a comment",
)  # fmt: skip
_SURE = frozenset({
    "back to top", "log in", "login", "log out", "sign in", "sign up", "subscribe", "print this page",
    "share this page", "tweet", "read more", "load more", "show more", "toggle navigation", "close menu", "open menu",
    "main menu", "leave a reply", "anmelden", "impressum", "mentions l\u00e9gales", "aviso legal",
})  # fmt: skip
_ENTRIES = frozenset({
    "home", "home page", "homepage", "about", "about us", "contact", "contact us", "blog", "news", "search", "menu",
    "sitemap", "site map", "faq", "help", "careers", "jobs", "press", "privacy", "privacy policy", "terms",
    "terms of use", "terms of service", "terms & conditions", "legal", "support", "products", "services", "shop",
    "cart", "account", "my account", "register", "next", "previous", "prev", "share", "print", "email", "e-mail",
    "facebook", "twitter", "instagram", "linkedin", "youtube", "rss", "startseite", "kontakt", "datenschutz", "suche",
    "accueil", "contactez-nous", "recherche", "inicio", "contacto", "buscar", "privacidad", "in\u00edcio", "contato",
    "contatti", "cerca", "chi siamo",
})  # fmt: skip
_BETWEEN = re.compile(r"\s*(?:[|\u203a\u00bb\u2022\u00b7>/\u2192]|::)\s*")
_OPEN, _CLOSE = r"[-\u2013\u2014\[( ]*", r"[-\u2013\u2014\]) ]*"
_PAGE = re.compile(
    rf"{_OPEN}(?:page|seite|p\u00e1gina|pagina|p\.|s\.)\s*\d{{1,5}}(?:\s*(?:of|/|von|de|di)\s*\d{{1,5}})?{_CLOSE}"
    r"|[-\u2013\u2014]\s*\d{1,5}\s*[-\u2013\u2014]|\d{1,5}\s*(?:of|/|von)\s*\d{1,5}",
    re.I,
)
_NUMBER_BEHIND = re.compile(r"\W*\b\d{1,5}$")  # of a page


class BoilerplateSettings(BlockSettings):
    """Which lines go."""

    notices: bool = Field(True, description="lines on cookies, rights, JavaScript and newsletters")
    navigation: bool = Field(True, description="lines of menu entries, such as Home | About | Contact")
    page_numbers: bool = Field(True, description="lines that are a page number, such as Page 3 of 10")
    repeats: int | None = Field(
        None, ge=2, description="a line of 2 words or more that a text has so often is a page's header; the first stays"
    )
    phrases: tuple[NonEmpty, ...] = Field((), description="further phrases whose lines go, in any case")
    longest: int = Field(200, ge=1, description="characters above which a line always stays")
    least: Share = Field(0.0, description="least share of its characters that must be left of a text")


def start(settings: BoilerplateSettings, context: BlockContext) -> RowFunction:
    """Return what takes boilerplate out of a text row."""
    phrases = [*(_NOTICES if settings.notices else ()), *(phrase.casefold() for phrase in settings.phrases)]
    notice = re.compile("|".join(map(re.escape, phrases))) if phrases else None

    def verdict(line: str) -> Verdict:
        plain = line.strip().casefold()
        if not plain or len(plain) > settings.longest:
            return "keep"
        if notice is not None and notice.search(plain):
            return "sure"
        if settings.page_numbers and _PAGE.fullmatch(plain):
            return "sure"
        return _menu(plain) if settings.navigation else "keep"

    def clean(row: Row) -> Row | Drop:
        text: str = row["text"]
        lines = text.split("\n")
        cut = _decided([verdict(line) for line in lines], lines)
        if settings.repeats is not None:
            cut |= _repeated(lines, settings.repeats, settings.longest)
        if not cut:
            return row
        left = without(lines, cut)
        if not left.strip():
            return Drop("only boilerplate", f"{len(cut)} lines")
        if len(left) < settings.least * len(text):
            return Drop("mostly boilerplate", f"{len(left) / len(text):.0%} of the characters would be left")
        return noted(row | {"text": left}, "boilerplate lines left out")

    return clean


def without(lines: Sequence[str], cut: Iterable[int]) -> str:
    """Return a text without some of its lines, and without a blank line beside them where that leaves two."""
    gone, kept = set(cut), list[str]()
    behind = False  # whether a line was just cut
    for place, line in enumerate(lines):
        if place in gone:
            behind = True
        elif not (behind and not line.strip() and (not kept or not kept[-1].strip())):
            kept.append(line)
            behind = False
    return "\n".join(kept)


def _menu(plain: str) -> Verdict:
    """Judge a line as a menu: of known entries, the only one or several with signs between them."""
    if plain in _SURE:
        return "sure"
    if plain in _ENTRIES:
        return "maybe"
    if plain[0] == "|" or len(parts := [part for part in _BETWEEN.split(plain) if part]) < 3:
        return "keep"  # a row of a table begins with the sign
    known = sum(part in _ENTRIES or part in _SURE for part in parts)
    return "sure" if known >= max(1, len(parts) // 3) and all(len(part) <= 30 for part in parts) else "keep"


def _decided(verdicts: Sequence[Verdict], lines: Sequence[str]) -> set[int]:
    """Return the places of lines to cut: sure ones, and possible ones beside another of either kind."""
    full = [place for place, line in enumerate(lines) if line.strip()]
    cut = {place for place in full if verdicts[place] == "sure"}
    for before, place in itertools.pairwise(full):
        if verdicts[before] != "keep" and verdicts[place] != "keep":
            cut |= {before, place}
    return cut


def _repeated(lines: Sequence[str], times: int, longest: int) -> set[int]:
    """Return the places of short lines that come at least so many times, but for the first of each.

    The number of a page behind a line makes no difference.
    """
    keys = [_NUMBER_BEHIND.sub("", line.strip()) if len(line) <= longest else "" for line in lines]
    keys = [key if " " in key and sum(map(str.isalpha, key)) >= 8 else "" for key in keys]
    often = {key for key, number in Counter(keys).items() if key and number >= times}
    seen, cut = set[str](), set[int]()
    for place, key in enumerate(keys):
        if key in often and key in seen:
            cut.add(place)
        seen.add(key)
    return cut


BLOCK = Block(
    name="boilerplate",
    settings=BoilerplateSettings,
    start=start,
    phrase="lines that are navigation, notices on cookies and rights, page numbers, or headers of pages",
)
