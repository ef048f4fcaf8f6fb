"""What is known of a model's growth, as data beside its weights, so that every later stage of the chain finds it.

Usage: `write_growth(folder, growth)`; `growth_of(folder)`, None where nothing has grown; `carry(parent, folder)`.

The file is ours and no part of the model: another program loads the folder without it.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config.json import as_written, read_json
from common.store.artifacts import write_json

FILE = "growth.json"


@dataclass(frozen=True)
class Growth:
    """The last growth of a model."""

    stage: str
    method: str
    added: tuple[int, ...]  # places of the layers that it added; none where it added no layers of their own
    layers: int  # of the grown model
    parameters_before: int
    parameters: int
    difference: float  # of logits before and after, as a share of the largest one
    preserving: bool  # whether the method promises the same logits

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "added": list(self.added)}


def write_growth(folder: Path, growth: Growth) -> None:
    write_json(folder / FILE, growth.as_dict())


def growth_of(folder: Path) -> Growth | None:
    """Return what a stage result says of its growth."""
    path = folder / FILE
    if not path.is_file():
        return None
    with as_written(path):
        found = read_json(path, strict=False)
        return Growth(**{**found, "added": tuple(int(place) for place in found["added"])})


def forget(folder: Path) -> None:
    """Remove what is known of a growth that is undone."""
    (folder / FILE).unlink(missing_ok=True)


def carry(parent: Path, folder: Path) -> None:
    """Copy what is known of the parent's growth: a stage that trains changes no shape."""
    if (parent / FILE).is_file():
        shutil.copyfile(parent / FILE, folder / FILE)
