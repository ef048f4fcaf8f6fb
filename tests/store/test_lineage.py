"""What results have read: of several parents each stage once, and only what can still be drawn is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from common.store.artifacts import Artifact, Store, write_json
from common.store.lineage import entry_of, identity_of, joined, lineage_of, lineage_today, require_drawable, tokens_read
from tests.store.results import commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


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


def test_a_source_that_was_not_drawn_was_not_read() -> None:
    rows = [{"source": name, "role": "cpt", "rows_out": 3, "tokens": 9, "epochs": epochs}
            for name, epochs in (("web", 2.0), ("books", 0.0))]  # fmt: skip
    manifest = {"stage": "cpt", "kind": "cpt", "fingerprint": "7", "rows": rows}
    found = entry_of(manifest, {"tokens-a": 18}, "medical")
    assert found is not None
    assert found["sources"] == [{"id": "web", "role": "cpt", "tokens": 18}]
    assert entry_of({**manifest, "rows": rows[1:]}, {"tokens-a": 18}, "medical") is None


def test_a_result_of_before_knows_its_own_sources_and_not_where_they_are(store: Store) -> None:
    rows = [{"source": "web", "role": "cpt", "rows_out": 3, "tokens": 9, "epochs": 2.0}]
    old = Artifact(Path(), {"stage": "cpt", "kind": "cpt", "fingerprint": "7", "rows": rows})
    assert lineage_of(old)[0]["sources"] == [{"id": "web", "role": "cpt", "tokens": 18}]
    with pytest.raises(
        DataError, match=r"sft\.replay_from=lineage needs the rows that stage cpt has read.* `rerun cpt`"
    ):
        require_drawable(old, "sft", store, {}, "rerun {}".format)
    assert lineage_of(Artifact(Path(), {"stage": "merge", "kind": "merge", "fingerprint": "8", "rows": []})) == []


def test_only_what_is_in_the_store_is_drawn_and_with_the_same_tokenizer(store: Store) -> None:
    kept = commit(store, "tokens", "a")
    there = entry("cpt", "1", {kept.path.name: 100})
    require_drawable(result(there), "next", store, {}, str)
    with pytest.raises(DataError, match="stage cpt has read, and the tokenizer has changed since"):
        require_drawable(result(there, tokenizer="other"), "next", store, {}, str)
    shutil.rmtree(kept.path)
    gone = r"needs tokens-[0-9a-f]{16}, rows that stage cpt-law has read, and they are gone.*again with `rerun cpt-law`"
    with pytest.raises(DataError, match=gone):
        require_drawable(result(there), "next", store, {"1": "cpt-law"}, "rerun {}".format)


def test_rows_of_a_stage_that_was_made_again_are_where_they_are_now(store: Store) -> None:
    kept = commit(store, "tokens", "new")
    cpt = commit(store, "cpt", "weights")
    now = entry("cpt", cpt.fingerprint, {kept.path.name: 100})
    write_json(cpt.path / "manifest.json", {**cpt.manifest, "lineage": [now]})
    child = result(entry("cpt", cpt.fingerprint, {"tokens-old": 100}))
    assert lineage_today(child, store) == [now]
    require_drawable(child, "next", store, {}, str)
