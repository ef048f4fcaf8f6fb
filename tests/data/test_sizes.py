"""Sizes of a role's rows: counted whole, or by a sample that says so, and read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.manifest import ManifestCorpus, load_manifest
from common.data.sizes import CHATML, LEAST, MOST_BYTES, RowSizes, size_of, token_bytes
from common.store import cache
from common.store.artifacts import write_json

WORDS = "a text of some words, " * 4


@pytest.fixture(autouse=True)
def _new_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")


def corpus_of(folder: Path, rows: dict[str, list[dict[str, Any]]], **more: Any) -> ManifestCorpus:
    """Return a corpus over jsonl files, one source for each role."""
    columns: dict[str, dict[str, str]] = {
        "cpt": {"text": "text"}, "sft": {"question": "q", "answer": "a"},
        "eval": {"question": "q", "choices": "o", "answer": "a"},
    }  # fmt: skip
    sources = []
    for role, found in rows.items():
        (folder / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        side = {"side": "domain"} if role == "eval" else {}
        facts = {"id": role, "role": role, "path": f"{role}.jsonl", "licence": "mit", "columns": columns[role]}
        sources.append({**facts, **side, **more})
    write_json(folder / "data.yaml", {"title": "Test", "sources": sources})
    return load_manifest(folder / "data.yaml", None)


def texts(number: int) -> list[dict[str, Any]]:
    return [{"text": f"{place:06d} {WORDS}"} for place in range(number)]


def sizes_of(corpus: ManifestCorpus, most: int = MOST_BYTES) -> RowSizes:
    """Return sizes that are read up to `most` bytes of a role."""
    return RowSizes(corpus, tokenizer=None, vocabulary=2048, most=most)


def test_rows_of_every_kind_are_measured_in_bytes() -> None:
    turns = [{"role": "user", "content": "wer"}, {"role": "assistant", "content": "für"}]
    assert size_of({"text": "für"}) == (4, (), 0)
    assert size_of({"messages": turns}) == (7, (), 2)
    assert size_of({"question": "Who?", "choices": ["a", "bc"], "answer": 1}) == (4, (1, 2), 0)
    pair = {"prompt": turns[:1], "chosen": turns[1:], "rejected": [{"role": "assistant", "content": "no"}]}
    assert size_of(pair) == (3, (4, 2), 1)


def test_small_files_are_counted_whole(tmp_path: Path) -> None:
    found = sizes_of(corpus_of(tmp_path, {"cpt": texts(5000)})).of("cpt")
    assert found is not None
    assert (found.rows, found.whole) == (5000, True)
    each = len(texts(1)[0]["text"])
    assert found.mean_bytes == each
    assert found.total() == pytest.approx(5000 * (each / token_bytes(2048) + 1))


def test_a_large_file_is_counted_by_a_sample_which_is_said(tmp_path: Path) -> None:
    sizes = sizes_of(corpus_of(tmp_path, {"cpt": texts(5000)}), most=50_000)
    found = sizes.of("cpt")
    assert found is not None
    assert not found.whole
    assert found.rows == pytest.approx(5000, rel=0.02)
    assert sizes.sampled() == ["cpt"]


def test_a_role_of_which_no_more_is_read_is_known_by_more_than_one_row(tmp_path: Path) -> None:
    rows = [{"text": "x" * (10 + 10 * (place % 2))} for place in range(5000)]
    found = sizes_of(corpus_of(tmp_path, {"cpt": rows}), most=1).of("cpt")
    assert found is not None
    assert len(found.sample) == LEAST
    assert found.mean_bytes == 15
    assert found.rows == pytest.approx(5000, rel=0.02)


def test_few_rows_among_many_bytes_are_known_without_reading_all_of_them(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"cpt": texts(20_000)}, heldout=0.05)
    whole = sizes_of(corpus).of("text_domain")
    found = sizes_of(corpus, most=200_000).of("text_domain")
    assert found is not None
    assert whole is not None
    assert whole.rows * whole.mean_bytes < 200_000  # of text, so that a limit of text alone would read all
    assert not found.whole
    assert found.rows == pytest.approx(whole.rows, rel=0.15)


def test_a_limit_counts_where_a_file_is_read_in_part(tmp_path: Path) -> None:
    for more, expected in (({"limit": 200}, 200), ({"limit": 200, "weight": 0.5}, 100), ({"limit": 9000}, 5000)):
        found = sizes_of(corpus_of(tmp_path, {"cpt": texts(5000)}, **more), most=1).of("cpt")
        assert found is not None
        assert not found.whole
        assert found.rows == pytest.approx(expected, rel=0.02)


def test_a_second_plan_reads_nothing_and_a_changed_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(tmp_path, {"cpt": texts(50)})
    first = sizes_of(corpus).of("cpt")
    with monkeypatch.context() as patch:
        patch.setattr(RowSizes, "_count", None)
        assert sizes_of(corpus).of("cpt") == first
    for damaged in (tmp_path / "cache" / "rows").iterdir():
        damaged.write_text('{"rows": 5}', encoding="utf-8")
    assert sizes_of(corpus).of("cpt") == first
    changed = sizes_of(corpus_of(tmp_path, {"cpt": texts(60)})).of("cpt")
    assert changed is not None
    assert changed.rows == 60


def test_conversations_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    rows = [{"q": "short", "a": "too"}] * 30 + [{"q": "long", "a": "x" * 3000}] * 10
    found = sizes_of(corpus_of(tmp_path, {"sft": rows})).of("sft")
    assert found is not None
    short = 8 / found.token_bytes + 2 * CHATML
    assert found.total(longest=128) == pytest.approx(30 * short, rel=0.02)
    assert found.total() > 10 * 900


def test_weights_count_and_a_limit_does(tmp_path: Path) -> None:
    for more, expected in (({"weight": 3.0}, 120), ({"weight": 0.5}, 20), ({"limit": 7}, 7), ({"every": 2}, 20)):
        found = sizes_of(corpus_of(tmp_path, {"cpt": texts(40)}, **more)).of("cpt")
        assert found is not None
        assert found.rows == expected


def test_rows_that_cannot_be_read_or_are_on_the_hub_are_unknown(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"cpt": texts(3)})
    (tmp_path / "cpt.jsonl").write_text('{"text": "one"}\n{"text": \n', encoding="utf-8")
    assert sizes_of(corpus).of("cpt") is None
    hub = [{"id": "far", "role": "cpt", "hub": "owner/name", "split": "train", "licence": "mit"}]
    write_json(tmp_path / "data.yaml", {"title": "Test", "sources": hub})
    assert sizes_of(load_manifest(tmp_path / "data.yaml", None)).of("cpt") is None


def test_a_tokenizer_at_hand_counts_and_else_the_vocabulary_does(tmp_path: Path) -> None:
    from common.models.tokenizer import train_tokenizer

    corpus = corpus_of(tmp_path, {"cpt": texts(200)})
    tokenizer = train_tokenizer((row["text"] for row in texts(200)), 512, 64)
    tokenizer.save_pretrained(tmp_path)
    found = RowSizes(corpus, tokenizer=tmp_path / "tokenizer.json", vocabulary=512).of("cpt")
    assert found is not None
    real = sum(len(tokenizer(row["text"]).input_ids) + 1 for row in texts(200))
    assert found.total() == pytest.approx(real, rel=0.05)
    assert [token_bytes(number) for number in (10, 512, 2048, 49_152, 200_000, None)] == [2, 2, 3, 4.6, 4.6, 4.6]
    assert 2 < token_bytes(1024) < 3 < token_bytes(4096) < 3.9
