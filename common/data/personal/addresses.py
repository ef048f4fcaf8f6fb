"""Mail and IP addresses in a text.

Usage: `list(find_mails(text))`; `list(find_ips(text))`; `local=True` finds reserved and private ones too.

Mail addresses with letters of any script are found, and those written as `jane [at] firm [dot] com`. What only looks
like one is passed over: file names such as `icon@2x.png`, packages with a version, handles, `git@host:path`, the user
in a URL. Numbers of versions and sections are no IP addresses. It does not ask whether an address is in use.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from common.data.personal.spans import Span

# Patterns begin with a sign or a digit, and look behind it after that: so the engine skips to it.
_AT_WORD = r"\s?(?:at|AT|At|@)\s?"
_AT = re.compile(
    rf"@|\uff20|&(?:#0*64|#x0*40|commat);|%40|\[{_AT_WORD}\]\s?|\({_AT_WORD}\)\s?|\{{{_AT_WORD}\}}\s?|<{_AT_WORD}>\s?"
)
_AT_SPELT = re.compile(rf"{_AT.pattern}| AT (?=\w)")
_LOCAL = re.compile(r"(\"[^\"\n@]{1,62}\"|[\w.+'%-]{1,64})(\s?)\Z")
_DOT = r"(?:\.|\s?[\[({<]\s?(?:dot|DOT|Dot|\.)\s?[\])}>]\s?| DOT )"
_DOMAIN = re.compile(rf"(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?{_DOT}){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[^\W\d_]{{2,24}})")
_FILES = frozenset({
    "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "mjs", "ts", "json", "html", "htm", "xml",
    "pdf", "txt", "yaml", "yml", "zip",
})  # fmt: skip
_RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)$", re.I)  # RFC 2606
_LAST = re.compile(r"\.[A-Z][a-z]+$")  # a sentence that begins without a blank
_LEADING = "+'%.-"  # allowed in an address, but at its beginning more likely not part of it

_POINT = r"(?:\.|\[\.\])"
_V4 = re.compile(
    rf"\d(?<![\w.\]]\d)(?<![^\W\d_]-\d)\d{{0,2}}{_POINT}(?:\d{{1,3}}{_POINT}){{2}}\d{{1,3}}(?!\w|\.\d|\[\.\]|-[A-Za-z])"
)
_V6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}")
_V6_ANY = re.compile(r"[0-9A-Fa-f:](?<![\w:.].)[0-9A-Fa-f]{0,3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}")
_GOES_ON = re.compile(r":?\w")
_GLOBAL = ipaddress.ip_network("2000::/3")  # the only range of IPv6 that is given to anybody
_VERSION = re.compile(
    r"(?:\b(?:v|ver|vers|versions?|release[sd]?|rev|revision|builds?|firmware|kernel|patch|sections?|sec|chapters?|"
    r"clauses?|articles?|art|paras?|paragraphs?|rule|annex|appendix|table|figure|fig|oid|ec|upgraded?|update[sd]?)\b"
    r"[.:]?|§+|[<>=~!^]=|~>|\^|(?<=\s)[<>]|\w/)"
    r"[\s('\"]*(?:(?:to|from|is|of|before|after|below|than|prior|until)\s+)*"
    r"(?:v?[\d.]+\s*(?:,|;|and|or|to|through|-|\u2013)\s*)*$",
    re.I,
)
_SMALL = 64  # numbers of versions and sections are below it
_IP_WORD = re.compile(
    r"\b(?:ips?|ipv4|address\w*|hosts?|server\w*|nameserver\w*|dns|ping\w*|connect\w*|proxy|router|gateway|subnet|network|"
    r"peer|ports?|firewall|client|from|curl|ssh|src|dst|source_?ips?|resolves?|login)\b|//\Z",
    re.I,
)


def find_mails(text: str, *, local: bool = False) -> Iterator[Span]:
    """Yield the mail addresses of a text; those of reserved example domains only with `local`."""
    pattern = _AT_SPELT if " AT " in text and " DOT " in text else _AT
    for at in pattern.finditer(text):
        before, behind = _LOCAL.search(text, max(0, at.start() - 64), at.start()), _DOMAIN.match(text, at.end())
        if before is None or behind is None or (before[2] and at[0] == "@"):
            continue
        start, end, domain = before.start(), behind.end(), behind[0]
        if text[start] != '"':
            start += len(before[1]) - len(before[1].lstrip(_LEADING))
        if (sentence := _LAST.search(domain)) and "." in domain[: sentence.start()]:
            end -= len(sentence[0])
            domain = domain[: sentence.start()]
        if start < at.start() and text[start : at.start()] != '""' and _is_mail(text, start, end, domain, local=local):
            yield Span(start, end, "mail")


def _is_mail(text: str, start: int, end: int, domain: str, *, local: bool) -> bool:
    if domain.rpartition(".")[2].lower() in _FILES:
        return False
    if start and text[start - 1] in "@/":  # a handle of a network; a path
        return False
    if "://" in text[max(0, start - 80) : start].rpartition(" ")[2].rpartition("\n")[2]:  # the user of a URL
        return False
    if re.match(r":[\w~./]", text[end : end + 2]) and not text[end + 1].isdigit():  # git@host:path
        return False
    return local or _RESERVED.search(domain) is None


def find_ips(text: str, *, local: bool = False) -> Iterator[Span]:
    """Yield the IP addresses of a text; those of private, reserved and documentation ranges only with `local`."""
    for found in _V4.finditer(text):
        try:
            address = ipaddress.IPv4Address(found[0].replace("[.]", "."))
        except ValueError:
            continue
        if (local or address.is_global) and not _is_version(text, found):
            yield Span(found.start(), found.end(), "ip")
    for found in (_V6_ANY if local else _V6).finditer(text) if text.count(":") > 1 else ():
        given = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
        if _GOES_ON.match(text, found.start() + len(given)):
            continue
        try:
            six = ipaddress.IPv6Address(given)
        except ValueError:
            continue
        known = six in _GLOBAL or six.is_private or six.is_link_local or six.is_multicast
        if (local and known and any(map(str.isdigit, given))) or (six in _GLOBAL and six.is_global):
            yield Span(found.start(), found.start() + len(given), "ip")


def _is_version(text: str, found: re.Match[str]) -> bool:
    """Whether four numbers count versions or sections: a word or sign before says so, or no word makes
    small ones an address."""
    first = max(0, found.start() - 80)
    if _VERSION.search(text, first, found.start()):
        return True
    octets = [int(part) for part in re.findall(r"\d+", found[0])]
    if max(octets) >= _SMALL or len(set(octets)) == 1:
        return False
    line = max(first, text.rfind("\n", 0, found.start()) + 1)
    return _IP_WORD.search(text, line, found.start()) is None
