"""The corpora of several domains as one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.data.corpus import Corpus
from common.data.several import Several


def corpus(*sources: dict[str, Any]) -> Corpus:
    return cast(Corpus, SimpleNamespace(sources=lambda: list(sources)))


def test_only_a_source_that_is_shared_in_every_fact_counts_once() -> None:
    world = {"id": "world", "role": "pretrain, replay", "licence": "mit", "digest": "1"}
    notes = {"id": "notes", "role": "cpt", "licence": "mit", "digest": "2"}
    others = {**notes, "digest": "3"}  # of another domain, which has the name too
    assert Several({"a": corpus(world, notes), "b": corpus(dict(world), others)}).sources() == [world, notes, others]


def test_rows_are_those_of_a_domain() -> None:
    with pytest.raises(AssertionError, match="the corpus of one domain"):
        Several({"a": corpus()}).rows("replay")
