"""What an exam costs follows from the rows that are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.answering import LabelSettings
from common.config.resolve import resolve
from common.config.stages import EvaluateSettings
from common.cost import exam
from common.cost.exam import exam_work, label_work, question_tokens
from common.cost.memory import ExamWork
from common.cost.outlook import Outlook
from common.data.sizes import RowSizes
from common.engine.corpora import open_corpus
from tests.conftest import REPOSITORY


def embedded(**words: str) -> RowSizes:
    resolved = resolve({"domain": "medical", **words}, REPOSITORY)
    return RowSizes(open_corpus(resolved), tokenizer=None, vocabulary=2048)


def work_of(sizes: RowSizes | None, **settings: Any) -> ExamWork:
    return exam_work(EvaluateSettings(**settings), sizes, embedded=True)


def test_a_context_is_read_once_and_the_last_token_of_a_choice_never() -> None:
    assert question_tokens(380, [2, 2, 3]) == 384
    assert question_tokens(380, [1, 1, 1, 1]) == 380


def test_as_many_questions_are_priced_as_are_asked() -> None:
    from common.evaluation.exam import ExamPlan, ExamQuestions

    sizes = embedded()
    corpus = sizes._corpus
    rows = ExamQuestions(
        {side: list(corpus.rows(f"questions_{side}")) for side in exam.SIDES},
        {side: list(corpus.rows(f"text_{side}")) for side in exam.SIDES},
    )
    for settings in ({}, {"limit": 24}, {"limit": 24, "written": True, "text_documents": 10}):
        asked = ExamPlan.of(rows, EvaluateSettings(**settings))
        work = work_of(sizes, **settings)
        assert not work.assumed
        assert work.requests + work.written + work.documents == pytest.approx(asked.num_sequences)
        assert work.written == pytest.approx(sum(map(len, asked.written.values())))


def test_questions_of_the_hub_are_assumed_within_the_limit() -> None:
    assert work_of(None) == work_of(None, limit=5000)
    assert work_of(None).assumed
    assert work_of(None, limit=24).questions == 48


def test_an_exam_of_few_questions_is_planned_in_proportion(tmp_path: Path) -> None:
    def seconds(**words: str) -> float:
        resolved = resolve({"domain": "medical", "run.device": "cpu", "out": str(tmp_path), **words}, REPOSITORY)
        sizes = RowSizes(open_corpus(resolved), tokenizer=None, vocabulary=2048)
        return Outlook.of(resolved, sizes=sizes).seconds("exam-base", None) or 0.0

    one = {"profile": "smollm2-135m", "evaluate.text_documents": "1"}
    none, few, many = (seconds(**one, **{"evaluate.limit": number}) for number in ("1", "17", "161"))
    assert many - none == pytest.approx(10 * (few - none), rel=0.1)
    texts = seconds(**{**one, "evaluate.text_documents": "100"}, **{"evaluate.limit": "1"})
    assert texts > 2 * none


def test_labels_cost_a_request_for_each_word_of_each_prompt() -> None:
    sizes = embedded()
    prompts = len(list(sizes._corpus.rows("prompts")))
    work = label_work(LabelSettings(words=("one", "two", "three")), sizes)
    assert (work.questions, work.requests, work.assumed) == (prompts, 3 * prompts, False)
    assert label_work(LabelSettings(words=("one", "two"), prompts=10), sizes).requests == 20
    assert label_work(LabelSettings(), None).assumed
