"""Tests of the block that leaves out rows that are nearly the same as one before."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.blocks import Drop, block_of
from common.data.blocks.minhash import MinhashSettings
from common.data.duplicates import records, signatures
from common.data.duplicates.groups import flatten, join, new_groups
from common.data.duplicates.splitting import hashing, unchanged, word_tokenizer
from common.data.words import words_of
from tests.data.blocks.repeats import SCRIPTS, changed, dealt, made, run_block

OLDER = re.compile(r"^(\d\.\d\d) alike: (.*): (.*)$")


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def jaccard(one: str, two: str) -> float:
    first, second = shingles(one), shingles(two)
    return len(first & second) / len(first | second)


def planted_rows(rng: random.Random, texts: int, scripts: tuple[str, ...] = SCRIPTS) -> list[dict[str, Any]]:
    """Return texts and a changed copy of each, with how alike the two are."""
    rows: list[dict[str, Any]] = []
    for script in scripts:
        for number in range(texts):
            text = made(rng, script, rng.randint(80, 300))
            copy = changed(rng, script, text, rng.choice((0, 1, 2, 3, 4, 6, 12, 25)))
            rows.append({"source": script, "text": text, "id": f"{script}{number}"})
            rows.append({"source": script, "text": copy, "id": f"{script}{number}", "alike": jaccard(text, copy)})
    rng.shuffle(rows)
    return rows


def flat(found: list[list[Any]]) -> list[Any]:
    return [one for task in found for one in task]


def test_pairs_as_alike_as_asked_for_are_found_in_every_script(tmp_path: Path) -> None:
    """Recall of 0.95 at a precision of 0.99; pairs within 0.1 below the threshold are no fault either way."""
    rows = planted_rows(random.Random(3), 50)
    found = flat(run_block("minhash", {}, dealt(rows, 4), tmp_path))
    pairs: dict[str, list[Any]] = {}
    for row, judged in zip(rows, found, strict=True):
        pairs.setdefault(row["id"], []).append((row.get("alike"), isinstance(judged, Drop)))
    alike = {name: next(a for a, _ in pair if a is not None) for name, pair in pairs.items()}
    dropped = {name for name, pair in pairs.items() if any(gone for _, gone in pair)}
    assert all(sum(gone for _, gone in pair) <= 1 for pair in pairs.values())
    wanted = {name for name, likeness in alike.items() if likeness >= 0.8}
    wrong = {name for name in dropped if alike[name] < 0.7}
    assert len(wanted) > 100
    assert sum(likeness < 0.7 for likeness in alike.values()) > 60
    assert len(dropped & wanted) / len(wanted) >= 0.95
    assert 1 - len(wrong) / len(dropped) >= 0.99


def test_a_dropped_row_names_the_one_that_is_kept_and_how_alike_they_are(tmp_path: Path) -> None:
    rows = planted_rows(random.Random(4), 20, ("latin",))
    found = flat(run_block("minhash", {}, dealt(rows, 3), tmp_path))
    drops = [(row, judged) for row, judged in zip(rows, found, strict=True) if isinstance(judged, Drop)]
    assert len(drops) > 5
    for row, drop in drops:
        likeness, source, beginning = (OLDER.match(drop.detail) or pytest.fail(drop.detail)).groups()
        other = next(one for one in rows if one["text"].startswith(beginning) and one is not row)
        assert (drop.reason, source) == ("near duplicate", "latin")
        assert other["id"] == row["id"]
        assert float(likeness) == pytest.approx(jaccard(row["text"], other["text"]), abs=0.1)


def test_groups_are_those_of_datatrove(tmp_path: Path) -> None:
    """Without the comparison, the rows that go are those of datatrove's four steps, but for which one is kept."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash

    rows = planted_rows(random.Random(5), 40, ("latin", "han", "devanagari"))
    tasks = dealt(rows, 3)
    values = {"buckets": 14, "hashes_per_bucket": 8, "verify": False}
    found = flat(run_block("minhash", values, tasks, tmp_path))
    config = minhash.MinhashConfig(norm_config=unchanged(), hash_config=hashing())
    for rank, task in enumerate(tasks):
        documents = (Document(row["text"], str(number)) for number, row in enumerate(task))
        minhash.MinhashDedupSignature(f"{tmp_path}/s", config, word_tokenizer()).run(documents, rank, len(tasks))
    for bucket in range(14):
        minhash.MinhashDedupBuckets(f"{tmp_path}/s", f"{tmp_path}/b", config=config).run(None, bucket, 14)
    minhash.MinhashDedupCluster(f"{tmp_path}/b", f"{tmp_path}/r", config).run(None, 0, 1)
    theirs = []
    for rank, task in enumerate(tasks):
        documents = (Document(row["text"], row["id"]) for row in task)
        theirs += [one.id for one in minhash.MinhashDedupFilter(f"{tmp_path}/r").run(documents, rank, len(tasks))]
    assert sorted(theirs) == sorted(
        row["id"] for row, one in zip(rows, found, strict=True) if not isinstance(one, Drop)
    )


