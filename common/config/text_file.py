"""Read a text file that anyone may have written: a regular file of a bounded size, in UTF-8.

Usage: `text = read_text_file(Path("data.yaml"), largest=2**24)`.

What the text means is for `common.config.yaml` and `common.config.json`. Files of data have readers of their own, which
find out an encoding and hold a row at a time.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import DataError
from common.system.files import open_regular

MIB = 2**20


def read_text_file(path: Path, *, largest: int) -> str:
    """Return the text of a file, without a byte order mark.

    Raises DataError: missing, no regular file, of more than `largest` bytes, not UTF-8.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(largest + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > largest:
        raise DataError(f"{path}: is larger than {largest // MIB} MiB, the most that is read of such a file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
