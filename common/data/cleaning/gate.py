"""The last step of cleaning: a row that repeats the exam is left out, and both texts are kept to look at.

Usage: `judge = ExamGate(corpus, "cpt")()`; `judge(row)` is the row, or why it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.config.blocks import RowFunction
from common.data.corpus import Corpus
from common.data.decontaminate import gate, guard_of
from common.data.exam_passages import Passage


@dataclass(frozen=True)
class ExamGate:
    """Builds what keeps the exam out of the rows of a role. It crosses to other processes."""

    corpus: Corpus
    role: str
    benchmarks: tuple[Passage, ...] = ()  # what the benchmarks of the run ask

    def __call__(self) -> RowFunction:
        """Return what judges a row."""
        return gate(guard_of(self.corpus, self.role, self.benchmarks))
