"""Find a file that a block reads besides rows, such as a model: below the data folder, and nowhere else.

Usage: `path = data_file(context, "models/lid.176.bin", "language.model")`.

Files with rows are found by `common.data.manifest.files.locate`.
"""

from __future__ import annotations

from pathlib import Path

from common.config.blocks import BlockContext
from common.errors import DataError


def data_file(context: BlockContext, name: str, key: str) -> Path:
    """Return the path of a file below the data folder. Raises DataError where it is missing or outside."""
    if context.data is None:
        raise DataError(
            f"{key} is {name}, and this data has no folder that it could be in. Use a data.yaml with files."
        )
    home = context.data.resolve()
    path = (home / name).resolve()
    if not path.is_relative_to(home):
        raise DataError(f"{key} is {name}, which leaves the data folder {context.data}. Copy the file into the folder.")
    if not path.is_file():
        raise DataError(f"{key} is {name}, and {context.data} has no such file. Put it there, or correct the name.")
    return path
