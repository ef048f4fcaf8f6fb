"""General text on which a model is measured while it is changed: a few rows of the role replay, as padded batches.

Usage: `batches, tokens = probe_batches(context, tokenizer, 16_384, length=1024)`.

It is training text, from which the exam is kept out as from all of it: nothing here is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from common.stage import StageContext
from common.training.rows.packing import IGNORED
from common.training.rows.reader import Reader, require_rows
from common.training.rows.shards import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 8  # of a batch
Batches = list[tuple[Any, Any]]  # input_ids and labels, (B, T); labels of padding are -100


def probe_batches(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, tokens: int, length: int
) -> tuple[Batches, int]:  # fmt: skip
    """Return about so many tokens of replay text in rows of at most some length, and how many they are.

    Raises DataError where there are none.
    """
    reader = Reader(context, tokenizer, "replay", chat_only=False)
    reader.go_on(None, context.work)
    rows = list(cut(reader.tokens(assistant_only=False, sequence_length=length, budget=tokens), length, tokens))
    require_rows(rows, reader)
    assert tokenizer.pad_token_id is not None, "a base has settled it"
    return batches_of(rows, int(tokenizer.pad_token_id)), sum(len(row.input_ids) for row in rows)


def cut(rows: Iterable[TokenRow], length: int, tokens: int) -> Iterator[TokenRow]:
    """Yield rows in parts of at most some length, up to about so many tokens. A part with nothing to learn is left out.

    A reader cuts no text: packing does, and these rows are not packed.
    """
    for ids, labels in ((row.input_ids, row.labels) for row in rows):
        for start in range(0, len(ids), length):
            part = TokenRow(ids[start : start + length], labels[start : start + length])
            if all(label == IGNORED for label in part.labels[1:]):
                continue
            yield part
            tokens -= len(part.input_ids)
            if tokens <= 0:
                return


def batches_of(rows: Sequence[TokenRow], pad_id: int) -> Batches:
    """Return rows as batches, rows of about one length together, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ordered = sorted(rows, key=lambda row: len(row.input_ids))
    found = []
    for start in range(0, len(ordered), ROWS):
        batch = ordered[start : start + ROWS]
        ids, labels = ([torch.tensor(getattr(row, name)) for row in batch] for name in ("input_ids", "labels"))
        found.append((pad_sequence(ids, True, pad_id), pad_sequence(labels, True, IGNORED)))
    return found
