"""Token ids as the pieces of text that they stand for: one each, or several where they share a character.

Usage: `for piece in pieces_of(tokenizer, ids): print(piece.text, piece.ids, piece.special)`.

A byte-level tokenizer may split a character; only its tokens together are text. Pieces keep their blanks, and hold what
somebody else wrote: whoever shows them makes them visible first (`common.errors`). It is for reading, not for training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # what a decoder writes for bytes that are no whole character
MOST = 8  # tokens of a character: more are no text, and are shown as they are
ANCHOR = "a"  # is written before a piece, since decoders remove the blank at the beginning of a text


class Piece(NamedTuple):
    """A token, or the tokens that make up one character."""

    text: str
    ids: tuple[int, ...]
    special: bool = False  # a control token, under its name


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Iterator[Piece]:
    """Yield the pieces of some tokens, in order; together they have all of the tokens."""
    named = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    anchor = tuple(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
    before, group = anchor, list[int]()
    for token in ids:
        if token in named:
            if group:
                yield _piece(tokenizer, before, group)
            yield Piece(_name(tokenizer, token), (token,), special=True)
            before, group = anchor, []
            continue
        group.append(token)
        if len(group) < MOST and _text(tokenizer, before, group).endswith(BROKEN):
            continue
        yield _piece(tokenizer, before, group)
        before, group = tuple(group), []
    if group:
        yield _piece(tokenizer, before, group)


def _piece(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], group: Sequence[int]) -> Piece:
    return Piece(_text(tokenizer, before, group) or "".join(_name(tokenizer, one) for one in group), tuple(group))


def _text(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], group: Sequence[int]) -> str:
    """Return what some tokens add to those before them."""
    head, whole = _decoded(tokenizer, before), _decoded(tokenizer, [*before, *group])
    return whole.removeprefix(head) if whole.startswith(head) else _decoded(tokenizer, group)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    found = tokenizer.convert_ids_to_tokens(token)
    return f"<{token}>" if found is None else str(found)
