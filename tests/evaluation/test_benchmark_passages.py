"""What benchmarks ask is read from their loaded tasks, and kept out of training rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.data.decontaminate import Decontaminator
from common.data.exam_passages import digest_of
from common.errors import DataError
from common.evaluation import extra
from common.evaluation.benchmark_passages import benchmark_passages
from tests.evaluation.test_extra_tasks import manager, write_questions

Make = Callable[..., list[dict[str, Any]]]


def test_the_questions_of_a_task_are_passages_of_it(make_questions: Make, tmp_path: Path) -> None:
    asked = "Which river of the region number {} is the longest one?"
    rows = [{**row, "question": asked.format(n)} for n, row in enumerate(make_questions(8))]
    write_questions(tmp_path, "borrowed", rows)
    found = benchmark_passages(extra.load(["borrowed"], manager=manager(tmp_path)))
    assert [one.text for one in found] == [row["question"] for row in rows]
    assert {one.exam for one in found} == {"borrowed"}
    assert digest_of(found) == digest_of(list(found))
    assert digest_of(found[1:]) != digest_of(found)
    hit = Decontaminator(found).hit(f"He asked: {found[3].text}")
    assert hit is not None
    assert (hit.passage.exam, hit.passage.id) == ("borrowed", "3")


def test_no_tasks_have_no_passages() -> None:
    assert benchmark_passages(extra.load(())) == []


def test_questions_that_cannot_be_read_stop_with_the_name_of_the_task(make_questions: Make, tmp_path: Path) -> None:
    write_questions(tmp_path, "borrowed", make_questions(4))
    loaded = extra.load(["borrowed"], manager=manager(tmp_path))
    loaded["tasks"]["borrowed"].config.doc_to_text = 3.5
    with pytest.raises(DataError, match=r"questions of the benchmark 'borrowed' cannot be read.*evaluate.tasks=\[\]"):
        benchmark_passages(loaded)
