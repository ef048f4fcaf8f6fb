"""How the program was called: through `just` in a clone of the repository, or as the installed command in any folder.

Usage: `program = of_module()`; `program.say(message)` names the command that the user has.

Shipped files stand in REPOSITORY, which is a clone or the folder of an installed package. Results go to
`program.results`, which is never the latter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = "domain-recipes"
OURS = re.compile(r"`just (?!setup|test|check|bench)")  # those four are for work on the code, in a clone


@dataclass(frozen=True)
class Program:
    """The command as its user types it, and where results go when `out` is not set."""

    command: str
    results: Path

    @property
    def in_clone(self) -> bool:
        return self.results == REPOSITORY

    def say(self, text: str) -> str:
        """Return a message of the lower rooms, which name the clone's command, with the one that the user has."""
        return text if self.command == "just" else OURS.sub(f"`{self.command} ", text)


IN_CLONE = Program("just", REPOSITORY)


def of_module() -> Program:
    """Return the program for `python -m common`, which is what `just` runs; an installed package has no Justfile."""
    return IN_CLONE if (REPOSITORY / "Justfile").is_file() else installed()


def installed() -> Program:
    """Return the program for the installed command: results go to the current folder."""
    return Program(INSTALLED, Path.cwd())
