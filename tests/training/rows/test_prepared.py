"""Prepared rows are shared by all that would make the same, never by others, and survive a kill at any moment."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.stages import CptSettings
from common.console import Console
from common.data.accounting import RowCount
from common.data.exam_passages import Passage
from common.errors import StoreError
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from common.store.artifacts import Artifact, Store, writing
from common.store.collection import collect
from common.store.leases import leased
from common.store.manifest import READS, read_mapping
from common.store.shared import SharedResults
from common.store.verify import verify
from common.training.rows import prepared, shards
from common.training.rows.prepared import KIND, fingerprint_of_tokenizer
from common.training.rows.rows import TrainingRows, build_rows
from tests.conftest import REPOSITORY, long

PLAIN = {"tokens": 4096, "batch_tokens": 256, "sequence_length": 64, "replay": 0, "limits": {"dropped": 1}}


class Corpus:
    """Texts of every role, some of them in the exam, and how often they were read."""

    def __init__(self, revision: str = "a", number: int = 300) -> None:
        self.revision, self.number, self.reads = revision, number, 0

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        self.reads += role == "cpt"
        number = 2 if role == "text_domain" else self.number
        return iter({"text": f"a text has number {n} " * (n % 9 + 1), "source": f"s{n % 2}"} for n in range(number))

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return [{"role": role, "digest": self.revision} for role in roles]

    def counts(self, role: str) -> dict[str, RowCount]:
        return {"s1": RowCount("s1", role, rows_out=self.number // 2, dropped={"empty text": 40})}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ("text_domain",)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["cpt has a text of number one, and replay has one too"], 300, 256)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def build(
    store: Store,
    corpus: Corpus,
    tokenizer: Any,
    work: str = "cpt-0123456789abcdef",
    code: str = "1",
    cleaned: str = "a",
    benchmarks: tuple[Passage, ...] = (),
    **words: Any,
) -> TrainingRows:
    """Build the rows of a stage that shares its tokens; `behind` are budgets that stages before have read, by role."""
    given = {**PLAIN, **words}
    folder = store.work / work
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "code").write_text("code")
    with leased(store.artifacts) as lease:
        shared = SharedResults(store, lease, folder, lambda module: code, True, print)
        facts = {"kind": "clean", "digest": cleaned, "fingerprint": "f"}
        context = SimpleNamespace(
            corpus=corpus, config=SimpleNamespace(seed=given.pop("seed", 0)), stage="cpt", work=folder,
            inputs={"data-cpt": Artifact(folder, facts)} if cleaned else {},
            behind=given.pop("behind", {}), settings=CptSettings.model_validate(given), shared=shared,
            benchmarks=benchmarks, console=Console("quiet"),
        )  # fmt: skip
        return build_rows(cast(StageContext, context), tokenizer, role="cpt", assistant_only=False)


def made(store: Store) -> list[Path]:
    return sorted(store.artifacts.glob(f"{KIND}-*"))


def test_a_second_stage_reads_no_row_again_and_learns_the_same(store: Store, tokenizer: Any) -> None:
    corpus = Corpus()
    first = build(store, corpus, tokenizer)
    second = build(store, corpus, tokenizer, "cpt-1123456789abcdef", batch_tokens=128)
    assert corpus.reads == 1
    (folder,) = made(store)
    assert second.samples == first.samples
    assert len(first.samples) == 64
    assert second.steps == 2 * first.steps
    assert [(c.source, c.tokens, c.dropped) for c in second.counts] == [
        (c.source, c.tokens, c.dropped) for c in first.counts
    ]
    assert {c.source: c.dropped.get("exam overlap") for c in first.counts} == {"s0": 1, "s1": 1}
    assert list(verify(store, lambda size: None)) == [None]
    assert set(read_mapping(store.work / "cpt-1123456789abcdef" / READS)) == {folder.name}


def test_the_rows_are_those_of_a_stage_by_itself(store: Store, tokenizer: Any, tmp_path: Path) -> None:
    shared = build(store, Corpus(), tokenizer, replay=0.25)
    settings = CptSettings.model_validate({**PLAIN, "replay": 0.25})
    context = SimpleNamespace(
        corpus=Corpus(), config=SimpleNamespace(seed=0), stage="cpt", inputs={}, work=tmp_path,
        settings=settings, shared=None, benchmarks=(),
    )  # fmt: skip
    alone = build_rows(cast(StageContext, context), tokenizer, role="cpt", assistant_only=False)
    assert len(made(store)) == 2
    assert shared.dataset.to_list() == alone.dataset.to_list()
    assert shared.counts == alone.counts


def _template(tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template += " "
    return tokenizer


def _token(tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<new>"])
    return tokenizer


@pytest.mark.parametrize("other", [
    {"corpus": Corpus("b")}, {"cleaned": "b"}, {"change": _template}, {"change": _token}, {"tokens": 2048},
    {"sequence_length": 128}, {"seed": 1}, {"code": "2"},
    {"corpus": Corpus("b"), "cleaned": ""}, {"cleaned": "", "benchmarks": (Passage("What is asked?"),)},
], ids=["exam", "cleaned", "template", "token", "budget", "length", "seed", "code", "corpus", "asked"])  # fmt: skip
def test_others_share_nothing(other: dict[str, Any], store: Store, tokenizer: Any) -> None:
    other = dict(other)
    build(store, Corpus(), tokenizer, cleaned=other.get("cleaned", "a") and "a")
    change: Callable[[Any], Any] = other.pop("change", copy.deepcopy)
    corpus = other.pop("corpus", Corpus())
    build(store, corpus, change(tokenizer), "cpt-1123456789abcdef", **other)
    assert len(made(store)) == 2
    assert corpus.reads == 1


def test_use_changes_no_fingerprint_of_a_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    before = fingerprint_of_tokenizer(tokenizer)
    used = copy.deepcopy(tokenizer)
    used(["a text", "a longer text"], padding=True, truncation=True, max_length=2)
    assert fingerprint_of_tokenizer(used) == before
    tokenizer.save_pretrained(tmp_path)
    loaded = fingerprint_of_tokenizer(AutoTokenizer.from_pretrained(tmp_path))
    assert loaded == fingerprint_of_tokenizer(AutoTokenizer.from_pretrained(shutil.copytree(tmp_path, tmp_path / "b")))


def test_damaged_rows_are_made_again(store: Store, tokenizer: Any) -> None:
    corpus = Corpus()
    before = build(store, corpus, tokenizer).dataset.to_list()
    file = made(store)[0] / prepared.ROWS
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    (found,) = verify(store, lambda size: None)
    assert found is not None
    assert found.advice == "The next stage that needs it makes it again."
    assert build(store, corpus, tokenizer, "cpt-1123456789abcdef").dataset.to_list() == before
    assert corpus.reads == 2
    shutil.rmtree(made(store)[0])
    assert build(store, corpus, tokenizer).dataset.to_list() == before  # the stage goes on, and its rows are gone


@pytest.mark.parametrize("failing", ["00000.new", "00000.json", "rows.arrow", "rows.json"])
def test_a_full_disk_while_tokenising_is_one_error_and_the_next_run_goes_on(
    store: Store, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, failing: str, tmp_path: Path
) -> None:
    whole = build(Store(tmp_path / "whole"), Corpus(), tokenizer)
    sync = os.fsync

    def full(descriptor: int) -> None:
        if failing in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"is full .*Nothing half-made is kept"), writing(store.artifacts):
            build(store, Corpus(), tokenizer)
    assert made(store) == []
    again = build(store, Corpus(), tokenizer)
    assert again.dataset.to_list() == whole.dataset.to_list()
    assert again.counts == whole.counts


def test_rows_stay_as_long_as_a_stage_needs_them(store: Store, tokenizer: Any) -> None:
    build(store, Corpus(), tokenizer)
    folder = made(store)[0]
    collect(store, dry=False)
    assert folder.is_dir()  # the stage was stopped, and goes on
    work = store.work / "cpt-0123456789abcdef"
    reads = {"reads": read_mapping(work / READS)}
    (work / "out").mkdir()
    done = store.commit(
        "cpt", "0123456789abcdef", work / "out", {"stage": "cpt", "fingerprint": "0123456789abcdef", **reads}
    )
    shutil.rmtree(work)
    with leased(store.artifacts) as lease:
        lease.add(done.path.name)
        collect(store, dry=False)
        assert folder.is_dir()
    collect(store, dry=False)
    assert not folder.exists()


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from common.store.artifacts import Store
    from common.training.rows import prepared, shards
    from tests.training.rows import test_prepared as tests

    shards.SHARD = 300
    number = 0
    moments = {"finish": shards.TokenShards, "pack": shards.TokenShards, "commit": Store}
    name = sys.argv[2]
    original = getattr(moments[name], name)

    def killed(*given, **options):
        global number
        number += 1
        if number == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **options)

    setattr(moments[name], name, killed)
    words = json.loads(sys.argv[4]) if sys.argv[4:] else {}
    tests.build(Store(Path(sys.argv[1])), tests.Corpus(), tests.tokenizer.__wrapped__(), **words)
"""


