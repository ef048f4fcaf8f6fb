"""Which roles a stage trains on, by its share of replay, whoever packs the rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.stages import CptSettings, SftSettings
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.models.turns import NOT_A_PREFIX
from common.stage import StageContext, data_roles
from common.training.rows.prepared import KIND
from common.training.rows.rows import MADE, ROWS, build_rows
from tests.data.rows_only import RowsOnly


class Corpus(RowsOnly):
    """Forty texts of every role, each of which names its role."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return iter({"text": f"{role} has a text of number {number}", "source": role} for number in range(40))


def context_of(corpus: Any, settings: Any, work: Path) -> StageContext:
    """What a stage of continued pre-training gets that builds its rows."""
    return cast(StageContext, SimpleNamespace(
        corpus=corpus, config=SimpleNamespace(seed=0), stage="cpt", settings=settings, work=work, inputs={},
        shared=None, benchmarks=(),
    ))  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["cpt has a text of number one, and replay has one too"], 300, 256)


@pytest.mark.parametrize("packing", ["isolated", "trl"])
@pytest.mark.parametrize(("replay", "roles"), [(0.0, {"cpt"}), (0.25, {"cpt", "replay"}), (1.0, {"replay"})])
def test_rows_are_of_the_roles_that_the_recipe_lists(
    packing: str, replay: float, roles: set[str], tokenizer: Any, tmp_path: Path
) -> None:
    settings = CptSettings.model_validate(
        {"packing": packing, "replay": replay, "tokens": 2048, "batch_tokens": 256, "sequence_length": 64}
    )
    context = context_of(Corpus(), settings, tmp_path)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert {count.role for count in rows.counts} == roles
    assert roles == set(data_roles("cpt", cast(Any, Corpus()), settings, sampled=False)) & {"cpt", "replay"}
    trained = [tokenizer.decode(row["input_ids"]) for row in rows.dataset]
    assert {role for role in ("cpt", "replay") for text in trained if f"{role} has" in text} == roles


@pytest.mark.parametrize("packing", ["isolated", "trl"])
@pytest.mark.parametrize("replay", [0.0, 0.25])
def test_passes_are_of_the_rows_of_the_stage_with_replay_beside_them(
    packing: str, replay: float, tokenizer: Any, tmp_path: Path
) -> None:
    settings = CptSettings.model_validate({
        "packing": packing, "replay": replay, "tokens": None, "epochs": 8, "batch_tokens": 64, "sequence_length": 64,
        "train": {"packing": True} if packing == "trl" else {},
    })  # fmt: skip
    context = context_of(Corpus(), settings, tmp_path)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    (own,) = (count for count in rows.counts if count.role == "cpt")
    assert own.epochs == pytest.approx(8, rel=0.05)


class Sources(Corpus):
    """Texts of two sources, of which one has three times as many."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        texts = [("web", number) for number in range(90)] + [("books", number) for number in range(30)]
        return iter({"text": f"{source} has a text of number {n}", "source": source} for source, n in texts)

    def conversations(self, role: str) -> dict[str, bool]:
        return {"web": False, "books": False}


def test_a_mixture_is_met_and_replay_keeps_its_share(tokenizer: Any, tmp_path: Path) -> None:
    phases = [{"until": 0.5, "shares": {"web": 1}}, {"until": 1, "shares": {"web": 0.5, "books": 0.5}}]
    settings = CptSettings.model_validate({
        "tokens": 8192, "batch_tokens": 256, "sequence_length": 64, "replay": 0.25, "mixture": {"phases": phases},
    })  # fmt: skip
    context = context_of(Sources(), settings, tmp_path)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert {name: (fact["asked"], fact["real"]) for name, fact in (rows.mixture or {}).items()} == {
        "web": (0.75, 0.75), "books": (0.25, 0.25),
    }  # fmt: skip
    assert [(count.role, count.source) for count in rows.counts][:2] == [("cpt", "web"), ("cpt", "books")]
    texts = [tokenizer.decode(row["input_ids"]) for row in rows.dataset]
    assert len(texts) == 8192 // 64
    assert sum("books has" in text for text in texts[: len(texts) // 2]) <= 0.25 * len(texts) / 2  # replay has both
    again = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert [row["input_ids"] for row in again.dataset] == [row["input_ids"] for row in rows.dataset]


@pytest.mark.parametrize(("mixture", "web"), [({"most_epochs": 9}, 0.714), ({"temperature": 2}, 0.613), ({}, 0.714)])
def test_shares_by_what_sources_hold_do_not_depend_on_the_budget(
    mixture: dict[str, Any], web: float, tokenizer: Any, tmp_path: Path
) -> None:
    settings = CptSettings.model_validate({
        "tokens": 512, "batch_tokens": 256, "sequence_length": 64, "mixture": mixture or {"curriculum": {}},
    })  # fmt: skip
    context = context_of(Sources(), settings, tmp_path)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert rows.mixture is not None
    assert rows.mixture["web"]["asked"] == pytest.approx(web, abs=0.01)
    assert [(count.rows_in, count.cut_short) for count in rows.counts] == [(90, False), (30, False)]


def test_a_budget_that_ends_reading_leaves_a_bound_on_passes(tokenizer: Any, tmp_path: Path) -> None:
    settings = CptSettings.model_validate({
        "tokens": 512, "batch_tokens": 256, "sequence_length": 64, "mixture": {"shares": {"web": 0.5, "books": 0.5}},
    })  # fmt: skip
    context = context_of(Sources(), settings, tmp_path)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert [count.passes for count in rows.counts] == ["at most 1", "0.5"]  # the books end before the budget
    assert rows.mixture is not None
    assert rows.mixture["web"]["cut_short"]
    assert "cut_short" not in rows.mixture["books"]


class Conversations(Corpus):
    """Forty conversations of the role sft, and texts of every other."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        asked = {"role": "user", "content": "cpt has a text?"}
        chats = [asked, {"role": "assistant", "content": "replay has one too"}]
        return iter([{"messages": chats, "source": role}] * 40) if role == "sft" else super().rows(role)


