"""What a licence asks for, and which one holds for a model that was made from several things.

Usage: `found = roll_up([("the base model", "apache-2.0"), ("wikimedia", "cc-by-sa-4.0")])`; `found.id` is cc-by-sa-4.0.

Licences are identified by the ids of the Hub (which are those of SPDX where both have one). The order is ours: each
class may do less than the one before it. Whether weights are a derived work of their training text is not settled law;
the strictest licence is the careful reading, and no legal advice.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from common.config.schema import ModelSettings
from common.config.yaml import read_front_matter
from common.errors import DataError, cut, visible
from common.models.gguf_file import read_gguf
from common.models.local import config_of, locate, package_of


class Strictness(IntEnum):
    """Classes of licences, the freest first."""

    PUBLIC = 0
    PERMISSIVE = 1
    ATTRIBUTION = 2
    SHARE_ALIKE = 3
    NON_COMMERCIAL = 4
    RESTRICTED = 5  # no changed versions, or research only
    CUSTOM = 6  # terms of their own, which only their text tells
    UNKNOWN = 7


# The first pattern that a whole word of a licence's text matches gives its class.
IDS = (
    (Strictness.RESTRICTED, r"cc-by(-nc)?-nd(-\d.*)?|research-only|apple-amlr|apple-ascl|intel-research"),
    (
        Strictness.NON_COMMERCIAL,
        r"cc-by-nc(-sa)?(-\d.*)?|fair-noncommercial-.*|h-research|non-?commercial",
    ),
    (
        Strictness.SHARE_ALIKE,
        r"cc-by-sa(-\d.*)?|odbl(-.*)?|[al]?gpl(-.*)?|gfdl(-.*)?|mpl-2\.0|eupl-.*|epl-.*|osl-3\.0|cdla-sharing-1\.0",
    ),
    (Strictness.ATTRIBUTION, r"cc-by(-\d.*)?|odc-by(-.*)?|etalab-2\.0|ogl-uk-.*"),
    (
        Strictness.PERMISSIVE,
        r"apache-2\.0|mit|bsd(-.*)?|isc|zlib|postgresql|ncsa|artistic-2\.0|afl-3\.0|ecl-2\.0|bsl-1\.0|ofl-1\.1"
        r"|cdla-permissive-.*",
    ),
    (Strictness.PUBLIC, r"cc0(-1\.0)?|unlicense|wtfpl|pddl(-1\.0)?|0bsd|mit-0|public-domain|public-record|edict"),
    (Strictness.CUSTOM, r"other|llama[234](\.\d)?|gemma|((creativeml|bigcode)-)?openrail.*|bigscience-.*|terms"),
)
UNSTATED = re.compile(r"|unknown|unlicensed|none( stated)?|not stated|n/?a|-")
SEVERAL_WORDS = (
    (re.compile(r"\bapache(?: licen[cs]e)?,?(?: version)?[ -]?2(?:\.0)?\b"), "apache-2.0"),
    (re.compile(r"\bpublic (domain|record)\b"), r"public-\1"),
    (re.compile(r"\bresearch (?:use )?only\b"), "research-only"),
    (re.compile(r"\bnon[ -]commercial\b"), "noncommercial"),
)
NO_IDS = ("research-only", "noncommercial", "non-commercial", "terms", "edict", "public-domain", "public-record")
CREATIVE_COMMONS = re.compile(r"\bcc[ -]by((?:[ -](?:nc|sa|nd))*)(?:[ -](\d\.\d))?\b")
KEEPS_ITS_OWN = re.compile(r"(cc-by-sa|cc-by-nc-sa|odbl|agpl|lgpl|gpl|gfdl|mpl|eupl|epl|osl|cdla-sharing)\b")
CREDIT = "credit the authors"
LONGEST = 200  # characters of a licence or a title; what is longer is a whole licence, or not meant for a report
MARKUP = re.compile(r"[`<>\[\]|*~$\\]")
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
HUB_ADDRESS = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/?$")
DUTIES = {
    Strictness.PERMISSIVE: ("keep the licence's text and notices",),
    Strictness.ATTRIBUTION: (CREDIT,),
    Strictness.SHARE_ALIKE: ("publish what is made from it under the same licence",),
    Strictness.NON_COMMERCIAL: ("use it for nothing commercial",),
    Strictness.RESTRICTED: ("publish no changed version, or use it for research only, as its text says",),
    Strictness.CUSTOM: ("follow its own terms, and pass them on",),
}


@dataclass(frozen=True)
class Licence:
    """One licence as it was stated, and what is known of it."""

    text: str
    id: str  # as the Hub spells it; `other` for one that the Hub has no id for, `unknown` where none is stated
    strictness: Strictness

    @property
    def family(self) -> str | None:
        """The licence, whatever its version, that what is made from this must keep; None where it may be another."""
        match = KEEPS_ITS_OWN.match(self.id)
        return match[1] if match else None

    @property
    def duties(self) -> tuple[str, ...]:
        """What it asks for, in words."""
        also = (CREDIT,) if self.id.startswith("cc-by-") else ()
        share = DUTIES[Strictness.SHARE_ALIKE] if self.family and self.strictness > Strictness.SHARE_ALIKE else ()
        return (*also, *DUTIES.get(self.strictness, ()), *share)


def read_licence(text: str | None) -> Licence:
    """Return what a licence's text means; of several in it the strictest, and `other` for words that say nothing."""
    plain = " ".join((text or "").split()).lower()
    text = shortened(text or "", "its own terms")
    if UNSTATED.fullmatch(plain):
        return Licence(text or "unknown", "unknown", Strictness.UNKNOWN)
    for pattern, instead in SEVERAL_WORDS:
        plain = pattern.sub(instead, plain)
    plain = CREATIVE_COMMONS.sub(lambda m: "cc-by" + m[1].replace(" ", "-") + (f"-{m[2]}" if m[2] else ""), plain)
    found = [
        (strictness, word)
        for word in re.split(r"[\s,;:()/]+", plain)
        for strictness, ids in IDS
        if re.fullmatch(ids, word)
    ]
    if not found:
        return Licence(text, "other", Strictness.CUSTOM)
    strictness = max(found)[0]
    words = [word for rank, word in found if rank == strictness]
    named = [word for word in words if word not in NO_IDS]
    free = "cc0-1.0" if strictness == Strictness.PUBLIC else "other"
    return Licence(text, named[0] if named else free, strictness)