def test_signatures_are_those_of_datatrove(tmp_path: Path) -> None:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    step = MinhashDedupSignature(str(tmp_path), MinhashConfig(hash_config=hashing()), word_tokenizer())
    for size in (1, 127, 128, 129, 1000):
        values = np.random.default_rng(size).integers(0, 1 << 64, (size, 1), np.uint64)
        assert signatures.signature(values, *step.parameters).tolist() == list(
            itertools.chain(*step.get_signature(values))
        )


def test_rows_of_earlier_stages_win_and_are_not_judged(tmp_path: Path) -> None:
    rng = random.Random(6)
    texts = [made(rng, "latin", 200) for _ in range(6)]
    earlier = {"cpt": [[{"source": "old", "text": text} for text in texts[:2]], [{"source": "old", "text": texts[2]}]]}
    rows = [{"source": "new", "text": changed(rng, "latin", text, 1)} for text in texts]
    found = flat(run_block("minhash", {"against": ["cpt"]}, [rows[4:], rows[:4]], tmp_path, earlier=earlier))
    assert [isinstance(one, Drop) for one in found] == [False, False, True, True, True, False]
    assert found[2].reason == "near duplicate of an earlier stage"
    assert " alike: cpt, old: " in found[2].detail


def test_many_equal_rows_in_little_memory_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    text, other = made(rng, "latin", 100), made(rng, "latin", 100)
    tasks = dealt([{"source": "s", "text": text if number % 5 else other} for number in range(60)], 4)
    whole = run_block("minhash", {}, tasks, tmp_path / "a")
    monkeypatch.setattr(records.in_key_order, "__defaults__", (7,))
    assert run_block("minhash", {}, tasks, tmp_path / "b") == whole
    assert [isinstance(one, Drop) for one in flat(whole)] == [False, False] + [True] * 58


def test_short_rows_are_left(tmp_path: Path) -> None:
    row = {"source": "s", "text": "four words and no"}
    assert flat(run_block("minhash", {}, [[row, row]], tmp_path)) == [row, row]


@pytest.mark.parametrize("hashes", [64, 112, 256, 512])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_buckets_find_pairs_at_the_threshold_with_as_many_hashes_each_as_can_be(hashes: int, threshold: float) -> None:
    buckets = signatures.choose_buckets(threshold, hashes)
    more = signatures.Buckets(hashes // (buckets.each + 1), buckets.each + 1)
    assert buckets.hashes <= hashes
    assert buckets.found(threshold) >= 0.99
    assert buckets.each == hashes or more.found(threshold) < 0.99


def test_buckets_and_their_hashes_come_together() -> None:
    with pytest.raises(ValueError, match="buckets and hashes_per_bucket come together; give both or neither"):
        MinhashSettings(buckets=14)
    assert MinhashSettings(buckets=14, hashes_per_bucket=8).bands() == (14, 8)
    assert block_of("minhash").roles(MinhashSettings(against=("cpt",))) == ("cpt",)


def test_groups_do_not_depend_on_the_order_of_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    pairs = [(a, a + 1) for a in range(0, 50)] + [(a, a + 7) for a in range(60, 90)] + [(99, 97)]
    results = []
    for number in range(5):
        kept = new_groups(tmp_path / str(number), 100)
        for share in np.array_split(rng.permutation(np.array(pairs, "<u8")), number + 1):
            join(kept, share[:, 0], share[:, 1])
        flatten(kept)
        results.append(kept.tolist())
    expected = [0] * 51 + list(range(51, 60)) + [60 + (n - 60) % 7 for n in range(60, 97)] + [97, 98, 97]
    assert results == [expected] * 5
