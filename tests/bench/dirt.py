"""Make clean documents dirty in known ways, each with a known share: what a benchmark of cleaning cleans.

Usage: `dirty = soiled(documents, foreign, seed=0)`; `KINDS` says which block each kind of dirt is for.

Shares are of the clean documents. Nothing of the clean text is lost: dirt changes documents or adds others. Two thirds
of the result are dirt; of a crawl of the web more is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Make = Callable[[str, random.Random], str]
COPIES = 20  # of a document that is repeated: few are, and often, as pages of a crawl
_HEAD = ("Home | About us | Contact | Sitemap | Privacy policy", "Skip to main content")
_FOOT = (
    "We use cookies to improve your visit. Accept all cookies or manage cookies.",
    "Subscribe to our newsletter and follow us on Facebook.",
    "\u00a9 Copyright, all rights reserved.",
    "Page 3 of 10",
)
_JUNK = ("Page not found", "Read more", "Loading, please wait", "Item 4 of 12", "No comments yet", "untitled document")
_PERSON = (
    "For questions write to {name}@{host} or call {phone}.",
    "Sent by {name} from {ip}, account {iban}, {phone}.",
    "Contact: {name}@{host}, telephone {phone}.",
)
_TYPOGRAPHIC = str.maketrans({"'": "\u2019", '"': "\u201d", "-": "\u2013"})


class Kind(NamedTuple):
    """One kind of dirt: how many documents, as a share of the clean ones, and the blocks that are made for it."""

    share: float
    blocks: tuple[str, ...]


KINDS = {
    "exact copies": Kind(0.40, ("exact", "minhash")),
    "near copies": Kind(0.40, ("minhash",)),
    "other languages": Kind(0.80, ("language",)),
    "repeated phrases": Kind(0.40, ("gopher_repetition",)),
    "short junk": Kind(1.00, ("length", "gopher_quality")),
    "boilerplate lines": Kind(0.70, ("boilerplate", "repeated_lines")),
    "mojibake": Kind(0.30, ("unicode",)),
    "personal data": Kind(0.30, ("pii",)),
}


def mojibake(text: str, _: random.Random) -> str:
    """The text with typographic signs, read as another encoding than it was written in."""
    import ftfy  # noqa: F401  (it brings the codec, which leaves no byte out)

    return text.translate(_TYPOGRAPHIC).encode().decode("sloppy-windows-1252")


def nearly(text: str, rng: random.Random) -> str:
    """The text with one word in a hundred left out."""
    words = text.split(" ")
    gone = set(rng.sample(range(len(words)), max(1, len(words) // 100)))
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def with_lines(text: str, rng: random.Random) -> str:
    """The text as a page of a site has it: a menu above, notices below."""
    return "\n".join([*_HEAD, text, *rng.sample(_FOOT, 3)])


def with_person(text: str, rng: random.Random) -> str:
    """The text with a line of somebody's addresses and numbers at its end."""
    name = "".join(rng.choices("abcdefghiklmnoprstu", k=7))
    digits = "".join(rng.choices("0123456789", k=18))
    sentence = rng.choice(_PERSON).format(
        name=name, host=f"{name[::-1]}.com", phone=f"+49 30 {digits[:4]} {digits[4:8]}",
        ip=f"{rng.randrange(11, 90)}.{rng.randrange(1, 250)}.{rng.randrange(1, 250)}.{rng.randrange(1, 250)}",
        iban=_iban(digits),
    )  # fmt: skip
    return f"{text}\n{sentence}"


def _iban(digits: str) -> str:
    """A German account number with the check digits that belong to it (ISO 13616)."""
    check = 98 - int(f"{digits}131400") % 97
    return f"DE{check:02d}{digits}"


def repeated(text: str, rng: random.Random) -> str:
    """A few words of the text, again and again."""
    words = text.split()
    first = rng.randrange(max(1, len(words) - 8))
    return " ".join(words[first : first + 8] * 25)


def soiled(clean: Sequence[str], foreign: Sequence[str], seed: int) -> list[str]:
    """Return the clean documents with all kinds of dirt, in a shuffled order."""
    rng = random.Random(f"dirt {seed}")

    def drawn(kind: str, copies: int = 1) -> list[str]:
        return rng.sample(clean, min(len(clean), round(KINDS[kind].share * len(clean) / copies))) * copies

    documents = list(clean)
    changes: tuple[tuple[str, Make], ...] = (
        ("mojibake", mojibake),
        ("personal data", with_person),
        ("boilerplate lines", with_lines),
    )
    for kind, change in changes:
        for place in rng.sample(range(len(documents)), round(KINDS[kind].share * len(documents))):
            documents[place] = change(documents[place], rng)
    documents += drawn("exact copies", COPIES)
    documents += [nearly(text, rng) for text in drawn("near copies", COPIES)]
    documents += rng.sample(foreign, min(len(foreign), round(KINDS["other languages"].share * len(clean))))
    documents += [repeated(text, rng) for text in drawn("repeated phrases")]
    documents += [
        f"{rng.choice(_JUNK)} {rng.randrange(10_000)}" for _ in range(round(KINDS["short junk"].share * len(clean)))
    ]
    rng.shuffle(documents)
    return documents