@pytest.mark.parametrize(("moment", "time", "kept"), [long("finish", 1, 0), ("finish", 5, 4), long("pack", 1, -1)])
def test_a_killed_preparation_goes_on_behind_its_last_shard(
    moment: str, time: int, kept: int, store: Store, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 300)
    monkeypatch.setattr("common.training.rows.packing.BATCH", 7)
    code = textwrap.dedent(KILLED).replace("shards.SHARD = 300", "shards.SHARD = 300; packing.BATCH = 7")
    code = code.replace("import prepared, shards", "import packing, prepared, shards")
    words = [sys.executable, "-c", code, str(store.root), moment, str(time)]
    done = subprocess.run(words, cwd=REPOSITORY, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == -signal.SIGKILL
    (scratch,) = (path for path in store.work.iterdir() if path.name.startswith(KIND))
    left = len(list((scratch / "shards").glob("*.json")))
    assert left == kept if kept >= 0 else left > 5
    collect(store, dry=False)
    assert scratch.is_dir()  # the stage that was stopped goes on there

    tokenised: list[int] = []
    add = shards.TokenShards.add

    def count(self: shards.TokenShards, row: shards.TokenRow) -> None:
        tokenised.append(len(row.input_ids))
        add(self, row)

    monkeypatch.setattr(shards.TokenShards, "add", count)
    build(store, Corpus(), tokenizer)
    resumed, number = _whole(store), len(tokenised)
    shutil.rmtree(store.root)
    tokenised.clear()
    build(store, Corpus(), tokenizer)
    assert resumed == _whole(store)
    assert (number < len(tokenised)) == (kept != 0)


def _whole(store: Store) -> dict[str, str]:
    (folder,) = made(store)
    manifest = Artifact(folder, read_mapping(folder / "manifest.json")).manifest
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}
