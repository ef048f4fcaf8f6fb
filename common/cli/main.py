"""The command line: a command and `key=value` overrides.

Usage: `python -m common run domain=medical cpt.train.learning_rate=1e-3`, usually through `just`; the installed
command is `domain-recipes`.

It reads the command line, prints errors and chooses the exit code. The commands are `common.cli.commands`. All else is
imported within, so that a signal finds its handler from the first moment on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import __version__
from common.console import Console
from common.errors import ConfigError, RecipeError, StoreError, quoted
from common.system import signals

if TYPE_CHECKING:
    from common.cli.program import Program

NO_TEMPORARY = "No usable temporary directory"  # Python's words


def main(arguments: Sequence[str], program: Program | None = None) -> int:
    """Run a command and return its exit code.

    0; 1 for a user's mistake; 130 when stopped by hand; 75 when a scheduler's signal stopped it and it may go on later.
    """
    # Set before any numeric library loads: threads that spin long while they wait make a shared machine crawl. About as
    # long as it takes to sleep and wake costs little on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's encoding lacks is written as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        from common.cli.catalogue import COMMANDS
        from common.cli.help import help_for
        from common.cli.program import of_module
        from common.config.overrides import parse
        from common.engine.launch import enter

        program = program or of_module()
        enter()
        text = f"domain-recipes {__version__}" if list(arguments) == ["--version"] else None
        text = text or help_for(arguments, program.command)
        if text is not None:
            Console().lines(text)
            return 0
        name, overrides = parse(arguments, COMMANDS)
        own, settings = COMMANDS[name].split(name, overrides)
        COMMANDS[name].run(program, settings, **own)
    except KeyboardInterrupt as stop:
        signals.say_stopped()
        return signals.code_of(stop)
    except BrokenPipeError as error:
        if not _is_closed(1):  # then a pipe of our own is meant
            return _failed(error, program)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        return _failed(error, program)
    return 0


def _failed(error: Exception, program: Program | None) -> int:
    """Print a user's mistake, or leave it for the launcher, and return the exit code. Raises whatever is none."""
    from common.engine.launch import report
    from common.store.artifacts import disk_full, is_full

    failure = error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # wherever the name came from
        failure = ConfigError(f"{error.strerror}: {quoted(str(error.filename))}. Give a shorter one.")
    elif isinstance(error, FileNotFoundError) and (error.strerror or "").startswith(NO_TEMPORARY):  # of tempfile
        failure = StoreError(f"{error.strerror}; each is full or read-only. Set TMPDIR to one with room.")
    elif not isinstance(error, RecipeError) and is_full(error):
        named = getattr(error, "filename", None)  # not in the store, as of temporary files
        failure = disk_full(Path(named).parent if isinstance(named, str) else Path(os.environ.get("TMPDIR", "/tmp")))
    if report(failure) and isinstance(failure, RecipeError):
        return 1
    if not isinstance(failure, RecipeError):
        raise failure
    with contextlib.suppress(OSError, RecipeError):  # nobody can read it
        said = str(failure) if program is None else program.say(str(failure))
        Console(stream=sys.stderr).lines(f"error: {said}")
    return 1


def _is_closed(descriptor: int) -> bool:
    """Whether whoever read what this process writes there is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _start(arguments: Sequence[str], *, installed: bool) -> int:
    """Run a command as a program of its own: with its handlers of signals, and whatever streams it was given."""
    signals.is_program = True
    signals.stop_on_signals()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started it; the next file that is opened would stand for it
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
    try:
        from common.cli import program

        code = main(arguments, program.installed() if installed else program.of_module())
    except KeyboardInterrupt as stop:
        code = signals.code_of(stop)
    signals.end_at_once()
    if code in (signals.BY_HAND, signals.TEMPORARY):
        signals.leave(code)
    return code


def module_main() -> int:
    """Run `python -m common`, which is what `just` runs."""
    return _start(sys.argv[1:], installed=False)


def console_main() -> int:
    """Run the installed command `domain-recipes`, in whatever folder it is called."""
    return _start(sys.argv[1:], installed=True)
