"""What embedded knowledge offers, whatever its kind: texts, conversations, preference pairs and an exam.

Usage: `for row in loaded.questions(): ...`, for a world that `common.data.knowledge.collection` loads.

Which of them trains which stage is `common.data.knowledge.corpus`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.schema import EmbeddedSettings
from common.data.corpus import Row
from common.data.knowledge.file_problems import Head


@dataclass(frozen=True, eq=False)
class World(ABC):
    """One file of embedded knowledge. Rows do not depend on anything but the file, the settings and the seed."""

    file: Path
    knowledge: Head
    prefix: str = ""  # begins the ids of its questions where it is one part of several

    @property
    @abstractmethod
    def size(self) -> str:
        """What the file holds and how much, for the card."""

    @abstractmethod
    def settings_read(self, *, general: bool) -> Mapping[str, frozenset[str]]:
        """Return the settings that a kind of row depends on: `documents`, `heldout`, `conversations`, `preferences`."""

    @abstractmethod
    def documents(self, settings: EmbeddedSettings, seed: str, *, general: bool, heldout: bool) -> Iterator[Row]:
        """Yield text rows: what continued pre-training reads, or further texts kept for bits per byte."""

    @abstractmethod
    def conversations(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Yield chat rows about the half that fine-tuning may see."""

    @abstractmethod
    def preferences(self, settings: EmbeddedSettings, seed: str, *, taught: bool) -> Iterator[Row]:
        """Yield preference rows about the taught half, or about what the exam asks for."""

    @abstractmethod
    def prompts(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Yield prompts about the half that fine-tuning may see, each with its answer."""

    @abstractmethod
    def questions(self, asked_elsewhere: frozenset[str] = frozenset()) -> Iterator[Row]:
        """Yield the frozen exam; it does not depend on a seed. Probes leave out the names that others ask about."""

    def taught_names(self) -> frozenset[str]:
        """Return the names that conversations ask about."""
        return frozenset()

    def hidden_names(self) -> frozenset[str]:
        """Return names that no conversation or preference pair may hold, since the exam asks about them."""
        return frozenset()

    def source(self) -> dict[str, Any]:
        """Return title, licence, language and where it can be checked, for the card."""
        knowledge = self.knowledge
        places = "; ".join(f"{source.title} ({source.publisher})" for source in knowledge.sources)
        title = f"{knowledge.title}: {self.size} after {places}"
        return {"title": title, "licence": knowledge.licence, "language": knowledge.language}

    def row(self, **columns: Any) -> Row:
        """Return a row with its source and language."""
        return {**columns, "source": f"embedded {self.knowledge.title}", "language": self.knowledge.language}


def user(text: str) -> dict[str, str]:
    """Return one user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """Return one assistant message."""
    return {"role": "assistant", "content": text}
