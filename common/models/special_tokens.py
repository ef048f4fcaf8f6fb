"""The tokens that a checkpoint pads, stops and begins with, put in order where a chain begins.

Usage: `notes = settle(model, tokenizer)`, in the base stage; `document_start(tokenizer)`.

As published, many checkpoints pad with the token that ends an answer, or with none, and some name one stop token where
their template writes another. A stage could then not learn to stop, or would not stop.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.errors import ContractError
from common.models.boundary import is_foreign, reason_of
from common.models.checkpoint import SAMPLING
from common.models.turns import turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<|padding|>"
HINTS = ("pad", "reserved", "unused", "extra_id")  # in the name of a token that texts lack, the best first
SPREAD = 1e-9  # of a new row's covariance, as transformers takes it (resize_token_embeddings, mean_resizing)


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end an answer, as the checkpoint names them; the tokenizer's own is among them."""
    given = model.generation_config.eos_token_id
    stops = list(given) if isinstance(given, list | tuple) else [given]
    return [int(stop) for stop in dict.fromkeys([*stops, tokenizer.eos_token_id]) if stop is not None]


def document_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that a document follows: what the tokenizer puts before it, else the end of the one before."""
    before = [token for token in tokenizer("")["input_ids"] if token in tokenizer.all_special_ids]
    return int([*before, tokenizer.eos_token_id][0])


def without_end(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Return the tokens of a text without the end that some tokenizers write behind each."""
    return list(ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids)


def require_end(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Give the tokenizer a token that ends a text, if it names none. Raises ContractError where there is none."""
    if tokenizer.eos_token_id is not None:
        return []
    if not (stops := stop_ids(model, tokenizer)):
        raise ContractError(
            "The checkpoint names no token that ends a text; set eos_token in its tokenizer_config.json."
        )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stops[0])
    return [f"a text ends in {tokenizer.eos_token!r}, where generation stops"]


def settle(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Make stop, padding and generation settings fit each other, in place. Return what was changed, a line each."""
    notes = []
    stops = stop_ids(model, tokenizer)
    if (end := turn_end(tokenizer)) is not None and end not in stops:
        stops.append(end)
        notes.append(f"an answer also stops at {tokenizer.convert_ids_to_tokens(end)!r}, which ends a turn")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in stops:
        why = "there was none" if tokenizer.pad_token_id is None else f"{tokenizer.pad_token!r} also stops an answer"
        notes.append(f"padding is {_choose_padding(model, tokenizer, stops)}, since {why}")
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.pad_token_id = tokenizer.pad_token_id
        settings.eos_token_id = stops if len(stops) > 1 else stops[0]
    _require_greedy(model.generation_config)
    sampled = {key: value for key in SAMPLING if (value := getattr(model.generation_config, key, None)) is not None}
    if model.generation_config.do_sample and sampled:
        notes.append(f"generation is greedy, without {', '.join(f'{key} {value}' for key, value in sampled.items())}")
    return notes


def first_tokens(model: Any) -> list[int]:
    """Return the token that texts of a model begin with though it never writes it: see the method `conditional`."""
    generation = model.generation_config
    bos = generation.bos_token_id
    return [bos] if isinstance(bos, int) and bos in (generation.suppress_tokens or ()) else []


def _require_greedy(generation: Any) -> None:
    """Check that generation can be saved as greedy, without the settings of sampling. Raises ContractError."""
    greedy = copy.deepcopy(generation)
    greedy.do_sample = False
    for key in SAMPLING:
        setattr(greedy, key, None)
    try:
        greedy.validate(strict=True)
    except Exception as error:
        if not is_foreign(error):
            raise
        raise ContractError(
            f"generation_config.json cannot be saved for greedy answers: {reason_of(error)}. Remove that setting."
        ) from error


def _choose_padding(model: Any, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> str:
    """Set a padding token that neither ends nor begins a text, without a new row where possible; return its name."""
    used = {*stops, tokenizer.eos_token_id, tokenizer.bos_token_id}
    written = tokenizer.chat_template or ""
    free = [
        token
        for token, index in sorted(tokenizer.get_added_vocab().items(), key=lambda item: item[1])
        if index not in used and token not in written
    ]
    hinted = [token for hint in HINTS for token in free if hint in token.lower()]
    unknown = [tokenizer.unk_token] if tokenizer.unk_token_id not in {None, *used} else []
    if not (found := [*hinted, *unknown]):
        return add_padding(model, tokenizer)
    tokenizer.pad_token = found[0]
    return repr(found[0])


def add_padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Add a token for padding, in a spare row where there is one."""
    before = model.get_input_embeddings().weight.shape[0]
    known = num_ids(tokenizer)
    tokenizer.add_special_tokens({"pad_token": PAD})
    add_rows(model, known, num_ids(tokenizer))
    return f"the new token {PAD!r}" + (" in a spare row" if num_ids(tokenizer) <= before else "")


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many rows a tokenizer needs; its ids may have gaps."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def add_rows(model: Any, known: int, number: int) -> None:
    """Give the tokens from `known` on rows drawn around the mean of those before, in the embedding and in the head.

    A spare row of a padded vocabulary was never trained, and may be zero. `number` is how many tokens there are.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    if number > rows:
        model.resize_token_embeddings(number, mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings(), *([head] if head is not None else [])]
    for weight in {id(table.weight): table.weight for table in tables}.values():
        with torch.no_grad():
            trained_VH = weight[: min(known, rows)].float()
            mean_H = trained_VH.mean(0)
            noise_NV = torch.randn(number - known, len(trained_VH), device=weight.device)
            drawn_NH = noise_NV @ (trained_VH - mean_H) * (SPREAD / len(trained_VH)) ** 0.5
            weight[known:number] = (mean_H + drawn_NH).to(weight.dtype)
