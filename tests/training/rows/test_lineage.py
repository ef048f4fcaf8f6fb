"""Replay of what the chain has read: from every stage by what it read, drawn from the store, the same each time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from common.config.stages import CptSettings
from common.data.accounting import RowCount
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext, data_roles
from common.store.artifacts import Artifact, Store
from common.store.leases import leased
from common.store.shared import SharedResults
from common.training.rows.rows import TrainingRows, build_rows

SETTINGS = {"tokens": 4096, "batch_tokens": 256, "sequence_length": 64, "limits": {"dropped": 1}}
TOKENIZER = "t"


class Corpus:
    """Texts that name their domain."""

    def __init__(self, domain: str) -> None:
        self.domain = domain

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return iter({"text": f"{self.domain} number {n} " * (n % 5 + 1), "source": self.domain} for n in range(300))

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return [{"role": role, "domain": self.domain} for role in roles]

    def counts(self, role: str) -> dict[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["alpha number one, beta number two, gamma number three"] * 20, 300, 256)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def parent_of(*read: tuple[str, dict[str, int]]) -> Artifact:
    entries = [
        {"stage": "cpt", "domain": domain, "fingerprint": domain, "sources": [], "read": parts, "tokenizer": TOKENIZER}
        for domain, parts in read
    ]
    return Artifact(Path(), {"kind": "cpt", "lineage": entries, "files": {"tokenizer.json": {"sha256": TOKENIZER}}})


def build(store: Store, domain: str, tokenizer: Any, parent: Artifact | None = None, **words: Any) -> TrainingRows:
    folder = store.work / f"cpt-{domain}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "code").write_text("code")
    with leased(store.artifacts) as lease:
        context = SimpleNamespace(
            corpus=Corpus(domain), config=SimpleNamespace(seed=0), stage="cpt", work=folder, parent="cpt",
            inputs={"cpt": parent} if parent else {}, parent_artifact=parent, benchmarks=(),
            shared=SharedResults(store, lease, folder, lambda module: "1", True, print),
            settings=CptSettings.model_validate({**SETTINGS, **words}),
        )  # fmt: skip
        return build_rows(cast(StageContext, context), tokenizer, role="cpt", assistant_only=False)


def test_replay_is_drawn_from_every_stage_by_what_it_has_read(store: Store, tokenizer: Any) -> None:
    alpha = build(store, "alpha", tokenizer, tokens=8192)
    beta = build(store, "beta", tokenizer, sequence_length=32)
    assert sum(alpha.read.values()) == 8192
    parent = parent_of(("alpha", alpha.read), ("beta", beta.read))
    rows = build(store, "gamma", tokenizer, parent, replay=0.5, replay_from="lineage")
    replayed = {count.source: count.tokens for count in rows.counts if count.role == "replay"}
    assert set(replayed) == {"read by cpt (alpha)", "read by cpt (beta)"}
    assert replayed["read by cpt (alpha)"] == pytest.approx(2 * replayed["read by cpt (beta)"], rel=0.01)
    texts = [tokenizer.decode(row["input_ids"]) for row in rows.dataset]
    share = sum("alpha" in text or "beta" in text for text in texts) / len(texts)
    assert share == pytest.approx(0.5, abs=0.02)
    assert max(len(row["input_ids"]) for row in rows.dataset) <= 64, "packed again for this stage"
    assert sum(rows.read.values()) == 4096
    again = build(store, "gamma", tokenizer, parent, replay=0.5, replay_from="lineage")
    assert [row["input_ids"] for row in again.dataset] == [row["input_ids"] for row in rows.dataset]


def test_rows_that_two_stages_have_read_are_said_to_be_of_both(store: Store, tokenizer: Any) -> None:
    alpha = build(store, "alpha", tokenizer)
    parent = parent_of(("alpha", alpha.read), ("beta", alpha.read))
    rows = build(store, "gamma", tokenizer, parent, replay=0.5, replay_from="lineage")
    assert {count.source for count in rows.counts if count.role == "replay"} == {"read by cpt (alpha), cpt (beta)"}


def test_documents_stay_whole_and_every_token_of_them_is_learned(store: Store, tokenizer: Any) -> None:
    alpha = build(store, "alpha", tokenizer)
    rows = build(store, "beta", tokenizer, parent_of(("alpha", alpha.read)), replay=0.25, replay_from="lineage")
    known = {tuple(part) for row in alpha.dataset for part in _documents(row)}
    drawn = [part for row in rows.dataset if "alpha" in tokenizer.decode(row["input_ids"]) for part in _documents(row)]
    assert sum(tuple(part) in known for part in drawn) >= len(drawn) - 1, "the last one may be cut"
    assert all(row["labels"] == row["input_ids"] for row in rows.dataset)


def test_rows_that_the_stage_keeps_for_validation_are_not_replayed(store: Store, tokenizer: Any) -> None:
    held: dict[str, Any] = {"validation": {"share": 0.25}}
    alpha = build(store, "alpha", tokenizer, tokens=2048, **held)
    rows = build(store, "alpha", tokenizer, parent_of(("alpha", alpha.read)), replay=0.5, replay_from="lineage", **held)
    assert alpha.read.keys() < rows.read.keys()
    assert rows.validation is not None
    kept = {tuple(part) for row in rows.validation for part in _documents(row)}
    trained = {tuple(part) for row in rows.dataset for part in _documents(row)}
    assert len(kept) > 5
    assert not kept & trained


def _documents(row: Any) -> list[list[int]]:
    return [part.tolist() for part in np.split(np.asarray(row["input_ids"]), np.cumsum(row["seq_lengths"])[:-1])]


def test_the_first_stage_of_a_chain_replays_nothing(store: Store, tokenizer: Any) -> None:
    rows = build(store, "alpha", tokenizer, parent_of(), replay=0.5, replay_from="lineage")
    assert {count.role for count in rows.counts} == {"cpt"}


def test_rows_that_are_gone_are_named(store: Store, tokenizer: Any) -> None:
    parent = parent_of(("alpha", {"tokens-0123456789abcdef": 64}))
    with pytest.raises(
        DataError, match=r"cpt\.replay_from=lineage needs tokens-0123456789abcdef.* gone from the store"
    ):
        build(store, "beta", tokenizer, parent, replay=0.5, replay_from="lineage")


def test_the_role_replay_is_no_part_of_such_a_stage() -> None:
    settings = CptSettings.model_validate({**SETTINGS, "replay": 0.5, "replay_from": "lineage"})
    assert data_roles("cpt", cast(Any, Corpus("x")), settings) == ["cpt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [({"replay": 1}, "leaves nothing new to read"), ({"replay": 0.2, "packing": "trl"}, "packing: trl has none of")],
)
def test_what_cannot_be_replayed_is_refused(words: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        CptSettings.model_validate({**SETTINGS, **words, "replay_from": "lineage"})
