"""Measured training speeds of this machine, as a share of the estimate: a small file next to the artifacts.

Usage: `corrections = Corrections(out)`; `corrections.share(pace)`; `corrections.note(pace, estimated=2.0, seen=1.5)`.

The first steps of a training are measured (`common.cost.pace`); later plans of the same stage kind, model and machine
take that speed, and of another model or kind on the machine the median of what is known. It says nothing about results
and enters no fingerprint.
"""

from __future__ import annotations

import datetime
import json
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path

from common.store.artifacts import write_json

logger = logging.getLogger(__name__)
NAME = "speeds.json"
SEPARATOR = " | "


@dataclass(frozen=True)
class Pace:
    """What a speed belongs to."""

    kind: str
    peft: str
    precision: str
    parameters: int
    hardware: str
    processes: int = 1

    @property
    def key(self) -> str:
        machine = (self.hardware, f"{self.processes} processes")
        return SEPARATOR.join((*machine, self.kind, self.peft, self.precision, f"{self.parameters} parameters"))

    def is_near(self, key: str) -> bool:
        """Whether a key is of the same machine and number of processes."""
        return key.startswith(SEPARATOR.join((self.hardware, f"{self.processes} processes")) + SEPARATOR)


class Corrections:
    """The file's contents; one that cannot be read counts as none, with a warning."""

    def __init__(self, out: Path) -> None:
        self.path = out / NAME
        self._shares = self._read()

    def share(self, pace: Pace) -> float | None:
        """Return the measured speed over the estimated one, or that of near paces; None where none is known."""
        if pace.key in self._shares:
            return self._shares[pace.key]
        near = [share for key, share in self._shares.items() if pace.is_near(key)]
        return statistics.median(near) if near else None

    def note(self, pace: Pace, *, estimated: float, seen: float) -> None:
        """Record the seconds of a step, estimated and measured; the last record counts."""
        self._shares = {**self._read(), pace.key: round(estimated / seen, 6)}  # another run may have written meanwhile
        self.path.parent.mkdir(parents=True, exist_ok=True)
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_json(self.path, {"schema": 1, "changed": day, "speed over reckoned": self._shares})

    def _read(self) -> dict[str, float]:
        if not self.path.is_file():
            return {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))["speed over reckoned"]
            shares = {str(key): float(share) for key, share in found.items()}
            if not all(0 < share < float("inf") for share in shares.values()):
                raise ValueError("a speed is no positive number")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s cannot be read (%s); plans use estimated speeds until it is replaced", self.path, error)
            return {}
        return shares
