"""The boundary to the libraries that read a checkpoint: whatever they raise on a stranger's files is one sentence here.

Usage: `with explain_loading("tokenizer of", folder): AutoTokenizer.from_pretrained(folder)`.

A file can break a library anywhere: tokenizers raises plain Exceptions, and its Rust code panics; transformers trips
over values that it never checked. An error that our own code raises there is a bug of ours and stays as it is.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from common.errors import DataError, RecipeError, cut

OURS = Path(__file__).parents[1]
COPY_AGAIN = "Copy or download it again."
LONGEST = 240  # characters of what a library says


@contextlib.contextmanager
def explain_loading(name: str, folder: Path) -> Iterator[None]:
    """Turn what a library, or code that came with a checkpoint, raises into a DataError that names the folder.

    That the memory is full stays what it is: more than the files may be the cause.
    """
    try:
        yield
    except BaseException as error:
        if not is_foreign(error):
            raise
        raise DataError(f"The {name} {folder} cannot be loaded: {reason_of(error)}. {COPY_AGAIN}") from error


@contextlib.contextmanager
def explain_panics(what: str) -> Iterator[None]:
    """Turn a panic of tokenizers, which no `except Exception` sees, into a DataError: a text breaks its patterns."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise DataError(
            f"{what}: the tokenizer fails on a text ({reason_of(error)}). Take another checkpoint, or drop such rows."
        ) from error


def is_panic(error: BaseException) -> bool:
    """Whether the Rust code of a library gave up, which is no Exception."""
    return type(error).__name__ == "PanicException"


def is_foreign(error: BaseException) -> bool:
    """Whether an error comes from a library or a file, and is neither of ours nor a signal nor a lack of memory."""
    if is_panic(error):
        return True
    if not isinstance(error, Exception) or isinstance(error, RecipeError | MemoryError):
        return False
    if type(error).__name__ == "OutOfMemoryError":  # of torch
        return False
    compiled = type(error) is Exception or type(error).__module__ != "builtins"  # has no frame of its own
    return compiled or isinstance(error, OSError) or not _is_raised_here(error)


def _is_raised_here(error: BaseException) -> bool:
    """Whether an error was raised by our own code, and not in a library that it called."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and Path(frames[-1].f_code.co_filename).is_relative_to(OURS)


def reason_of(error: BaseException) -> str:
    """Return what a library says, in one line of bounded length, with the kind of error where it says little."""
    said = " ".join(str(error).split()).rstrip(".")
    said = said if said and not isinstance(error, KeyError) else f"{type(error).__name__} {said}".rstrip()
    return cut(said, LONGEST)
