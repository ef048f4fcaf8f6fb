"""The score compares the loss of the same answers behind the chat template and behind the plain question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from jinja2 import TemplateError
from transformers import AddedToken

from common.config.blocks import BlockContext, Task
from common.data.blocks.format_alignment import BLOCK, FormatAlignmentSettings, alignment
from common.data.dependence import LossBits
from common.errors import ConfigError, DataError
from common.models.tokenizer import train_tokenizer
from tests.data.blocks.passes import through
from tests.models.growth.small import small

START = 3


class Echo:
    """Finds each token likely in proportion to how often it was read before, and one tenth of a time more."""

    config = type("Config", (), {"max_position_embeddings": 512})()
    device = "cpu"

    def eval(self) -> Echo:
        return self

    def __call__(self, input_ids: Any) -> Any:
        seen = torch.nn.functional.one_hot(input_ids, 256).float().cumsum(1)
        return type("Output", (), {"logits": torch.log(seen + 0.1)})()


class Letters:
    """Every byte is a token; the template writes `!` around each turn, and takes no system turn."""

    all_special_ids = (START,)
    all_special_tokens = ("<s>",)
    special_tokens_map: ClassVar = {"eos_token": "<s>"}
    added_tokens_decoder: ClassVar = {START: AddedToken("<s>", special=True)}
    eos_token_id = START
    chat_template = "some"

    def __len__(self) -> int:
        return 256

    def convert_tokens_to_ids(self, name: str) -> int:
        return {"<s>": START}[name]

    def __call__(
        self, text: Any, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [self(one, add_special_tokens)["input_ids"] for one in text]}
        start = [START] if add_special_tokens else []
        pieces = [list(piece.encode()) for piece in ([text] if split_special_tokens else text.split("<s>"))]
        return {"input_ids": start + [token for piece in pieces for token in [START, *piece]][1:]}

    def apply_chat_template(self, turns: Sequence[dict[str, Any]], tools: Any = (), **_: Any) -> str:
        if turns[0]["role"] == "system":
            raise TemplateError("no system turn")
        thoughts = [turn.get("reasoning_content", "") for turn in turns]
        defined = "".join(tool["name"] for tool in tools)
        return defined + "".join(f"!{said}{turn['content']}!" for said, turn in zip(thoughts, turns, strict=True))


def expected(read: bytes, said: bytes) -> float:
    """The loss of the echo in float64, token by token."""
    seen = np.full(256, 0.1)
    for token in read:
        seen[token] += 1
    loss = 0.0
    for token in said:
        loss -= np.log(seen[token] / seen.sum())
        seen[token] += 1
    return loss


def chat(*turns: str, **last: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages: list[dict[str, Any]] = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    messages[-1] |= last
    return {"source": "chat", "messages": messages}


def score(row: dict[str, Any]) -> float | None:
    return alignment(row, LossBits(Echo(), Letters()), Letters())


def test_it_is_the_ratio_of_the_losses_over_all_answers() -> None:
    start = bytes([START])
    ratio = expected(b"!Why?!", b"So.") / expected(start + b"Why?\n\n", b"So.")
    assert score(chat("Why?", "So.")) == pytest.approx(ratio, rel=1e-3)
    first, second = (b"!A?!", b"b."), (b"!A?!!b.!!C?!", b"d.")
    plain = expected(start + b"A?\n\n", b"b.") + expected(start + b"A?\n\nb.\n\nC?\n\n", b"d.")
    assert score(chat("A?", "b.", "C?", "d.")) == pytest.approx(
        (expected(*first) + expected(*second)) / plain, rel=1e-3
    )


def test_answers_that_are_not_learned_do_not_count_and_calls_of_tools_are_not_judged() -> None:
    assert score(chat("A?", "b.", learn=False)) is None
    assert score(chat("A?", "", tool_calls=[{"function": {"name": "f", "arguments": {}}}])) is None
    assert score(chat("A?", "")) is None


def test_thoughts_and_tools_are_written_as_in_training() -> None:
    row = chat("A?", "b.", reasoning_content="Hm.") | {"tools": [{"name": "f"}]}
    ratio = expected(b"f!A?!", b"Hm.\n\nb.") / expected(bytes([START]) + b"A?\n\n", b"Hm.\n\nb.")
    assert score(row) == pytest.approx(ratio, rel=1e-3)


def test_names_of_control_tokens_are_read_as_text_unless_a_source_asks_for_them() -> None:
    start = bytes([START])
    for asked, said in (((), b"<s>"), (("<s>",), start)):
        ratio = expected(b"!A?!", b"b" + said) / expected(start + b"A?\n\n", b"b" + said)
        assert score(chat("A?", "b<s>") | {"control_tokens": asked}) == pytest.approx(ratio, rel=1e-3)


def test_those_that_the_template_costs_most_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(settings: FormatAlignmentSettings) -> Any:
        return LossBits(Echo(), Letters()), Letters()

    monkeypatch.setattr("common.data.blocks.format_alignment._load", loaded)
    (tmp_path / "config.json").write_text("{}")
    refused = {"source": "chat", "messages": [{"role": "system", "content": "S"}, *chat("Why?", "So.")["messages"]]}
    rows = [
        chat("Why?", answer) for answer in ("!!!!", "So.", "\n\n\n\n")
    ]  # written by the template, or by the plain text
    scores = [score(row) for row in rows]
    assert scores == sorted(scores)  # type: ignore[type-var]  # all of them are numbers
    settings = FormatAlignmentSettings(checkpoint=str(tmp_path), drop_lowest=0.67)
    kept, dropped = through(BLOCK, settings, BlockContext(folder=tmp_path, role="sft"), [*rows, refused], tasks=1)
    assert [row["messages"][1]["content"] for row in kept] == ["\n\n\n\n"]
    assert kept[0]["scores"].keys() == {"format_alignment"}
    assert [drop.reason for drop in dropped] == ["format alignment too low"] * 2 + ["refused by the chat template"]


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["Why? So."] * 5, 300, 256)
    tokenizer.chat_template = None
    for part in (small("llama"), tokenizer):
        part.save_pretrained(tmp_path)
    assert BLOCK.look is not None
    looking = BLOCK.look(
        FormatAlignmentSettings(checkpoint=str(tmp_path), keep_all=True), BlockContext(folder=tmp_path, role="sft")
    )
    with pytest.raises(DataError, match=r"^format_alignment\.checkpoint: .* has no chat template to compare with\.$"):
        list(looking.look(Task(0, 1), iter([chat("Why?", "So.")])))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert BLOCK.look is not None
    settings = FormatAlignmentSettings(checkpoint="none", keep_all=True)
    with pytest.raises(ConfigError, match="expected the folder of a model, with its config"):
        BLOCK.look(settings, BlockContext(folder=tmp_path, role="sft"))
