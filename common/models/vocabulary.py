"""A tokenizer and a model with further tokens: as merges or pieces of the tokenizer, and as rows of the model's tables.

Usage: `extended = extend_tokenizer(tokenizer, learned, settings.model)`, then
`give_rows(model, tokenizer, extended, learned, initialise="mean", pad_to_multiple_of=None)`.

The new tokens are no added tokens in the sense of transformers, which are searched in a text before anything else and
would cut words apart. Old tokens keep their ids, merges and scores. What is learned is `common.models.continued_bpe`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.schema import ModelSettings
from common.models import checkpoint
from common.models.learned_tokens import Learned, extended
from common.models.special_tokens import add_rows, num_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, learned: Learned, model: ModelSettings) -> Any:
    """Return a tokenizer with further tokens, as it is loaded from its files. Raises DataError as loading does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(extended(facts, learned), ensure_ascii=False), encoding="utf-8")
        return checkpoint.load_tokenizer(folder, model)


def mean_rows(table_VH: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """Return a row for each new token n, the mean of the rows of the old pieces P_n that it replaces (N, H).

    e_n = 1/|P_n| sum_{p in P_n} e_p, as Cabrita starts them (arXiv 2308.11878), in float32.
    """
    import torch

    return torch.stack([table_VH[list(old)].float().mean(0) for old in pieces])


def give_rows(
    model: Any, parent: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, learned: Learned, *,
    initialise: str, pad_to_multiple_of: int | None,
) -> None:  # fmt: skip
    """Give the new tokens of a tokenizer rows in the embedding and in the head, tied or not, in place."""
    import torch

    number, step = num_ids(tokenizer), pad_to_multiple_of or 1
    add_rows(model, num_ids(parent), -(-number // step) * step)
    if initialise != "mean":
        return
    ids = tokenizer.get_vocab()
    old = {ids[name]: pieces for name, pieces in learned.pieces.items() if pieces}
    head = model.get_output_embeddings()
    tables = [table.weight for table in (model.get_input_embeddings(), head) if table is not None]
    if getattr(head, "bias", None) is not None:
        tables.append(head.bias)
    with torch.no_grad():
        for table in {id(table): table for table in tables}.values():
            table[list(old)] = mean_rows(table, list(old.values())).to(table.dtype)
