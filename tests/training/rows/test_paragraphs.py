"""Paragraphs of RL pre-training: pieces of documents that fit both prompts, without the exam, and accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.resolve import resolve
from common.config.rl_pretrain import RlPretrainSettings
from common.config.schema import Config
from common.console import Console
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from common.training.rows.paragraphs import Asking, read_paragraphs
from tests.conftest import REPOSITORY
from tests.data.rows_only import RowsOnly

EXAM = "Which lamp of the northern pier burns longest in winter?"
ASKING = {"chat": False, "mask": {"prompt": "Hide: {paragraph}"}, "predict": {"prompt": "{masked} Hidden:"}}


class Corpus(RowsOnly):
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        if role == "cpt":
            yield from ({"text": text, "source": "books"} for text in self.texts)
        elif role == "questions_domain":
            yield {"id": "1", "question": EXAM, "choices": ["the red one", "none"], "answer": 0, "source": "exam"}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ("questions_domain",)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(
        ["a gate leads to a yard with a well in it and out again, Hide: Hidden: [mask]"] * 5, 400, 256
    )


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


def read(
    tokenizer: Any, config: Config, folder: Path, *texts: str, most: int | None = None, **settings: Any
) -> tuple[list[str], dict[str, int], int]:
    """Return paragraphs, what was dropped, and how many documents were of use."""
    given = RlPretrainSettings.model_validate({**ASKING, **settings})
    corpus = cast(Any, Corpus(*texts))
    context = StageContext(
        "rl", "rl_pretrain", given, config, {}, None, corpus, folder, folder, folder, Console("quiet")
    )
    found, (count,) = read_paragraphs(context, Asking(tokenizer, given), most)
    assert count.rows_in == count.rows_out + count.num_dropped
    assert all(one.source == "books" for one in found)
    return sorted(one.text for one in found), dict(count.dropped), count.rows_out


def gate(number: int, words: int = 1) -> str:
    return f"Gate {number} leads to a yard " + "with a well in it " * words


def test_documents_are_read_by_paragraphs_that_fit(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    document = f"Chapter one\n\n{gate(1)}\n \n{gate(2)}\n\n{gate(3, 200)}"
    found = read(tokenizer, config, tmp_path, document, prompt_tokens=200)
    assert found == ([gate(1).strip(), gate(2).strip()], {}, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too short.", "shorter than least_words"),
        (f"Short.\n\n{gate(2, 200)}", "longer than prompt_tokens"),
        (gate(2) + "[mask]", "[mask] in the text"),
        (gate(1), "duplicate"),
        (f"{gate(3)}. {EXAM}", "exam overlap"),
    ],
)
def test_documents_without_one_are_dropped_and_counted(
    text: str, reason: str, tokenizer: Any, config: Config, tmp_path: Path
) -> None:
    found, dropped, kept = read(tokenizer, config, tmp_path, gate(1), text, prompt_tokens=200)
    assert (found, dropped, kept) == ([gate(1).strip()], {reason: 1}, 1)


def test_reading_ends_where_there_are_enough(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    found, dropped, kept = read(tokenizer, config, tmp_path, *map(gate, range(50)), most=7)
    assert (len(found), dropped, kept) == (7, {}, 7)


def test_every_mask_of_a_paragraph_fits_the_prompt(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    """The tokens that are counted are at least those of any mask's prompt."""
    given = RlPretrainSettings.model_validate({**ASKING, "occurs_below": 4})
    asking, text = Asking(tokenizer, given), gate(1, 3).strip()
    corpus = cast(Any, Corpus(text))
    context = StageContext(
        "rl", "rl_pretrain", given, config, {}, None, corpus, tmp_path, tmp_path, tmp_path, Console("quiet")
    )
    ((_, _, tokens),), _ = read_paragraphs(context, asking)
    for span in ("well", "a well in it", "Gate 1", "yard with a"):
        assert 0 < text.count(span) < 4
        assert len(asking.for_prediction(text, span)) <= tokens
    assert len(asking.for_mask(text)) <= tokens


def test_a_mask_at_the_beginning_leaves_a_prompt(tokenizer: Any) -> None:
    given = RlPretrainSettings.model_validate({**ASKING, "predict": {"prompt": "{before}"}})
    assert len(Asking(tokenizer, given).for_prediction("Gates are open", "Gates")) == 1


def test_a_chat_template_writes_the_prompt_and_an_answer_may_have_a_beginning(tokenizer: Any) -> None:
    given = RlPretrainSettings.model_validate(
        {**ASKING, "chat": True, "mask": {"prompt": "Hide: {paragraph}", "begin": "\\mask{"}}
    )
    text = tokenizer.decode(Asking(tokenizer, given).for_mask("a gate"))
    assert "<|user|>" in text
    assert text.rstrip().endswith("\\mask{")
