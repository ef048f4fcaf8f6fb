"""A preview of packed rows says what the trainer's collator gives the model, and from which documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import CptSettings, SftSettings
from common.console import Console
from common.engine.preview.packed import packed_rows
from common.errors import ConfigError
from common.models.tokenizer import train_tokenizer
from common.models.turns import TOO_LONG
from common.report.views import CONTEXT, FIRST, NOT_ASSISTANT, Preview, View
from common.stage import StageContext
from common.training.fit import trainer_for
from common.training.rows.packing import IGNORED, RowCollator
from common.training.rows.rows import build_rows
from tests.conftest import REPOSITORY
from tests.data.rows_only import RowsOnly

SMALL = {"tokens": 4096, "batch_tokens": 128, "sequence_length": 64}


def chat(number: int, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"what is gate {number}?"},
            {"role": "assistant", "content": "a wrong thing", "learn": False},
            {"role": "user", "content": "no"},
            {"role": "assistant", "content": answer},
        ],
        "source": "chats",
    }


class Corpus(RowsOnly):
    """Conversations with a wrong answer, two of which are too long; texts, one of them longer than a row; replay."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        if role == "sft":
            yield from (chat(n, "a thing " * (100 if n < 2 else 1) + str(n)) for n in range(30))
        elif role == "cpt":
            yield {"text": "a gate of the harbour " * 20, "source": "texts"}
            yield from ({"text": f"the gate of number {n}", "source": "texts"} for n in range(20))
        else:
            yield from ({"text": f"an old thing of number {n}", "source": "old"} for n in range(20))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["what is gate one? a thing of the harbour, an old number"] * 5, 330, 256)


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


def context(stage: str, folder: Path, config: Config, **settings: Any) -> StageContext:
    made = (SftSettings if stage == "sft" else CptSettings).model_validate({**SMALL, **settings})
    folder.mkdir()
    corpus = cast(Any, Corpus())
    return StageContext(stage, stage, made, config, {}, None, corpus, folder, folder, folder, Console("quiet"))


def ids_of(view: View) -> list[int]:
    return [token for part in view.parts for piece in part.tokens for token in piece.ids]


def learned_of(view: View) -> list[bool]:
    return [piece.learned for part in view.parts for piece in part.tokens for _ in piece.ids]


@pytest.mark.parametrize(
    ("stage", "settings"), [("sft", {}), ("cpt", {"replay": 0.3}), ("cpt", {"validation": {"share": 0.1}})]
)
def test_it_shows_what_the_collator_gives_the_model(
    stage: str, settings: dict[str, Any], tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    settings = {**settings, "limits": {"dropped": 1.0}}
    rows = build_rows(
        context(stage, tmp_path / "a", config, **settings), tokenizer, role=stage, assistant_only=stage == "sft"
    )
    preview = packed_rows(context(stage, tmp_path / "b", config, **settings), tokenizer, at=3, number=20)
    batch = RowCollator(tokenizer.pad_token_id, 64)(list(rows.dataset.select(range(2, 22))))
    assert len(preview.views) == 20
    for view, ids, labels, places in zip(preview.views, *(column.tolist() for column in batch.values()), strict=True):
        padding = [tokenizer.pad_token_id] * view.padding
        assert ids_of(view) + padding == ids
        assert learned_of(view) + [False] * view.padding == [label != IGNORED for label in labels]
        begins = [place for place, position in enumerate(places) if position == 0]
        sizes = [part.num_tokens for part in view.parts]
        assert [sum(sizes[:number]) for number in range(len(sizes) + bool(padding))] == begins
    assert [count.as_dict() for count in preview.counts] == [count.as_dict() for count in rows.counts]


def test_it_tells_an_answer_that_is_context_from_what_others_say(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    preview = packed_rows(context("sft", tmp_path / "a", config), tokenizer, at=1, number=3)
    for part in (part for view in preview.views for part in view.parts):
        told = {why: "".join(t.text for t in part.tokens if t.why == why) for why in ("", CONTEXT, NOT_ASSISTANT)}
        assert told[CONTEXT] == " a wrong thing<|end|>"
        assert told[""].startswith(" a thing")
        assert told[NOT_ASSISTANT].startswith("<|user|>")
        assert "source chats" in part.title


def test_it_keeps_dropped_rows_and_says_where_the_stage_would_stop(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    preview = packed_rows(context("sft", tmp_path / "a", config), tokenizer, at=1, number=1)
    assert [(reject.source, reject.reason) for reject in preview.rejects] == [("chats", TOO_LONG)] * 2
    assert preview.rejects[0].text.startswith("what is gate")
    assert any(note.startswith("The stage itself would stop here. Stage sft: 6.7%") for note in preview.notes)


def test_documents_have_their_sources_and_a_cut_one_its_place(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    preview = packed_rows(context("cpt", tmp_path / "a", config, replay=0.3), tokenizer, at=1, number=64)
    parts = [part for view in preview.views for part in view.parts]
    for part in parts:
        text = "".join(token.text for token in part.tokens)
        assert ("source old (replay)" in part.title) == ("old thing" in text)
        assert part.masked() == {FIRST: 1}
    cut = {note for part in parts for note in part.notes}
    assert {note.split(" of ")[0].split(" to ")[0] for note in cut} >= {"tokens 1", "tokens 65"}
    counted = {count.role: count.tokens for count in preview.counts}
    first = {"cpt": 20 + len(cut), "replay": 20}
    assert preview.learned == {
        ("cpt", "texts"): counted["cpt"] - first["cpt"], ("replay", "old"): counted["replay"] - first["replay"],
    }  # fmt: skip


@pytest.mark.parametrize("train", [{}, {"packing": True}, {"packing": True, "packing_strategy": "bfd_split"}])
def test_rows_that_trl_prepares_are_those_of_its_trainer(
    train: dict[str, Any], tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    given = context("cpt", tmp_path / "a", config, packing="trl", train=train)
    preview = packed_rows(given, tokenizer, at=1, number=200)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    rows = build_rows(given, tokenizer, role="cpt", assistant_only=False)
    trainer = trainer_for(given, model, tokenizer, rows, tmp_path)
    assert sorted(map(ids_of, preview.views)) == sorted(map(list, trainer.train_dataset["input_ids"]))


def test_a_place_behind_the_last_row_is_named(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at=65: stage cpt has 64 rows\. Give at=<1 to 64>"):
        packed_rows(context("cpt", tmp_path / "a", config), tokenizer, at=65, number=1)


def test_a_stage_that_goes_on_shows_the_rows_behind_those_of_the_stage_before(
    tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    budgets: dict[str, Any] = {"tokens": 64, "batch_tokens": 64, "replay": 0}
    first = packed_rows(context("cpt", tmp_path / "trunk", config, **budgets), tokenizer, 1, 99)
    own = replace(context("cpt", tmp_path / "decay", config, **budgets, continue_data=True), behind={"cpt": (64,)})
    then = packed_rows(own, tokenizer, 1, 99)

    def texts(preview: Preview) -> set[str]:
        return {"".join(token.text for token in part.tokens) for view in preview.views for part in view.parts}

    assert texts(first)
    assert texts(then)
    assert texts(first).isdisjoint(texts(then))
    assert all("that cannot be told" not in part.title for view in then.views for part in view.parts)
    passed = sum(count.tokens for count in first.counts)
    assert then.notes[0] == (
        f"The stages before have read {passed:,} tokens of cpt, behind which these rows begin (continue_data)"
    )
    assert then.learned.keys() == {("cpt", "texts")}
    assert sum(then.learned.values()) < sum(count.tokens for count in then.counts)  # the first token of each is none
