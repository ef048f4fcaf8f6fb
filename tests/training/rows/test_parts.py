"""A stage that goes on behind others reads no document of theirs, and begins again only where none is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from datasets import Dataset

from common.config.stages import CptSettings
from common.console import Console
from common.stage import StageContext
from common.store.artifacts import Store
from common.store.manifest import read_mapping
from common.training.rows import shards
from common.training.rows.parts import _around
from common.training.rows.prepared import FACTS, KIND, ROWS
from common.training.rows.rows import TrainingRows, build_rows
from tests.conftest import REPOSITORY
from tests.training.rows.test_prepared import KILLED, Corpus, build, made, tokenizer

__all__ = ["tokenizer"]
TRUNK = 4096


class Distinct(Corpus):
    """Texts that are all different, twelve of which repeat the exam, in the order of their numbers before a shuffle."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        self.reads += role == "cpt"
        numbers = range(1, 13) if role == "text_domain" else range(self.number)
        yield from (
            {
                "text": f"{'replay' if role == 'replay' else 'a text'} has number {n} " * (n % 9 + 1),
                "source": f"s{n % 2}",
            }
            for n in numbers
        )


def documents(store: Store, rows: TrainingRows) -> Counter[bytes]:
    """Return all documents that were prepared for a stage; none is longer than a row of 256 tokens."""
    found: Counter[bytes] = Counter()
    for name in rows.read:
        for row in Dataset.from_file(str(store.artifacts / name / ROWS)):
            parts = np.split(np.asarray(row["input_ids"], np.int32), np.cumsum(row["seq_lengths"])[:-1])
            found.update(part.tobytes() for part in parts)
    return found


def stage(store: Store, tokenizer: Any, number: int, *, corpus: Corpus | None = None, **words: Any) -> TrainingRows:
    given = {"sequence_length": 256, "cleaned": "", **words}
    given |= {"continue_data": True} if "behind" in words else {}
    return build(store, corpus or Distinct(), tokenizer, f"cpt-{number}123456789abcdef", **given)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def test_trunk_and_decays_are_the_documents_of_one_run_and_none_comes_twice(store: Store, tokenizer: Any) -> None:
    replay: dict[str, Any] = {"replay": 0.25}
    trunk = stage(store, tokenizer, 0, tokens=TRUNK, **replay)
    first = {"cpt": (3072,), "replay": (1024,)}
    decay = stage(store, tokenizer, 1, tokens=2048, behind=first, **replay)
    second = {"cpt": (3072, 1536), "replay": (1024, 512)}
    further = stage(store, tokenizer, 2, tokens=1024, behind=second, **replay)
    whole = stage(store, tokenizer, 3, tokens=TRUNK + 2048 + 1024, **replay)
    apart = documents(store, trunk) + documents(store, decay) + documents(store, further)
    assert max(apart.values()) == 1
    assert not documents(store, whole) - apart
    assert (apart - documents(store, whole)).total() <= 4  # each stage ends with the document that fills its budget
    assert decay.steps == 8
    read = {count.source: count.tokens for count in trunk.counts if count.role == "cpt"}
    assert decay.continued == {
        "cpt": {"passed": sum(read.values()), "again": 0.0},
        "replay": {"passed": sum(c.tokens for c in trunk.counts if c.role == "replay"), "again": 0.0},
    }
    assert further.continued["cpt"]["passed"] == sum(
        count.tokens for rows in (trunk, decay) for count in rows.counts if count.role == "cpt"
    )


