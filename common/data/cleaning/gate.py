"""The last step of cleaning: a row that repeats the exam is left out, and both texts are kept to look at.

Usage: `judge = ExamGate(corpus, "cpt")()`; `judge(row)` is the row, or why it is left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from common.config.blocks import Drop, Row, RowFunction
from common.data.corpus import Corpus
from common.data.decontaminate import EXAM_OVERLAP, Decontaminator
from common.data.texts import texts_of


@dataclass(frozen=True)
class ExamGate:
    """Builds what keeps the exam out of the rows of a role. It crosses to other processes."""

    corpus: Corpus
    role: str

    def __call__(self) -> RowFunction:
        """Return what judges a row."""
        exams = self.corpus.exam_roles(self.role)
        asked = [row["question"] for exam in exams if exam.startswith("questions") for row in self.corpus.rows(exam)]
        held_out = {_digest(row["text"]) for exam in exams if exam.startswith("text") for row in self.corpus.rows(exam)}
        questions = Decontaminator(asked)

        def judge(row: Row) -> Row | Drop:
            for text in texts_of(row):
                if (question := questions.hit(text)) is not None:
                    return Drop(EXAM_OVERLAP, question)
            if "text" in row and _digest(row["text"]) in held_out:
                return Drop(EXAM_OVERLAP, "a text that the exam holds out")
            return row

        return judge


def _digest(text: str) -> bytes:
    """Return what texts have in common that differ in blanks, line ends and case alone."""
    return hashlib.blake2b("".join(text.casefold().split()).encode(), digest_size=16).digest()
