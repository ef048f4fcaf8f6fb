"""Conversations whose answers need their history score higher than those whose turns stand alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.blocks import BlockContext, Row
from common.data.blocks.history import BLOCK, HistorySettings
from common.data.dependence import LossBits, compressed_bits, dependence, pairs_of
from common.errors import ConfigError
from tests.data.blocks.passes import through


def chat(*turns: str) -> Row:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    return {"source": "chat", "messages": messages}


DEPENDENT = chat(
    "Which river flows through Cologne and Rotterdam?",
    "The Rhine flows through Cologne and Rotterdam to the North Sea.",
    "And how long is it?", "The Rhine, which flows through Cologne and Rotterdam, is 1,230 kilometres long.",
)  # fmt: skip
ALONE = chat(
    "Which river flows through Cologne and Rotterdam?",
    "The Rhine flows through Cologne and Rotterdam to the North Sea.",
    "What is yeast for in bread dough?", "Yeast eats sugar and makes gas, by which dough rises and gets its taste.",
)  # fmt: skip
SINGLE = chat("Hello?", "Hello.")


def test_pairs_have_a_history() -> None:
    assert pairs_of(SINGLE) == []
    (pair,) = pairs_of(DEPENDENT)
    assert pair.question == "And how long is it?"
    assert "North Sea" in pair.history
    assert "1,230" not in pair.history


def test_what_history_supplies_is_counted() -> None:
    dependent, alone = (dependence(pairs_of(row), compressed_bits) for row in (DEPENDENT, ALONE))
    assert dependent is not None
    assert alone is not None
    assert dependent > 0.3 > 0.1 > alone
    assert dependence([], compressed_bits) is None


def test_conversations_that_stand_alone_go_and_single_turns_stay(tmp_path: Path) -> None:
    context = BlockContext(folder=tmp_path, role="sft")
    kept, dropped = through(BLOCK, HistorySettings(at_least=0.2), context, [ALONE, SINGLE, DEPENDENT], tasks=2)
    assert kept[0] == SINGLE
    assert kept[1].pop("scores").keys() == {"history"}  # of those that were judged
    assert kept[1] == DEPENDENT
    assert [drop.reason for drop in dropped] == ["dependence on history too low"]


def test_a_model_measures_it_by_its_loss() -> None:
    """A model that expects the tokens it has read needs the history that is like the answer."""
    torch = pytest.importorskip("torch")

    class Echo:
        """Finds each token likely in proportion to how often it was read before."""

        config = type("Config", (), {"max_position_embeddings": 512})()
        device = "cpu"

        def eval(self) -> Echo:
            return self

        def __call__(self, input_ids: object) -> object:
            seen = torch.nn.functional.one_hot(input_ids, 256).float().cumsum(1)
            return type("Output", (), {"logits": torch.log(seen + 0.1)})()

    class Letters:
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": list(text.encode())}

    bits = LossBits(Echo(), Letters())  # the smallest model that remembers
    dependent, alone = (
        dependence(pairs_of(chat("q", history, "?", "zzzz")), bits) for history in ("zzzzzzz", "aaaaaaa")
    )
    assert dependent is not None
    assert alone is not None
    assert dependent > 0.2 > alone


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    assert BLOCK.look is not None
    settings = HistorySettings(at_least=0, checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match=r"history\.checkpoint is '.*'; expected the folder of a model"):
        BLOCK.look(settings, BlockContext(folder=tmp_path, role="sft"))
