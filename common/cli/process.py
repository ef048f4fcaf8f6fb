"""What a command that runs stages sets up in its process: how loud its log is, and how it ends.

Usage: `set_logging(console)`; `with clean_exit(): execute(resolved, console)`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from common.console import Console, LogFormatter


def set_logging(console: Console) -> None:
    level = {"quiet": logging.ERROR, "normal": logging.WARNING, "verbose": logging.INFO}[console.verbosity]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("  %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("common").setLevel(level)


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """Let the signals of schedulers stop a run as Ctrl-C does, and end the checking process with it."""
    from common.system.signals import signals_restored, stop_on_signals

    with signals_restored():
        stop_on_signals()
        try:
            yield
        finally:
            if fit := sys.modules.get("common.training.fit"):
                fit.clean_process.close()
