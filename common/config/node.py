"""One stage in the graph of a run, as `common.config.pipeline` puts it together.

Usage: `node.name`, `node.inputs`; `resolved.nodes` are all stages of a run in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Node:
    """One stage of the graph; exams, card and publishing are stages too."""

    name: str
    kind: str
    parent: str | None
    inputs: tuple[str, ...]  # names, in pipeline order, the parent among them
    settings: str  # name under which its settings are looked up
    sampled: bool = False  # an input brings answers that were sampled from a checkpoint
    fixed: Mapping[str, Any] = field(default_factory=dict)  # settings that no layer changes
    domain: str = ""  # of a sequence: the domain whose data, settings and exam it has
    names: Mapping[str, str] = field(default_factory=dict)  # what a run of that domain alone calls it and its inputs

    def called(self, name: str) -> str:
        """Return what a run of the stage's domain alone calls it, or one of its inputs."""
        return self.names.get(name, name)

    @property
    def called_parent(self) -> str | None:
        return None if self.parent is None else self.called(self.parent)

    @property
    def stored(self) -> str:
        """The name under which its results are stored, so that equal ones are shared with runs of single domains."""
        return self.called(self.name)
