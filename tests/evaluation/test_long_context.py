"""What an exam says of long inputs: only where it is asked for, beyond the context where a model can be read there."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from common.config.defaults import differing
from common.config.long_context import LongContextSettings
from common.config.resolve import resolve
from common.config.stages import EvaluateSettings
from common.cost.outlook import Outlook
from common.errors import ConfigError
from common.evaluation.exam import ExamQuestions, run_exam
from common.evaluation.long_context import check_room, measure
from tests.conftest import REPOSITORY
from tests.evaluation.conftest import make_model, make_tokenizer

ASKED = LongContextSettings(length=512, lengths=2, depths=2, samples=1, choices=2, buckets=2)


def test_an_exam_has_it_only_where_it_is_asked_for(tmp_path: Any) -> None:
    tokenizer = make_tokenizer("<|end|>", None)
    make_model(len(tokenizer), "<|end|>").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    exam = ExamQuestions(texts={"domain": [{"text": "what is money paper coin"}] * 3})
    seen: list[tuple[int, int]] = []
    plain = run_exam(tmp_path, exam, EvaluateSettings(), device="cpu").to_json("base")
    asked = EvaluateSettings(long_context=ASKED)
    far = run_exam(tmp_path, exam, asked, device="cpu", progress=lambda *at: seen.append(at)).to_json("base")
    assert "long_context" not in plain
    found = far.pop("long_context")
    assert far == plain
    assert (found["length"], found["context"], found["choices"]) == (512, 128, 2)
    assert [(cell["length"], cell["depth"], cell["n"]) for cell in found["needle"]] == [
        (256, 0.0, 1), (256, 1.0, 1), (256, None, 2), (512, 0.0, 1), (512, 1.0, 1), (512, None, 2),
    ]  # fmt: skip
    assert found["positions"].keys() == {"domain"}
    assert seen[-1] == (3 + 4, 3 + 4)


def test_a_model_that_learned_its_positions_is_not_read_beyond_them() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = make_tokenizer("<|end|>", None)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=16, n_layer=1, n_head=2)
    with torch.inference_mode():
        found = measure(GPT2LMHeadModel(config).eval(), tokenizer, {"domain": ["what is money " * 200]}, ASKED)
    assert {cell["length"] for cell in found["needle"]} == {256}
    assert found["positions"]["domain"][-1]["last"] == 255


def test_a_key_without_room_is_said_with_its_setting() -> None:
    """Before a question is asked, by the tokenizer at hand."""
    tokenizer = make_tokenizer("<|end|>", None)
    message = r"^evaluate\.long_context\.length=128 with lengths=2 makes a shortest text of 64 tokens; .* take (\d+)\."
    with pytest.raises(ConfigError, match=message) as refused:
        check_room(tokenizer, LongContextSettings(length=128, lengths=2))
    least = int(re.findall(r"length=(\d+) or more", str(refused.value))[0])
    with torch.inference_mode():
        settings = LongContextSettings(length=least, lengths=2, depths=1, samples=1, buckets=1)
        check_room(tokenizer, settings)
        measure(make_model(len(tokenizer), "<|end|>").eval(), tokenizer, {}, settings)
    with pytest.raises(ConfigError):
        check_room(tokenizer, LongContextSettings(length=least - 1, lengths=2))


def test_recipes_without_it_stay_as_they_are() -> None:
    assert differing(EvaluateSettings()) == {}
    assert differing(EvaluateSettings(long_context=LongContextSettings(length=256))) == {
        "long_context": {"length": 256}
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": 128}, "make a shortest text of 32 tokens.*Set more, or fewer lengths"),
        ({"length": 64, "lengths": 1, "buckets": 40}, "buckets=40 is more than half of length=64"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LongContextSettings(**given)


def test_lengths_are_halves_of_the_longest() -> None:
    settings = LongContextSettings(length=4096, depths=2, samples=3)
    assert settings.needle_lengths == [1024, 2048, 4096]
    assert (settings.num_needles, settings.needle_tokens) == (18, 7168 * 6)


def test_a_plan_has_its_time_and_memory() -> None:
    words = {"domain": "medical", "pipeline": "cpt-only"}
    plain, far = (
        Outlook.of(resolve(words | more, REPOSITORY)) for more in ({}, {"evaluate.long_context.length": "8192"})
    )
    seconds = [one.seconds("exam-cpt", None) or 0.0 for one in (plain, far)]
    assert 0 < seconds[0] < seconds[1]
    assert far.phases("exam-cpt")["eval"].device["long inputs"] > 0
    assert "long inputs" not in plain.phases("exam-cpt")["eval"].device
