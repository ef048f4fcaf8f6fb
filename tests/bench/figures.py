"""A part of `just gpu` and the figures that it finds.

Usage: `Figure("ours against stock TRL", 1.42, "x", at_least=1.3).line(judged=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class SkippedError(Exception):
    """A part cannot run here, and that is no failure of it."""


@dataclass(frozen=True)
class Figure:
    """One number, with the aim that it has on a GPU. Shares are in parts of 1."""

    what: str
    found: float
    unit: str = ""  # `share` is shown in percent
    at_least: float | None = None
    within: float | None = None  # of zero, on both sides

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        if self.at_least is not None:
            return self.found >= self.at_least
        return None if self.within is None else abs(self.found) <= self.within

    def line(self, *, judged: bool) -> str:
        """Return the figure in a line of its own, with its aim if it is `judged`."""
        text = f"{self.what:<46} {self._shown(self.found):>16}"
        if not judged or self.reached is None:
            return text
        aim = f">= {self._shown(self.at_least)}" if self.at_least is not None else f"within {self._shown(self.within)}"
        return f"{text}   {aim:<16} {'reached' if self.reached else 'MISSED'}"

    def _shown(self, value: float | None) -> str:
        assert value is not None
        if self.unit == "share":
            return f"{value:.1%}"
        digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{digits} {self.unit}".rstrip()


@dataclass(frozen=True)
class Part:
    """Something that is measured by itself."""

    name: str
    run: Callable[[str, Path], list[Figure]]  # of a device and an empty folder
    seconds: float  # that it may take where it has not run before; those of a GPU are guesses
