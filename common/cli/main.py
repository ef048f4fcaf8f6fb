"""The command line: a command and `key=value` overrides.

Usage: `python -m common run domain=medical cpt.train.learning_rate=1e-3`, usually through `just`; the installed
command is `domain-recipes`.

It reads the command line, prints errors and chooses the exit code. The commands are `common.cli.commands`.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

from common import __version__
from common.cli.catalogue import COMMANDS
from common.cli.help import help_for
from common.cli.program import Program, installed, of_module
from common.config.overrides import parse
from common.console import Console
from common.errors import RecipeError, quoted


def main(arguments: Sequence[str], program: Program | None = None) -> int:
    """Run a command and return its exit code.

    0; 1 for a user's mistake; 130 when stopped by hand; 75 when a scheduler's signal stopped it and it may go on later.
    """
    program = program or of_module()
    # Set before any numeric library loads: threads that spin long while they wait make a shared machine crawl. About as
    # long as it takes to sleep and wake costs little on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    from common.engine.launch import TEMPORARY, enter, report

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's encoding lacks is written as an escape
            stream.reconfigure(errors="backslashreplace")
    errors = Console(stream=sys.stderr)
    enter()
    try:
        text = f"domain-recipes {__version__}" if list(arguments) == ["--version"] else None
        text = text or help_for(arguments, program.command)
        if text is not None:
            Console().lines(text)
            return 0
        name, overrides = parse(arguments, COMMANDS)
        own, settings = COMMANDS[name].split(name, overrides)
        COMMANDS[name].run(program, settings, **own)
    except RecipeError as error:
        if not report(error):
            errors.lines(f"error: {program.say(str(error))}")
        return 1
    except KeyboardInterrupt as stop:
        errors.lines("\nStopped. Finished stages are kept. The same command continues where this one stopped.")
        return 130 if getattr(stop, "signum", signal.SIGINT) == signal.SIGINT else TEMPORARY
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # wherever the name came from
            errors.lines(f"error: {error.strerror}: {quoted(str(error.filename))}. Give a shorter one.")
            return 1
        if not isinstance(error, BrokenPipeError):
            report(error)
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        report(error)
        raise
    return 0


def console_main() -> int:
    """Run the installed command `domain-recipes`, in whatever folder it is called."""
    return main(sys.argv[1:], installed())
