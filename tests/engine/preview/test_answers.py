"""Pairs that a sample stage wrote are shown as they are trained on, and prompts without those kept to measure by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.answering import GrpoSettings
from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import DpoSettings, RewardSettings
from common.console import Console
from common.engine.preview.answers import preference_rows, prompt_rows
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.report.views import PROMPT
from common.stage import StageContext
from common.store.artifacts import Artifact, write_rows
from common.training.rows.preferences import read_pairs
from tests.conftest import REPOSITORY
from tests.data.rows_only import RowsOnly


class Corpus(RowsOnly):
    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        for number in range(12):
            yield {"prompt": asked(number), "answer": f"{number}", "source": "sums"}
        yield {"prompt": asked(3), "answer": "3", "source": "sums"}


def asked(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"what is sum {number}?"}]


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["what is sum one? it is right, or it is wrong"] * 5, 330, 256)


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


def context(kind: str, settings: Any, config: Config, folder: Path, pairs: list[dict[str, Any]]) -> StageContext:
    write_rows(folder / "pairs.jsonl", pairs)
    inputs = {"sample": Artifact(folder, {"kind": "sample", "stage": "sample"})} if pairs else {}
    corpus = cast(Any, Corpus())
    return StageContext(kind, kind, settings, config, inputs, None, corpus, folder, folder, folder, Console("quiet"))


def pairs_of(number: int) -> list[dict[str, Any]]:
    return [
        {"prompt": asked(n), "chosen": said(f"right {n}"), "rejected": said("wrong"), "source": "sums (sampled)"}
        for n in range(number)
    ]


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_sampled_pairs_are_those_that_train(kind: str, tokenizer: Any, config: Config, tmp_path: Path) -> None:
    settings = DpoSettings() if kind == "dpo" else RewardSettings()
    given = context(kind, settings, config, tmp_path, [*pairs_of(9), {**pairs_of(1)[0], "rejected": said("right 0")}])
    preview = preference_rows(given, tokenizer, at=2, number=4)
    pairs, counts = read_pairs(given, tokenizer, "preference")
    assert len(preview.views) == 4
    for view, pair in zip(preview.views, pairs[1:], strict=False):
        prompt, *answers = ([token for piece in part.tokens for token in piece.ids] for part in view.parts)
        assert [prompt + answer for answer in answers] == [pair.chosen_ids, pair.rejected_ids]
        assert all(piece.why == PROMPT for piece in view.parts[0].tokens)
        assert all(piece.learned == (kind == "dpo") for part in view.parts[1:] for piece in part.tokens)
        assert "source sums (sampled)" in view.parts[0].title
    learned = sum(len(ids) - pair.start for pair in pairs for ids, _ in pair.sides)
    assert preview.learned == {("preference", "sums (sampled)"): learned if kind == "dpo" else 0}
    assert [count.as_dict() for count in preview.counts] == [count.as_dict() for count in counts]
    assert [reject.reason for reject in preview.rejects] == ["equal sides"]


def test_pairs_beyond_the_budget_are_not_shown(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    settings = DpoSettings.model_validate({"epochs": 0.5, "batch_pairs": 2})
    preview = preference_rows(context("dpo", settings, config, tmp_path, pairs_of(8)), tokenizer, at=1, number=9)
    assert len(preview.views) == 4
    assert "Of 8 usable rows the first 4 train, as the budget is less than a pass" in preview.notes


def test_prompts_are_shown_without_those_that_are_kept(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    settings = GrpoSettings.model_validate({"watch": {"prompts": 8}, "prompts_per_step": 2})
    preview = prompt_rows(context("grpo", settings, config, tmp_path, []), tokenizer, at=1, number=10)
    assert len(preview.views) == 4
    text = "".join(token.text for token in preview.views[0].parts[0].tokens)
    assert text.startswith("<|user|> what is sum")
    assert text.endswith("<|end|><|assistant|>")
    assert preview.views[0].parts[0].notes[0].startswith("right answer: '")
    assert [reject.reason for reject in preview.rejects] == ["duplicate"]
    kept = GrpoSettings.model_validate({"watch": {"prompts": 12}, "prompts_per_step": 2})
    with pytest.raises(DataError, match="Stage grpo has 12 usable prompts, and keeps 12 from training"):
        prompt_rows(context("grpo", kept, config, tmp_path, []), tokenizer, at=1, number=1)


def test_no_usable_pair_says_what_was_lost(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    equal = [{**pair, "rejected": pair["chosen"]} for pair in pairs_of(5)]
    given = context("dpo", DpoSettings(), config, tmp_path, equal)
    with pytest.raises(
        DataError, match=r"pairs\.jsonl of the stage 'sample' has no usable row .*dropped equal sides 5"
    ):
        preference_rows(given, tokenizer, at=1, number=1)
