"""Where the pinned mergekit does something else than a merge within a longer process needs.

Usage: `with quiet_mergekit(), fresh_loaders(): ...`.

As in `common.training.patches`, a test fails when the library no longer needs one of them: remove it then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def fresh_loaders() -> Iterator[None]:
    """Let mergekit open every file again, and close them afterwards.

    mergekit 0.1.5: it keeps open files by path in a class attribute, so a stage that ran again would be read as before.
    """
    from mergekit.io.tasks import LoaderCache

    LoaderCache.loaders.clear()
    try:
        yield
    finally:
        LoaderCache.loaders.clear()


@contextlib.contextmanager
def quiet_mergekit() -> Iterator[None]:
    """Hold back mergekit's log lines below a warning.

    mergekit 0.1.5: it logs through the root logger, where no level of its own can be set, whatever `quiet` says.
    """
    root, before = logging.getLogger(), logging.root.manager.disable
    placeholder = None if root.handlers else logging.NullHandler()  # else logging.info() would add one that prints
    if placeholder:
        root.addHandler(placeholder)
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
        if placeholder:
            root.removeHandler(placeholder)
