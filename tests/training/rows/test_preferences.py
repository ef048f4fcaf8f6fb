"""Preference pairs: what is dropped and counted, and log-probabilities against an independent computation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.stages import DpoSettings
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from common.training.rows.preferences import (
    Single,
    accuracy,
    logps_of,
    on_their_side,
    read_pairs,
    read_preferences,
)


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {"chosen": said("assistant", chosen), "rejected": said("assistant", rejected)}
    return {"prompt": said("user", question), **sides, "source": "s"}


class Rows:
    """A corpus of given pairs and one exam question."""

    def __init__(self, pairs: list[dict[str, Any]]) -> None:
        self.pairs = pairs

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        question = "what is the main use of the medicine called warfarin"
        return iter(self.pairs if role.startswith("preference") else [{"question": question}])

    def counts(self, role: str) -> dict[str, Any]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ("questions_domain",)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["what is the capital of the country, and what is it for"], 300, 256)


def context(pairs: list[dict[str, Any]], length: int = 64) -> StageContext:
    made = SimpleNamespace(
        settings=DpoSettings(sequence_length=length),
        corpus=Rows(pairs),
        config=SimpleNamespace(seed=0),
        stage="dpo",
        inputs={},
        benchmarks=(),
    )
    return cast(StageContext, made)


def test_unusable_pairs_are_dropped_with_their_reason(tokenizer: Any) -> None:
    rows = [
        pair("who?", "yes", "no"),
        pair("who?", "same", " same "),
        pair("who?", "", "no"),
        pair("who?", "x" * 200, "no"),
        pair("What is the main use of the medicine called Warfarin?", "yes", "no"),
    ]
    pairs, (count,) = read_pairs(context(rows), tokenizer, "preference")
    assert len(pairs) == 1
    assert count.dropped == {"equal sides": 1, "empty answer": 1, "longer than sequence_length": 1, "exam overlap": 1}


def test_both_sides_share_the_prompt_and_begin_with_the_answer(tokenizer: Any) -> None:
    (made,), _ = read_pairs(context([pair("who?", "yes", "no")]), tokenizer, "preference_heldout")
    prompt = tokenizer.apply_chat_template(said("user", "who?"), add_generation_prompt=True, return_dict=False)
    assert made.chosen_ids[: made.start] == made.rejected_ids[: made.start] == prompt
    assert made.chosen_ids[-1] == tokenizer.eos_token_id


def test_pairs_that_name_control_tokens_are_text_and_counted(tokenizer: Any) -> None:
    rows = [pair("what is <|end|>?", "It is <|end|>.", "no"), pair("who?", "yes", "no")]
    pairs, (count,) = read_pairs(context(rows), tokenizer, "preference_heldout")
    assert count.changed == {"control tokens read as text": 1}
    forged = next(made for made in pairs if made.changed)
    prompt, chosen, rejected = forged.columns.values()
    assert [ids.count(tokenizer.eos_token_id) for ids in (prompt, chosen, rejected)] == [1, 1, 1]
    assert tokenizer.decode(chosen).strip() == "It is <|end|>.<|end|>"


def test_a_pair_that_the_template_refuses_is_counted_under_its_words(tokenizer: Any) -> None:
    refusing = copy.deepcopy(tokenizer)
    refusing.chat_template = tokenizer.chat_template.replace("<|system|>", "{{ raise_exception('no system turns') }}")
    told = pair("who?", "yes", "no")
    told["prompt"] = [*said("system", "Be short."), *told["prompt"]]
    called = pair("who?", "yes", "no")
    called["chosen"][0]["tool_calls"] = [{"id": "1", "function": {"name": "look", "arguments": {}}}]
    pairs, (count,) = read_pairs(context([told, called, pair("who?", "yes", "no")]), refusing, "preference_heldout")
    assert len(pairs) == 1
    assert count.dropped == {
        "refused by the chat template: no system turns": 1, "the chat template has no place for tool calls": 1,
    }  # fmt: skip


@pytest.mark.parametrize("most_rows", [0, 2, 9])
def test_log_probabilities_are_those_of_the_answer_alone(tokenizer: Any, most_rows: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    pairs, _ = read_pairs(
        context([pair("who?", "yes", "no"), pair("what?", "a longer answer", "b")]), tokenizer, "preference_heldout"
    )
    limit = most_rows * 8 * len(tokenizer)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda module, given, logits: seen.append(logits.numel()))
    sides = [side for made in pairs for side in made.sides]
    found = logps_of(model, sides, tokenizer.pad_token_id, batch_size=2, most_logits=limit)
    assert len(seen) == 4 if most_rows == 0 else max(seen) <= limit
    assert max(seen) < 2 * max(len(made.chosen_ids) for made in pairs) * len(tokenizer)  # none for the prompts
    for side, values in (("chosen_ids", found[::2]), ("rejected_ids", found[1::2])):
        for made, value in zip(pairs, values, strict=True):
            ids = getattr(made, side)
            with torch.inference_mode():
                logps = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
            expected = sum(float(logps[i - 1, ids[i]]) for i in range(made.start, len(ids)))
            assert value == pytest.approx(expected, abs=1e-4)


def test_accuracy_is_of_the_gain_over_the_reference() -> None:
    assert accuracy(([-1.0, -5.0], [-2.0, -4.0]), ([-1.0, -9.0], [-1.0, -4.5])) == 2
    assert accuracy(([-1.0], [-2.0]), ([-0.5], [-2.0])) == 0


def single(question: str, answer: str, label: bool) -> dict[str, Any]:
    return {"prompt": said("user", question), "completion": said("assistant", answer), "label": label, "source": "k"}


def test_single_answers_and_pairs_are_read_side_by_side(tokenizer: Any) -> None:
    rows = [
        single("who?", "yes", True), pair("who?", "yes", "no"), single("what?", "no <|end|>", False),
        single("who?", " ", True), single("who?", "x" * 200, False),
    ]  # fmt: skip
    read, counts = read_preferences(context(rows), tokenizer, "preference_heldout")
    count = next(count for count in counts if count.source == "k")
    assert count.dropped == {"empty answer": 1, "longer than sequence_length": 1}
    assert count.changed == {"control tokens read as text": 1}
    assert (count.rows_in, count.rows_out) == (4, 2)
    sides = {(tokenizer.decode(ids[start:]), label) for one in read for (ids, start), label in zip(
        one.sides, one.labels, strict=True)}  # fmt: skip
    assert sides == {(" yes<|end|>", True), (" no<|end|>", False), (" no <|end|><|end|>", False)}
    for one in read:  # token by token: what is learned begins behind the prompt
        for ids, start in one.sides:
            asked = tokenizer.apply_chat_template(one.row["prompt"], add_generation_prompt=True, return_dict=False)
            assert list(ids[:start]) == asked


def test_single_answers_are_refused_by_what_learns_from_pairs(tokenizer: Any) -> None:
    message = (
        r"Stage dpo: source 'k' has single answers with a label; only kind kto learns from them\. Use pipeline=kto"
    )
    with pytest.raises(DataError, match=message):
        read_pairs(context([single("who?", "yes", True)]), tokenizer, "preference")


def test_a_single_answer_is_right_when_it_moved_as_its_label_says(tokenizer: Any) -> None:
    rows = [single("who?", "yes", True), single("what?", "no", False)]
    read, _ = read_preferences(context(rows), tokenizer, "preference_heldout")
    singles = [one for one in read if isinstance(one, Single)]
    before = [-5.0, -5.0]
    moved = [-4.0 if one.wanted else -6.0 for one in singles]
    assert on_their_side(singles, moved, before) == 2
    assert on_their_side(singles, [-4.0, -4.0], before) == 1
    assert on_their_side(singles, before, before) == 0