LOUD = "{% for m in messages %}<|user|>{{ m.content | upper if add_generation_prompt else m.content }}{% endfor %}"


@pytest.mark.parametrize("packing", ["isolated", "trl"])
@pytest.mark.parametrize(("replay", "template", "message"), [
    (0.3, None, r"Stage sft: the role replay has no usable row \(source 'replay': 40 texts, which have no answers\)\. "
     r"Add conversations with role: replay, or set sft\.replay=0\."),
    (0.0, LOUD, rf"Stage sft: the role sft has no usable row \(source 'sft': dropped {NOT_A_PREFIX} 40\)\. "
     r"The checkpoint's chat template may be the cause: try model\.chat_template=plain"),
])  # fmt: skip
def test_a_part_without_a_usable_row_says_what_was_found(
    replay: float, template: str | None, message: str, packing: str, tokenizer: Any, tmp_path: Path
) -> None:
    settings = SftSettings.model_validate(
        {"packing": packing, "replay": replay, "tokens": 2048, "batch_tokens": 256, "sequence_length": 64}
    )
    context = cast(StageContext, SimpleNamespace(
        corpus=Conversations(), config=SimpleNamespace(seed=0), stage="sft", settings=settings, work=tmp_path,
        inputs={}, shared=None, benchmarks=(),
    ))  # fmt: skip
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template or tokenizer.chat_template
    with pytest.raises(DataError, match=message):
        build_rows(context, tokenizer, role="sft", assistant_only=True)


class TooLong(Corpus):
    """Ten conversations, each longer than any sequence."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        chats = [{"role": "user", "content": "a text?"}, {"role": "assistant", "content": "one text " * 200}]
        return iter([{"messages": chats, "source": role}] * 10)


def test_conversations_that_are_all_too_long_say_so_before_they_are_packed(tokenizer: Any, tmp_path: Path) -> None:
    settings = SftSettings.model_validate({"tokens": 2048, "batch_tokens": 256, "sequence_length": 64, "replay": 0})
    context = cast(StageContext, SimpleNamespace(
        corpus=TooLong(), config=SimpleNamespace(seed=0), stage="sft", settings=settings, work=tmp_path,
        inputs={}, shared=None, benchmarks=(),
    ))  # fmt: skip
    message = (
        r"Stage sft: the role sft has no usable row \(source 'sft': dropped longer than sequence_length 10\)\. "
        r"Raise sequence_length, or leave such rows out with longest\."
    )
    with pytest.raises(DataError, match=message):
        build_rows(context, tokenizer, role="sft", assistant_only=True)


class Weighted(Corpus):
    """Conversations whose first answer is context only; every fourth has no other."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        wrong = [{"role": "user", "content": "cpt?"}, {"role": "assistant", "content": "wrong", "learn": False}]
        right = [{"role": "user", "content": "replay?"}, {"role": "assistant", "content": "has one"}]
        return iter({"messages": wrong + right * bool(n % 4), "source": role} for n in range(40))


@pytest.mark.parametrize("packing", ["isolated", "trl"])
def test_turns_that_are_context_only_carry_no_loss_whoever_packs(packing: str, tokenizer: Any, tmp_path: Path) -> None:
    settings = SftSettings.model_validate(
        {"packing": packing, "tokens": 2048, "batch_tokens": 256, "sequence_length": 64, "replay": 0}
    )
    context = cast(StageContext, SimpleNamespace(
        corpus=Weighted(), config=SimpleNamespace(seed=0), stage="sft", settings=settings, work=tmp_path,
        inputs={}, shared=None, benchmarks=(),
    ))  # fmt: skip
    rows = build_rows(context, tokenizer, role="sft", assistant_only=True)
    (count,) = rows.counts
    assert count.dropped == {"every answer is context only": 10}
    assert count.num_lost == 0  # the data ask for it
    for row in rows.dataset:
        learned = tokenizer.decode([token for token in row["labels"] if token >= 0])
        assert set(learned.split("<|end|>")) == {" has one", ""}
        assert "wrong" in tokenizer.decode(row["input_ids"])


def test_rows_are_on_the_disk_before_the_file_that_says_so(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut that file may be there and what it names cut short; the same command would fail for good."""
    forced: list[tuple[int, int]] = []
    force = os.fsync

    def note(descriptor: int) -> None:
        force(descriptor)
        facts = os.fstat(descriptor)
        forced.append((facts.st_ino, facts.st_size))

    monkeypatch.setattr(os, "fsync", note)
    settings = CptSettings.model_validate(
        {"replay": 0.25, "tokens": 2048, "batch_tokens": 256, "sequence_length": 64, "validation": {"share": 0.1}}
    )
    context = context_of(Corpus(), settings, tmp_path)
    build_rows(context, tokenizer, role="cpt", assistant_only=False)
    order = {path.name: path.stat() for path in (tmp_path / ROWS).iterdir()}
    files = [*order.values(), *(path.stat() for path in (tmp_path / KIND).rglob("*") if path.is_file())]
    assert len(files) == 7
    assert forced.index((order[MADE].st_ino, order[MADE].st_size)) == len(forced) - 1
    assert set(forced) >= {(facts.st_ino, facts.st_size) for facts in files}
