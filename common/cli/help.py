"""The text of `--help`: the menu of commands, and what one command does and takes.

Usage: `text = help_for(["run", "--help"], "just")`; None where no help is asked for.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from common.cli.catalogue import COMMANDS, Command
from common.errors import ConfigError, did_you_mean

FLAGS = ("--help", "-h")
WIDEST = 100  # columns; longer lines are harder to read
LOUDNESS = (("-v, verbose", "print log lines too"), ("-q, quiet", "print the result only"))


def help_for(arguments: Sequence[str], program: str) -> str | None:
    """Return the help that a command line asks for. Raises ConfigError for a command that does not exist."""
    if not arguments or list(arguments) in (["help"], *([flag] for flag in FLAGS)):
        return menu(program)
    command, *rest = arguments
    if command == "help":
        command = rest[0]
    elif not any(flag in rest for flag in FLAGS):
        return None
    if command not in COMMANDS:
        raise ConfigError(f"There is no command '{command}'.{did_you_mean(command, COMMANDS)}")
    return command_help(command, COMMANDS[command], program)


def menu(program: str) -> str:
    """Return the commands with a line each."""
    lines = [
        f"{program} <command> [key=value …]", "",
        "Takes a language model from a domain's data to a published specialist.", "",
        *_table((name, command.summary) for name, command in COMMANDS.items()),
        "", f"{program} <command> --help shows what a command takes. Start with: {program} run domain=medical",
    ]  # fmt: skip
    return "\n".join(lines)


def command_help(name: str, command: Command, program: str) -> str:
    """Return what a command does, every option and setting that it takes, and examples."""
    needed = [f"{key}=<{key}>" for key, option in command.options.items() if option.needed]
    others = len(needed) < len(command.options) or command.settings
    lines = [" ".join([program, name, *needed, *(["[key=value …]"] if others else [])]), "", *_wrapped(command.does)]
    if command.options:
        lines += ["", "Options", *_table((f"{key}=", option.meaning) for key, option in command.options.items())]
    if command.settings:
        lines += ["", "Settings of the run", *_table((f"{key}=", text) for key, text in command.settings.items())]
        lines += _table(LOUDNESS)
    lines += ["", "Examples", *(f"  {program} {name} {example}".rstrip() for example in command.examples)]
    return "\n".join(lines)


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return rows of a key and its meaning, wrapped under each other."""
    rows = list(rows)
    width = max(20, *(len(key) for key, _ in rows))
    lines = []
    for key, meaning in rows:
        first, *more = _wrapped(meaning, indent=width + 4)
        lines += [f"  {key:<{width}}  {first}", *(" " * (width + 4) + line for line in more)]
    return lines


def _wrapped(text: str, indent: int = 0) -> list[str]:
    columns = min(WIDEST, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, max(30, columns - indent), break_on_hyphens=False)