@dataclass(frozen=True)
class RollUp:
    """The licence of something that was made from several, with what it follows from."""

    id: str  # for the Hub: an id of its list, `other` or `unknown`
    name: str | None  # what to call it where the id is `other`
    strictest: tuple[tuple[str, Licence], ...]  # what it follows from: who, and its licence
    duties: tuple[str, ...]  # of all together
    conflicts: tuple[str, ...]  # sentences about licences that may not go together
    limits: tuple[str, ...]  # sentences about what the data forbid and the base allows
    unknown: tuple[str, ...]  # whose licence is not known
    base: str | None = None  # what the base model is called, where one was given
    asked: str | None = None  # the licence that was set in the place of the strictest one

    @property
    def sentence(self) -> str:
        """Say which licence it is and because of what, in one line."""
        shown = self.id if self.name is None else f"{self.id} ({self.name})"
        if self.unknown:
            return f"{shown}, as that of {', '.join(self.unknown)} is."
        if not self.strictest:
            return f"{shown}."
        if self.conflicts and not self.asked:
            return f"{shown}, as what it is made from is under licences that may not go together."
        because = ", ".join(f"{name} ({licence.text})" for name, licence in self.strictest)
        rule = f"the strictest of what it is made from: {because}."
        return f"{shown}, as publish.licence says; {rule}" if self.asked else f"{shown}, {rule}"

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.conflicts, *self.limits)


def roll_up(base: tuple[str, str | None] | None, sources: Iterable[tuple[str, str | None]]) -> RollUp:
    """Return the strictest licence of a base model, where one was given, and of the data that trained.

    Each is (what to call it, the text of its licence). Unknown wins over all, as it may be the strictest.
    """
    start = [(base[0], read_licence(base[1]))] if base else []
    data = [(name, read_licence(text)) for name, text in sources]
    members = [*start, *data]
    top = max((licence.strictness for _, licence in members), default=Strictness.UNKNOWN)
    strictest = tuple(member for member in members if member[1].strictness == top)
    conflicts = _conflicts(members, top)
    chosen = _newest([licence.id for _, licence in strictest]) if strictest else "unknown"
    name = None
    if top != Strictness.UNKNOWN and conflicts:
        chosen, name = "other", "conflicting-licences"
    elif chosen == "other":
        name = strictest[0][1].text
    return RollUp(
        id=chosen,
        name=name,
        strictest=strictest,
        duties=tuple(dict.fromkeys(duty for _, licence in members for duty in licence.duties)),
        conflicts=conflicts,
        limits=_limits(start, data),
        unknown=tuple(name for name, licence in members if licence.strictness == Strictness.UNKNOWN),
        base=base[0] if base else None,
    )


def _newest(ids: Sequence[str]) -> str:
    """Return the first licence, in the newest version that is among them: share-alike ones allow later versions."""
    stem = ids[0].rstrip("0123456789.")
    return max(each for each in ids if each.rstrip("0123456789.") == stem)


