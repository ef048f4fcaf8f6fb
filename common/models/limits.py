"""Use a checkpoint's chat template and tokenizer, which others programmed, within limits of time and memory.

Usage: `text = apply_template(tokenizer, messages, add_generation_prompt=True)`;
`ids = in_time(tokenizer, encode, texts)`.

What a conversation is before and after is `common.models.rendering`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import DataError, first_line
from common.models.boundary import is_panic, reason_of
from common.system.limited import Exceeded, limited, working

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Result = TypeVar("Result")
SECONDS = 5.0  # of the processor for one conversation, which usually takes a thousandth of one
MEMORY = 2**31  # bytes; the longest line that is read makes a fourth of that
PATIENCE = 20.0  # seconds of the processor for a text of any length
SLOWEST = 20_000  # characters in a second; a tokenizer that is written in Python reads ten times as many
TRYING = ("The quick brown fox jumps over the lazy dog.\n", *(f"{sign * 2000}." for sign in " \naA0é字!"))
# By which Python stops a template on its way.
STOPPED = (TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError)


class Refused(Exception):
    """A template refuses a conversation; the text is its reason."""

    line: int | None = None  # of the template


def apply_template(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """Return a conversation as text. Raises Refused, and DataError for a template that does not end.

    Templates refuse by an error of their own, as for roles that do not alternate.
    """
    from jinja2 import TemplateError

    try:
        with within_limits(tokenizer, len(messages)):
            return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))
    except DataError:
        raise
    except (TemplateError, *STOPPED) as error:
        refused = Refused(first_line(error))
        refused.line = getattr(error, "lineno", None)
        raise refused from error


@contextlib.contextmanager
def within_limits(tokenizer: PreTrainedTokenizerBase, turns: int) -> Iterator[None]:
    """Limit what a template may use for a conversation of so many turns. Raises DataError."""
    try:
        with limited(SECONDS, MEMORY):
            yield
    except Exceeded as limit:
        raise DataError(
            f"The chat template of {tokenizer.name_or_path} was stopped: it used more than {limit} for a conversation "
            f"of {turns} turn{'s' if turns != 1 else ''}. Correct it, or set model.chat_template=plain (or chatml)."
        ) from None


def try_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Tokenise what makes patterns explode, before anything is spent. Raises DataError as `in_time` does."""
    with _quiet():
        in_time(tokenizer, lambda: tokenizer(list(TRYING), add_special_tokens=False), TRYING)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the screen what a library in Rust prints by itself when it fails."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def in_time(tokenizer: PreTrainedTokenizerBase, read: Callable[[], Result], texts: Sequence[str]) -> Result:
    """Return what a tokenizer makes of texts. Raises DataError where its patterns take for ever, or give up."""
    characters = sum(map(len, texts))
    try:
        return working(read, PATIENCE + characters / SLOWEST)
    except Exceeded as limit:
        reason = f"takes more than {limit}"
    except BaseException as error:
        if not is_panic(error):  # as where a pattern needs too long
            raise
        reason = f"fails ({reason_of(error)})"
    raise DataError(
        f"The tokenizer of {tokenizer.name_or_path} {reason} at {len(texts)} text{'s' if len(texts) != 1 else ''} of "
        f"{characters:,} characters. Correct the patterns in its tokenizer.json, or take another checkpoint."
    )