def test_what_is_passed_over_is_neither_read_nor_dropped_here(
    store: Store, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.training.rows.packing.BATCH", 7)
    trunk = stage(store, tokenizer, 0, tokens=TRUNK)
    decay = stage(store, tokenizer, 1, tokens=6912, behind={"cpt": (TRUNK,)})
    whole = stage(store, tokenizer, 2, tokens=TRUNK + 6912)

    def total(name: str, *stages: TrainingRows) -> int:
        return sum(getattr(count, name) for rows in stages for count in rows.counts)

    def overlaps(*stages: TrainingRows) -> int:
        return sum(count.dropped.get("exam overlap", 0) for rows in stages for count in rows.counts)

    assert total("rows_out", decay) == documents(store, decay).total()
    assert 0 <= total("rows_out", trunk, decay) - total("rows_out", whole) <= 1
    assert min(overlaps(trunk), overlaps(decay)) > 0
    assert overlaps(trunk, decay) == overlaps(whole)
    assert all(count.rows_in == count.rows_out + count.num_dropped for count in decay.counts)
    assert not any(count.again for count in decay.counts)


def test_branches_share_what_was_prepared(store: Store, tokenizer: Any) -> None:
    corpus, behind = Distinct(), {"cpt": (TRUNK,)}
    stage(store, tokenizer, 0, corpus=corpus, tokens=TRUNK)
    one = stage(store, tokenizer, 1, corpus=corpus, tokens=2048, behind=behind)
    other = stage(store, tokenizer, 2, corpus=corpus, tokens=2048, behind=behind, batch_tokens=512)
    assert one.read.keys() == other.read.keys()
    assert corpus.reads == 2
    fresh = stage(store, tokenizer, 3, corpus=corpus, tokens=2048)
    assert fresh.read.keys().isdisjoint(one.read)
    further = stage(store, tokenizer, 4, corpus=corpus, tokens=2048, behind={"cpt": (TRUNK, 256)})
    assert further.read.keys().isdisjoint(one.read)
    assert corpus.reads == 4


def test_names_of_rows_that_nobody_is_behind_stay(store: Store, tokenizer: Any) -> None:
    alone = stage(store, tokenizer, 0, tokens=2048)
    first = stage(store, tokenizer, 1, tokens=2048, behind={})  # the stage before read another role
    assert first.read == alone.read
    assert first.continued == {}


def test_where_too_few_documents_are_left_it_begins_again(
    store: Store, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    every = stage(store, tokenizer, 0, tokens=10**5)
    size = sum(count.tokens for count in every.counts)
    trunk = documents(store, stage(store, tokenizer, 1, tokens=size - 1000))
    decay = stage(store, tokenizer, 2, tokens=2560, behind={"cpt": (size - 1000,)})
    rest, again = ([count for count in decay.counts if count.again is again] for again in (False, True))
    left = sum(count.tokens for count in rest)
    assert 800 < left <= 1000
    assert 2560 <= left + sum(count.tokens for count in again) < 2800
    assert decay.continued == {"cpt": {"passed": size - left, "again": round(1 - left / 2560, 4)}}
    said = f"cpt: what is left of cpt behind {size - left:,} tokens fills {left / 2560:.1%} of its budget; "
    assert f"{said}{1 - left / 2560:.1%} of it is read again." in capsys.readouterr().out
    found = documents(store, decay)
    assert max(found.values()) == 1
    assert (found & trunk).total() == sum(count.rows_out for count in again)
    assert not found - documents(store, every)
    # A stage behind this one goes on where it has ended.
    further = stage(store, tokenizer, 3, tokens=1024, behind={"cpt": (size - 1000, 2560)})
    assert further.continued["cpt"]["again"] == 1
    assert not documents(store, further) & found
    assert all(count.again for count in further.counts)


def test_the_rows_are_those_of_a_stage_by_itself(store: Store, tokenizer: Any, tmp_path: Path) -> None:
    size = sum(count.tokens for count in stage(store, tokenizer, 0, tokens=10**5).counts)
    behind = {"cpt": (size - 1000, size - 1000)}  # what is left ends twice before the budget is full
    words: dict[str, Any] = {"tokens": 2560, "replay": 0, "batch_tokens": 256, "sequence_length": 256}
    shared = stage(store, tokenizer, 1, behind=behind, **words)
    settings = CptSettings.model_validate({**words, "continue_data": True, "limits": {"dropped": 1}})
    context = SimpleNamespace(
        corpus=Distinct(), config=SimpleNamespace(seed=0), stage="cpt", inputs={}, work=tmp_path, settings=settings,
        shared=None, benchmarks=(), behind=behind, console=Console("quiet"),
    )  # fmt: skip
    alone = build_rows(cast(StageContext, context), tokenizer, role="cpt", assistant_only=False)
    assert len(shared.read) == 3  # rounds: in the first nothing is left
    assert sorted(path.name for path in (tmp_path / KIND).iterdir()) == ["cpt", "cpt.1", "cpt.2"]
    assert shared.dataset.to_list() == alone.dataset.to_list()
    assert shared.counts == alone.counts


def test_a_trunk_that_has_read_all_leaves_all_to_be_read_again(store: Store, tokenizer: Any) -> None:
    every = stage(store, tokenizer, 0, tokens=10**5)
    size = sum(count.tokens for count in every.counts)
    decay = stage(store, tokenizer, 1, tokens=size, behind={"cpt": (3 * size + 500,)}, batch_tokens=512)
    assert decay.continued == {"cpt": {"passed": size, "again": 1.0}}
    assert {count.again for count in decay.counts} == {True}
    assert documents(store, decay).keys() == documents(store, every).keys()
    assert decay.samples  # of the rows that there are


def test_around_the_end_as_in_a_circle() -> None:
    assert _around([], 100) == ()
    assert _around([30, 20], 100) == (30, 20)
    assert _around([80, 50], 100) == (30,)
    assert _around([100], 100) == _around([300], 100) == ()
    assert _around([5], 0) == ()


@pytest.mark.parametrize(("time", "passing"), [(4, True), (12, False)])
def test_a_killed_preparation_goes_on_where_it_was(
    time: int, passing: bool, store: Store, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 300)
    monkeypatch.setattr("common.training.rows.packing.BATCH", 7)
    code = textwrap.dedent(KILLED).replace("shards.SHARD = 300", "shards.SHARD = 300; packing.BATCH = 7")
    code = code.replace("import prepared, shards", "import packing, prepared, shards")
    given: dict[str, Any] = {"continue_data": True, "behind": {"cpt": [3000, 1000]}}
    words = [sys.executable, "-c", code, str(store.root), "finish", str(time), json.dumps(given)]
    done = subprocess.run(words, cwd=REPOSITORY, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == -signal.SIGKILL
    (scratch,) = (path for path in store.work.iterdir() if path.name.startswith(KIND))
    found = [read_mapping(path) for path in sorted((scratch / "shards").glob("*.json"))]
    assert len(found) == time - 1
    last = found[-1]["state"]
    assert (len(last["passed"]) < 2) == passing
    assert (sum(shard["documents"] for shard in found) == 0) == passing

    asked: list[int] = []
    encode = shards.TokenShards.is_due

    def count(self: shards.TokenShards, passed: int) -> bool:
        asked.append(passed)
        return encode(self, passed)

    monkeypatch.setattr(shards.TokenShards, "is_due", count)
    corpus = Corpus()
    resumed, batches = build(store, corpus, tokenizer, **given), len(asked)
    files = {name: (made(store)[0] / name).read_bytes() for name in (ROWS, FACTS)}
    other = Store(store.root.with_name("other"))
    asked.clear()
    whole = build(other, corpus, tokenizer, **given)
    assert files == {name: (made(other)[0] / name).read_bytes() for name in (ROWS, FACTS)}
    assert resumed.counts == whole.counts
    assert batches < len(asked)  # what was passed over before it was killed was not tokenised again
