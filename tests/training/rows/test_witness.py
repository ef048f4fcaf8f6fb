"""Whoever watches training read its rows hears of each of them once: kept, or dropped with the reason counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.data.accounting import RowCount
from common.models.tokenizer import train_tokenizer
from common.models.turns import ALL_CONTEXT, TOO_LONG
from common.training.rows.packing import tokenise
from common.training.rows.reader import Accounts
from common.training.rows.witness import Witness


class Notes(Witness):
    def __init__(self) -> None:
        self.rows: list[tuple[str, list[int]]] = []
        self.reasons: Counter[str] = Counter()

    def kept(
        self, count: RowCount, row: dict[str, Any], ids: Sequence[int], labels: Sequence[int], changed: Sequence[str]
    ) -> None:
        self.rows.append((row["source"], list(ids)))

    def dropped(self, count: RowCount, row: dict[str, Any], reason: str) -> None:
        self.reasons[reason] += 1


def chat(answer: str, **keys: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer, **keys}
    return {"messages": [{"role": "user", "content": "what?"}, said], "source": "chats"}


def test_it_hears_of_every_row_once() -> None:
    tokenizer = train_tokenizer(["what is a gate? it is a gate of the harbour"], 300, 256)
    rows = [chat("a gate"), chat("a gate " * 100), chat("a gate", learn=False), {"text": "a gate", "source": "texts"}]
    rows.append(chat("a gate " * 100_000))  # is dropped before it is encoded
    notes, accounts = Notes(), Accounts("sft")
    made = list(tokenise(tokenizer, rows, accounts, assistant_only=False, sequence_length=64, witness=notes))
    assert notes.rows == [("chats", made[0].input_ids), ("texts", made[1].input_ids)]
    assert notes.reasons == accounts["chats"].dropped == {TOO_LONG: 2, ALL_CONTEXT: 1}