def _conflicts(members: Sequence[tuple[str, Licence]], top: Strictness) -> tuple[str, ...]:
    """Name a pair for each two licences that both want to be kept, that each bring terms of their own, or where one of
    them forbids what another adds.
    """
    found = {}
    keeping = {licence.family: (name, licence) for name, licence in reversed(members) if licence.family}
    families = sorted(filter(None, keeping))
    for first, second in itertools.pairwise(families):
        pair = " and ".join(f"{name} ({licence.id})" for name, licence in (keeping[first], keeping[second]))
        found[first] = f"{pair} each ask that what is made from them keeps their own licence."
    free = [family for family in families if keeping[family][1].strictness == Strictness.SHARE_ALIKE]
    above = top if Strictness.SHARE_ALIKE < top < Strictness.UNKNOWN else None
    stricter = next(((name, licence) for name, licence in members if licence.strictness == above), None)
    if free and stricter and stricter[1].family is None:
        name, licence = keeping[free[0]]
        found[""] = (
            f"{name} ({licence.id}) forbids further restrictions on what is made from it, and {stricter[0]} "
            f"({stricter[1].text}) brings some."
        )
    own: dict[str, str] = {}
    for name, licence in members:
        if licence.strictness == Strictness.CUSTOM:
            own.setdefault(licence.text.casefold(), f"{name} ({licence.text})")
    if len(own) > 1:
        pair = " and ".join(list(own.values())[:2])
        found["custom"] = f"{pair} each have terms of their own, and what is made from both must follow both."
    return tuple(found.values())


def _limits(start: Sequence[tuple[str, Licence]], data: Sequence[tuple[str, Licence]]) -> tuple[str, ...]:
    """Say where data forbid a use that the base model allows."""
    allowed = start[0][1] if start else read_licence("cc0-1.0")
    above = [
        member for member in data if Strictness.SHARE_ALIKE < member[1].strictness < Strictness.UNKNOWN
        and member[1].strictness > allowed.strictness
    ]  # fmt: skip
    what = {
        Strictness.NON_COMMERCIAL: "may not be used commercially",
        Strictness.RESTRICTED: "may not be changed and passed on, or serves research only",
        Strictness.CUSTOM: "has terms of its own",
    }
    less = f"; {start[0][0]} ({allowed.text}) asks for less" if start else ""
    return tuple(f"{name} ({licence.text}) {what[licence.strictness]}{less}." for name, licence in above)


def licence_of(model: ModelSettings) -> str | None:
    """Return the licence of the checkpoint that a run starts from, as settings or the checkpoint's own files say.

    None where neither does, or where it is not here yet. A model that is pretrained here has none of its own.
    """
    if model.licence is not None:
        return model.licence
    if model.facts is not None:
        return model.facts.licence
    return stated(model.path).get("licence") if model.path is not None else None


def stated(path: str) -> dict[str, str]:
    """Return what a checkpoint on this machine says of itself: `licence`, `title` and `base_model`, as far as it does.

    A folder says it in the head of its README.md or in config.json, a GGUF file in its header, a package in its
    metadata. Of a checkpoint that is not here nothing is known. Strangers wrote it, and it goes into a report: it is
    cut to a line without markup, and a whole text in the place of a licence's name counts as terms of its own.
    """
    try:
        place, package = locate(path), package_of(path)
    except DataError:  # the Hub's, or missing, which the base stage reports
        return {}
    found = _stated_by_folder(place) if place.is_dir() else _stated_by_gguf(place)
    if package is not None:
        about = package.metadata.json
        found = {"licence": about.get("license_expression") or about.get("license")} | found
    told = {
        key: shortened(value, "its own terms" if key == "licence" else None)
        for key, value in found.items()
        if isinstance(value, str)
    }
    if not HUB_ID.fullmatch(told.get("base_model", "")):
        told.pop("base_model", None)
    return {key: value for key, value in told.items() if value}


def shortened(text: str, instead: str | None = None) -> str:
    """Return what others wrote as one line without markup; a longer text is cut, or called something else instead."""
    line = visible(" ".join(MARKUP.sub("", text).split()))
    return line if len(line) <= LONGEST else instead or cut(line, LONGEST)


def _stated_by_folder(folder: Path) -> dict[str, Any]:
    card = folder / "README.md"
    head = read_front_matter(card) if card.is_file() else {}
    licence, base = (head.get(key) for key in ("license", "base_model"))
    if isinstance(licence, list):  # all of them hold
        licence = ", ".join(map(str, licence))
    licence = licence or config_of(folder).get("license")
    if licence == "other" and head.get("license_name"):
        licence = head["license_name"]
    base = base[0] if isinstance(base, list) and base else base
    return {"licence": licence, "title": head.get("model_name"), "base_model": base}


def _stated_by_gguf(file: Path) -> dict[str, Any]:
    header = read_gguf(file).metadata
    address = HUB_ADDRESS.match(str(header.get("general.base_model.0.repo_url")))
    found = {"title": header.get("general.name"), "base_model": address[1] if address else None}
    return found | ({"licence": header["general.license"]} if header.get("general.license") else {})
