"""What results have read: of several parents each stage once, and only what can still be drawn is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from common.store.artifacts import Artifact
from common.store.lineage import identity_of, joined, lineage_of, require_drawable, tokens_read


def entry(stage: str, fingerprint: str, read: dict[str, int], tokenizer: str = "t") -> dict[str, Any]:
    return {"stage": stage, "kind": "cpt", "domain": "", "fingerprint": fingerprint, "sources": [], "read": read,
            "tokenizer": tokenizer}  # fmt: skip


def result(*entries: dict[str, Any], tokenizer: str = "t") -> Artifact:
    return Artifact(Path(), {"lineage": list(entries), "files": {"tokenizer.json": {"sha256": tokenizer}}})


BASE = entry("base", "1", {"tokens-a": 100})


def test_of_several_parents_each_stage_counts_once() -> None:
    one, two = result(BASE, entry("cpt", "2", {"tokens-b": 40})), result(BASE, entry("cpt", "3", {"tokens-a": 10}))
    assert [each["fingerprint"] for each in joined([one, two])] == ["1", "2", "3"]
    assert tokens_read(joined([one, two])) == {"tokens-a": 110, "tokens-b": 40}
    assert identity_of(joined([one, two])) == {"1": 100, "2": 40, "3": 10}


def test_a_result_of_before_knows_its_own_sources_and_not_where_they_are() -> None:
    rows = [{"source": "web", "role": "cpt", "rows_out": 3, "tokens": 9, "epochs": 2.0}]
    old = Artifact(Path(), {"stage": "cpt", "kind": "cpt", "fingerprint": "7", "rows": rows})
    assert lineage_of(old)[0]["sources"] == [{"id": "web", "role": "cpt", "tokens": 18}]
    with pytest.raises(DataError, match=r"sft\.replay_from=lineage needs the rows that stage cpt has read"):
        require_drawable(old, "sft")
    assert lineage_of(Artifact(Path(), {"stage": "merge", "kind": "merge", "fingerprint": "8", "rows": []})) == []


def test_tokens_of_another_tokenizer_are_not_drawn() -> None:
    require_drawable(result(BASE), "cpt")
    with pytest.raises(DataError, match="stage base has read, and the tokenizer has changed since"):
        require_drawable(result(BASE, tokenizer="other"), "cpt")
