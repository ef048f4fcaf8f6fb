"""What a preview shows of training rows: tokens with what they carry, documents, rows, and the accounts of sources.

Usage: `part = Part("faq", tokens_of(tokenizer, ids, reasons))`; `part.num_learned`; `shown(token.text)`.

It holds what is shown, whatever shows it: `common.cli.preview` in a terminal, `common.report.preview_page` as a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.data.accounting import RowCount
from common.errors import visible
from common.models.pieces import pieces_of
from common.system.secrets import hide

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Why a token carries no loss; "" where it does.
NOT_ASSISTANT = "not the assistant's turn"
OTHERWISE = "not the assistant's turn, or an answer that the template writes otherwise here"
CONTEXT = "an answer that is context only"
FIRST = "first of its document, which nothing precedes"
PROMPT = "prompt"
PADDING = "padding"
NO_LOSS = "no loss on tokens"
HIDDEN = "a secret is hidden, so that tokens are not told apart"

BLANKS = {" ": "·", "\t": "→", "\u00a0": "⍽", "\r": "␍"}
LINE_END = "⏎"


@dataclass(frozen=True)
class Token:
    """One token, or several that share a character."""

    text: str  # as somebody else wrote it
    ids: tuple[int, ...]
    special: bool
    why: str  # why it carries no loss; "" where it does

    @property
    def learned(self) -> bool:
        return not self.why


@dataclass(frozen=True)
class Part:
    """Tokens with a heading: a document of a packed row, a prompt, or an answer."""

    title: str
    tokens: tuple[Token, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(len(token.ids) for token in self.tokens)

    @property
    def num_learned(self) -> int:
        return sum(len(token.ids) for token in self.tokens if token.learned)

    def masked(self) -> dict[str, int]:
        """Return how many tokens carry no loss, by the reason."""
        found: dict[str, int] = {}
        for token in self.tokens:
            if token.why:
                found[token.why] = found.get(token.why, 0) + len(token.ids)
        return found


@dataclass(frozen=True)
class View:
    """One row as it is trained on: what is packed in it, and the padding behind."""

    title: str
    parts: tuple[Part, ...]
    padding: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.parts)

    @property
    def num_learned(self) -> int:
        return sum(part.num_learned for part in self.parts)

    def masked(self) -> dict[str, int]:
        """Return how many positions carry no loss, by the reason."""
        found: dict[str, int] = {}
        for reason, number in [pair for part in self.parts for pair in part.masked().items()]:
            found[reason] = found.get(reason, 0) + number
        return found | ({PADDING: self.padding} if self.padding else {})


@dataclass(frozen=True)
class Reject:
    """A row that was left out."""

    source: str
    reason: str
    text: str


@dataclass(frozen=True)
class Preview:
    """Some rows of a stage, and the accounts of all."""

    title: str
    views: tuple[View, ...]
    counts: tuple[RowCount, ...]
    learned: dict[tuple[str, str], int]  # tokens with loss by role and source
    rejects: tuple[Reject, ...] = ()
    notes: tuple[str, ...] = ()

    def examples(self, source: str, reason: str) -> list[str]:
        """Return the texts of some rows of a source that were left out for a reason."""
        return [one.text for one in self.rejects if (one.source, one.reason) == (source, reason)]


def tokens_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], why: Sequence[str]) -> tuple[Token, ...]:
    """Return tokens to show; `why` has the reason of each id. Ids of one character that differ in it carry loss."""
    found, place = [], 0
    for piece in pieces_of(tokenizer, ids):
        reasons = why[place : place + len(piece.ids)]
        found.append(Token(piece.text, piece.ids, piece.special, "" if "" in reasons else reasons[0]))
        place += len(piece.ids)
    return tuple(found)


def without_secrets(part: Part) -> Part:
    """Return a part to show; one with a secret, which may lie across tokens, as one text without it."""
    whole = "".join(token.text for token in part.tokens)
    if hide(whole) == whole:
        return part
    ids = tuple(one for token in part.tokens for one in token.ids)
    return replace(part, tokens=(Token(hide(whole), ids, False, HIDDEN),))


def shown(text: str) -> list[str]:
    """Return a token's text in lines, with blanks and line ends as signs, and escapes for all that moves a cursor."""
    *lines, last = text.split("\n")
    return [_signs(line) + LINE_END for line in lines] + [_signs(last)]


def _signs(line: str) -> str:
    return visible("".join(BLANKS.get(character, character) for character in line))


def rows_of_table(preview: Preview) -> tuple[list[str], list[list[str]]]:
    """Return the accounts of all rows as a table: its header, a row for each source, and their sum."""
    header = ["source", "role", "rows", "dropped", "changed", "truncated", "masked", "tokens", "with loss", "passes"]
    found = [
        [count.rows_in, count.num_dropped, sum(count.changed.values()), count.truncated, count.num_masked, count.tokens]
        for count in preview.counts
    ]
    rows = [
        [f"{count.source}{', read again' if count.again else ''}", count.role, *(f"{number:,}" for number in numbers),
         _learned(preview, count), count.passes]
        for count, numbers in zip(preview.counts, found, strict=True)
    ]  # fmt: skip
    if len(rows) > 1:
        sums = [sum(column) for column in zip(*found, strict=True)]
        learned = _share(sum(preview.learned.values()), sums[-1])
        rows.append(["all", "", *(f"{number:,}" for number in sums), learned, ""])
    return header, rows


def _learned(preview: Preview, count: RowCount) -> str:
    """Return the tokens with loss of an account: about its part of those of the source, where that has another one."""
    source = (count.role, count.source)
    tokens = sum(other.tokens for other in preview.counts if (other.role, other.source) == source)
    found = _share(round(preview.learned.get(source, 0) * count.tokens / max(1, tokens)), count.tokens)
    return found if tokens == count.tokens else f"~{found}"


def _share(learned: int, tokens: int) -> str:
    return f"{learned:,} ({learned / tokens:.1%})" if tokens else "0"
