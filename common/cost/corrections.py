"""Measured training speeds of this machine, as a share of the estimate: a small file next to the artifacts.

Usage: `corrections = Corrections(out)`; `corrections.share(pace)`; `corrections.note(pace, estimated=2.0, seen=1.5)`.

The steps of a training are measured (`common.cost.pace`), and later plans of the same stage kind, model and machine
take that speed. Others that are near take the median of what is known: the same machine, precision, kind of adapter and
class of trainer, and a model of similar size. It says nothing about results and enters no fingerprint.
"""

from __future__ import annotations

import datetime
import logging
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from common.config.json import UNREADABLE, read_json
from common.config.kinds import kind_of, kinds
from common.store.artifacts import write_json

logger = logging.getLogger(__name__)
NAME = "speeds.json"
SCHEMA = 2  # files of schema 1 also hold measurements of a few steps, and count as none
SEPARATOR = " | "
NEAR = 3.0  # times as many parameters a model may have, or as few, to take another one's speed
MOST = 5.0  # times as fast as estimated, or as slow; more says that something else was measured


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
        """Whether what was measured under a key also says something of this."""
        hardware, processes, kind, peft, precision, size = key.split(SEPARATOR)
        parameters = int(size.split()[0])
        return (
            (hardware, processes, peft, precision)
            == (self.hardware, f"{self.processes} processes", self.peft, self.precision)
            and _trainer(kind) == _trainer(self.kind)
            and max(parameters, self.parameters) <= NEAR * min(parameters, self.parameters)
        )


def _trainer(kind: str) -> str:
    """Return the class that trains a kind of stage; a kind that is gone has one of its own."""
    return getattr(kind_of(kind).settings, "trainer", kind) if kind in kinds() else kind


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
        share = min(max(estimated / seen, 1 / MOST), MOST)
        self._shares = {**self._read(), pace.key: round(share, 6)}  # another run may have written meanwhile
        self.path.parent.mkdir(parents=True, exist_ok=True)
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_json(self.path, {"schema": SCHEMA, "changed": day, "speed over estimated": self._shares})

    def _read(self) -> dict[str, float]:
        if not self.path.is_file():
            return {}
        try:
            found = read_json(self.path)
            if found["schema"] == 1:
                return {}
            shares = {str(key): float(share) for key, share in found["speed over estimated"].items()}
            if not all(1 / MOST <= share <= MOST for share in shares.values()):
                raise ValueError(f"a speed is not between 1/{MOST:g} and {MOST:g} of the estimate")
            if not all(re.fullmatch(r"([^|]+ \| ){5}[1-9]\d* parameters", key) for key in shares):
                raise ValueError("a key does not name machine, processes, kind, adapter, precision and parameters")
        except UNREADABLE as error:
            logger.warning("%s cannot be read (%s); plans use estimated speeds until it is replaced", self.path, error)
            return {}
        return shares
