"""A run reads the commits that the first run of its store found, until `run.newest_data` asks again."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.data.manifest import hub, revisions, source_rows
from common.data.manifest.hub import probe
from common.data.manifest.readers import Record
from common.data.manifest.revisions import NAME, Revisions
from common.data.manifest.schema import Source
from common.engine.corpora import open_corpus
from common.errors import DataError
from tests.conftest import REPOSITORY
from tests.data.manifest.manifests import CPT, HUB, load, write_rows

OLD, NEW = "a" * 40, "b" * 40


def source(name: str = "a", **facts: Any) -> Source:
    return Source.model_validate(
        {"id": name, "role": "cpt", "hub": f"o/{name}", "split": "train", "licence": "mit", **facts}
    )


def test_a_branch_is_asked_for_once_and_read_at_its_commit(tmp_path: Path) -> None:
    asked, read = [], []

    def resolver(source: Source) -> str:
        asked.append((source.hub, source.revision))
        return OLD

    def reader(source: Source) -> Any:
        read.append(source.revision)
        yield Record("row 1", {"text": "x"})

    path = tmp_path / "out" / NAME
    for _ in range(2):
        noted = Revisions(path, resolver=resolver)
        assert probe([source(), source("b", revision="v1"), source("c", revision=NEW)], noted.pin, reader) == []
        noted.save()
    assert sorted(asked, key=str) == [("o/a", None), ("o/b", "v1")]
    assert Counter(read) == Counter([OLD, OLD, NEW] * 2)  # several are read at once
    assert json.loads(path.read_text()) == {"o/a@main": OLD, "o/b@v1": OLD}


def test_asked_again_it_takes_the_newest_and_keeps_what_others_noted(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"o/a@main": OLD, "o/z@main": OLD}))
    fresh = Revisions(path, fresh=True, resolver=lambda source: NEW)
    assert fresh.of(source()) is None
    assert fresh.pin(source()).revision == NEW
    fresh.save()
    assert json.loads(path.read_text()) == {"o/a@main": NEW, "o/z@main": OLD}


def test_two_runs_that_note_commits_at_once_lose_none(tmp_path: Path) -> None:
    path, names = tmp_path / NAME, [f"n{number}" for number in range(24)]

    def note(name: str) -> None:
        noted = Revisions(path, resolver=lambda source: OLD)
        noted.pin(source(name))
        noted.save()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(note, names))
    assert json.loads(path.read_text()) == {f"o/{name}@main": OLD for name in sorted(names)}


def test_a_frozen_plan_wins_over_the_store(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"o/a@main": NEW}))
    assert Revisions(path, {"o/a@main": OLD}).of(source()) == OLD


@pytest.mark.parametrize("text", ["{", "[]", '{"o/a@main": "main"}', '{"o/a@main": 3}'])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(
        DataError, match=rf"{NAME} cannot be read .* Delete it: the next run asks the Hub for the commits again"
    ):
        Revisions(tmp_path / NAME)


def test_the_hub_is_asked_for_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Info:
        sha = OLD

    def info(self: Any, name: str, revision: str | None) -> Info:
        if name == "o/b":
            raise huggingface_hub.errors.HFValidationError("no such name")
        return Info()

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    assert hub.commit_of(source()) == OLD
    with pytest.raises(DataError, match=r"Source 'b': o/b\[train\] cannot be read \(HFValidationError: no such name\)"):
        hub.commit_of(source("b"))


def test_rows_identity_and_card_have_the_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(folder / "texts.jsonl", [{"text": "one"}])
    read = []

    def reader(source: Source) -> Any:
        read.append(source.revision)
        yield Record("row 1", {"m": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})

    monkeypatch.setattr(source_rows, "read_hub", reader)
    corpus = load(folder, CPT, HUB, revisions=Revisions(None, {"o/n@main": OLD}))
    assert len(list(corpus.rows("sft"))) == 1
    assert read == [OLD]
    assert [fact["revision"] for fact in corpus.identity(["sft"])] == [OLD]
    assert [fact.get("revision") for fact in corpus.sources()] == [None, OLD]


def test_a_run_keeps_them_in_its_store(tmp_path: Path) -> None:
    (tmp_path / revisions.NAME).write_text(json.dumps({"eloukas/edgar-corpus@refs/convert/parquet": OLD}))
    words = {"domain": "finance", "model.path": "o/n", "model.revision": OLD, "data": "hub", "out": str(tmp_path)}
    for again, expected in ((False, OLD), (True, "refs/convert/parquet")):
        corpus = open_corpus(resolve(words | {"run.newest_data": str(again).lower()}, REPOSITORY))
        (fact,) = (fact for fact in corpus.identity(["cpt"]) if fact["id"] == "annual-reports")
        assert fact["revision"] == expected
