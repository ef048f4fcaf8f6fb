"""What becomes of sampled answers: which are right, which make a pair, how prompts share batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.answering import GrpoSettings, SampleSettings
from common.config.base import Limits
from common.data.accounting import RowCount, check_limits
from common.errors import ContractError, DataError
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from common.training.rows.prompts import read_prompts
from common.training.sampling import (
    PromptSamples,
    Sample,
    batches_of,
    facts_of,
    pairs_of,
    prompt_rows,
    read_drawn,
    right_answers,
    write_drawn,
)
from tests.data.rows_only import RowsOnly


def asked(*answers: tuple[str, float, bool], question: str = "q") -> PromptSamples:
    row = {"prompt": [{"role": "user", "content": question}], "answer": "4", "source": "s"}
    return PromptSamples(row, [Sample(text, stopped, 3, reward) for text, reward, stopped in answers])


def texts(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


def test_right_answers_stopped_and_differ() -> None:
    drawn = [asked(("4", 1.1, True), ("4", 1.1, True), ("four, 4", 1.0, False), ("5", 0.1, True), ("", 1.0, True))]
    rows, left_out = right_answers([drawn], SampleSettings())
    assert texts(rows) == ["4"]
    assert rows[0]["source"] == "s (sampled)"
    assert left_out == {"duplicate": 1}


def test_no_answer_comes_twice_over_rounds_and_easy_prompts_give_few() -> None:
    rounds = [[asked(("a", 1, True), ("b", 1, True))], [asked(("b", 1, True), ("c", 1, True), ("d", 1, True))]]
    rows, left_out = right_answers(rounds, SampleSettings(keep=3))
    assert texts(rows) == ["a", "b", "c"]
    assert left_out == {"duplicate": 1, "more than keep": 1}


@pytest.mark.parametrize(
    ("answers", "margin", "expected"),
    [
        ([("worst", 0.0, True), ("best", 1.0, True), ("middle", 0.5, True)], 0.0, ("best", "worst")),
        ([("best but endless", 2.0, False), ("good", 1.0, True), ("bad", 0.0, True)], 0.0, ("good", "bad")),
        ([("good", 1.0, True), ("endless", 0.0, False), ("bad", 0.5, True)], 0.0, ("good", "bad")),
        ([("a", 1.0, True), ("b", 1.0, True)], 0.0, "tie"),
        ([("a", 1.0, True), ("b", 0.9, True)], 0.5, "below margin"),
        ([("a", 1.0, False), ("b", 0.0, False)], 0.0, "no answer stopped"),
        ([("", 1.0, True), ("b", 0.0, True)], 0.0, "tie"),
    ],
)
def test_a_pair_is_the_best_answer_against_the_worst(answers: Any, margin: float, expected: Any) -> None:
    rows, left_out = pairs_of([asked(*answers)], margin)
    if isinstance(expected, str):
        assert (rows, left_out) == ([], {expected: 1})
    else:
        assert (rows[0]["chosen"][0]["content"], rows[0]["rejected"][0]["content"]) == expected
        assert not left_out


def test_what_is_told_of_a_draw() -> None:
    drawn = [
        asked(("4", 1.0, True), ("4", 1.0, True), question="easy"),
        asked(("4", 1.0, True), ("5", 0.0, True), question="hard"),
        asked(("5", 0.0, True), ("endless 4", 1.0, False), question="never"),
    ]
    facts = facts_of(drawn, 1.0)
    assert (facts["answers_right"], facts["unstopped"]) == (0.5, round(1 / 6, 4))
    assert {name: n for name, n in facts["pass_rates"].items() if n} == {"0": 1, "to 1/2": 1, "1": 1}
    assert [row["pass_rate"] for row in prompt_rows(drawn, 1.0)] == [1.0, 0.5, 0.0]


def test_what_was_drawn_can_be_read_again(tmp_path: Path) -> None:
    drawn = [asked(("4", 1.0, True), ("é", 0.0, False))]
    write_drawn(tmp_path / "samples.jsonl", drawn)
    assert read_drawn(tmp_path / "samples.jsonl") == drawn
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


def test_prompts_of_like_length_share_a_batch_that_fits() -> None:
    settings = SampleSettings(samples=4, generated_tokens=1000)
    lengths = [(7 * place) % 83 + 1 for place in range(100)] + [900]
    batches = list(batches_of(lengths, settings, 10))
    assert sorted(place for batch in batches for place in batch) == list(range(101))
    assert batches[0] == [100]  # longer than a batch may be, yet asked
    assert all(len(b) * 4 * (max(lengths[place] for place in b) + 10) <= 1000 for b in batches[1:])
    assert [lengths[place] for batch in batches for place in batch] == sorted(lengths, reverse=True)


class Prompts(RowsOnly):
    """A corpus of five prompts."""

    text = "number {}"

    def rows(self, role: str) -> Any:
        prompts = ([{"role": "user", "content": self.text.format(n)}] for n in range(5))
        return iter({"prompt": prompt, "answer": "", "source": "s"} for prompt in prompts)


def after_an_expert(folder: Path, hard: float | None) -> StageContext:
    rates = {"number 0": 0.0, "number 1": 0.25, "number 2": 0.5, "number 3": 1.0}  # it kept the fifth from training
    rows = [{"prompt": [{"role": "user", "content": text}], "pass_rate": rate} for text, rate in rates.items()]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parent = SimpleNamespace(path=folder, manifest={"kind": "expert", "stage": "expert"})
    facts: dict[str, Any] = {
        "corpus": Prompts(), "config": SimpleNamespace(seed=0), "stage": "grpo", "inputs": {"expert": parent},
        "benchmarks": (), "parent_artifact": parent, "settings": GrpoSettings(hard=hard),
    }  # fmt: skip
    return cast(StageContext, SimpleNamespace(**facts))


def test_hard_prompts_are_sometimes_right_and_the_rest_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    tokenizer = train_tokenizer(["a text of number one, and of number two"], 300, 256)
    rows, counts = read_prompts(after_an_expert(tmp_path, 0.3), tokenizer)
    assert [row["prompt"][0]["content"] for row in rows] == ["number 1"]
    assert counts[0].dropped == {"pass rate out of range": 3, "no pass rate": 1}
    check_limits(counts, Limits(dropped=0.0), "grpo")  # nothing was lost against anyone's wish
    with pytest.raises(DataError, match=r"none of 4 prompts .* above 0 and at most 0.1. Raise grpo.hard"):
        read_prompts(after_an_expert(tmp_path, 0.1), tokenizer)


def test_a_prompt_longer_than_the_limit_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    tokenizer = train_tokenizer(["a text of number one, and of number two"], 300, 256)
    context = after_an_expert(tmp_path, None)
    monkeypatch.setattr(Prompts, "text", "{} number, " + "number " * 300)
    rows, counts = read_prompts(context, tokenizer)
    assert not rows
    assert counts[0].dropped == {"longer than prompt_tokens": 5}


def test_limits_hold_for_what_nobody_asked_for() -> None:
    count = RowCount("s", "prompts", rows_in=10, dropped={"pass rate out of range": 7, "duplicate": 2}, rows_out=1)
    with pytest.raises(ContractError, match=r"20.0% of its rows .* 's' \(2 of 10\), reason 'duplicate' \(2 rows\)"):
        check_limits([count], Limits(dropped=0.1), "grpo")
