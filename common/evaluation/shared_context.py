"""Scores the choices of a question in one row: its context once, and behind it every choice, blind to the others.

Usage: `rows = rows_of(requests, window)`; `score(model, rows, device)` gives the log-likelihood of each request.

lm-evaluation-harness reads the context again for every choice. Here a choice attends to the context and to itself, at
the positions that it would have alone, so likelihoods are the same up to rounding. Models that compute along the row,
such as recurrent ones, cannot do that: `refusal` says why, and `common.evaluation.harness` then asks in the plain way.

Shape suffixes: B rows, T tokens of the longest row, N tokens of all choices, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.cost.exam import question_tokens

if TYPE_CHECKING:
    import torch

LONG = 512  # tokens of choices behind one context: attention over a row grows with its square
MASKED = frozenset({"full_attention", "sliding_attention"})  # layers whose whole state is an attention mask
Request = tuple[Any, Sequence[int], Sequence[int]]  # what the caller calls it, context, choice
Found = tuple[float, bool]  # log-likelihood, and whether every token is the likeliest


@dataclass
class Row:
    """A context and the choices behind it, each with its place among the requests."""

    context: tuple[int, ...]
    choices: list[tuple[int, Sequence[int]]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens the model reads; the last one of a choice is only predicted."""
        return int(question_tokens(len(self.context), [len(choice) for _, choice in self.choices]))

    @property
    def tokens_of_choices(self) -> int:
        return self.tokens - len(self.context)


def rows_of(requests: Sequence[Request], window: int) -> list[Row]:
    """Return rows that hold every request once, the longest first.

    A context loses its beginning where it and a choice are longer than the model's window, as in the harness, so
    choices of different lengths may see different parts of it; then they are in different rows.
    """
    groups: dict[tuple[int, ...], list[Row]] = {}
    for index, (_, context, choice) in enumerate(requests):
        seen = tuple(context[-(window + 1 - len(choice)) :])
        rows = groups.setdefault(seen, [Row(seen)])
        if rows[-1].choices and rows[-1].tokens + len(choice) > 2 * max(len(seen), LONG):
            rows.append(Row(seen))
        rows[-1].choices.append((index, choice))
    return sorted((row for rows in groups.values() for row in rows), key=lambda row: -row.tokens)


def batches_of(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """Split rows into passes of at most `most` choices, or one row."""
    batches: list[list[Row]] = []
    room = 0
    for row in rows:
        if len(row.choices) > room:
            batches.append([])
            room = most
        batches[-1].append(row)
        room -= len(row.choices)
    return batches


def refusal(model: Any) -> str | None:
    """Return why a model's layers cannot keep choices apart, as far as its configuration says."""
    unknown = sorted(set(_text_config(model).__dict__.get("layer_types") or ()) - MASKED)
    return f"layers of type {', '.join(unknown)}" if unknown else None


def score(model: Any, rows: Sequence[Row], device: Any, padding: int = 0) -> dict[int, Found]:
    """Return place among the requests -> log-likelihood and whether it is the greedy answer, from one pass.

    `padding` adds that many unused positions on the left.
    """
    import torch

    length = max(row.tokens for row in rows) + padding
    packed = [_pack(row, length) for row in rows]
    ids_BT, positions_BT, parts_BT = (torch.tensor(columns, device=device) for columns in zip(*packed, strict=True))
    kept = 1 + max(row.tokens_of_choices for row in rows)  # rows end together: logits of their ends suffice
    options = {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    masks = _masks(model, positions_BT, parts_BT)
    with torch.no_grad():
        logits = model(
            input_ids=ids_BT, position_ids=positions_BT, attention_mask=masks, use_cache=False, **options
        ).logits[:, -kept:]
    places, tokens = zip(*(place for number, row in enumerate(rows) for place in _targets(row, number)), strict=True)
    at = torch.tensor(places, device=logits.device)
    targets_N = torch.tensor(tokens, device=logits.device)
    logits_NV = logits[at[:, 0], at[:, 1]]
    chosen_N = torch.log_softmax(logits_NV, dim=-1, dtype=torch.float32).gather(1, targets_N[:, None])[:, 0].tolist()
    greedy_N = (logits_NV.argmax(dim=-1) == targets_N).tolist()
    found: dict[int, Found] = {}
    start = 0
    for index, choice in (choice for row in rows for choice in row.choices):
        end = start + len(choice)
        found[index] = (sum(chosen_N[start:end]), all(greedy_N[start:end]))
        start = end
    return found


def _pack(row: Row, length: int) -> tuple[list[int], list[int], list[int]]:
    """Return a row's tokens, positions and parts: 0 is the context, then the choices from 1, -1 the padding before."""
    ids, positions, parts = list(row.context), list(range(len(row.context))), [0] * len(row.context)
    for part, (_, choice) in enumerate(row.choices, 1):
        read = len(choice) - 1
        ids += choice[:-1]
        positions += range(len(row.context), len(row.context) + read)
        parts += [part] * read
    before = length - len(ids)
    return [0] * before + ids, [0] * before + positions, [-1] * before + parts


def _targets(row: Row, number: int) -> list[tuple[tuple[int, int], int]]:
    """Return for each choice's tokens where they are predicted, as (row, place from the end of the row), and the token.

    A choice's first token is predicted by the last of the context.
    """
    read = row.tokens_of_choices
    found, start = [], -read
    for _, choice in row.choices:
        ends = [-read - 1, *range(start, start + len(choice) - 1)]
        found += [((number, place), token) for place, token in zip(ends, choice, strict=True)]
        start += len(choice) - 1
    return found


def _masks(model: Any, positions_BT: torch.Tensor, parts_BT: torch.Tensor) -> torch.Tensor | Mapping[str, torch.Tensor]:
    """Return what is added to attention scores, of shape (B, 1, T, T); one by kind of layer where they differ."""
    import torch

    config = _text_config(model)
    order = torch.arange(parts_BT.shape[1], device=parts_BT.device)
    asks, asked = parts_BT[:, :, None], parts_BT[:, None, :]
    seen = (order[None, :] <= order[:, None]) & ((asked == 0) | (asked == asks)) & (asked >= 0)
    seen |= torch.eye(len(order), dtype=torch.bool, device=seen.device)  # padding sees itself: softmax needs something
    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
    near = seen
    if window and kinds != {"full_attention"}:
        near = seen & (positions_BT[:, :, None] - positions_BT[:, None, :] < window)
    if kinds == MASKED and not torch.equal(near, seen):
        return {"full_attention": _added(seen, model.dtype), "sliding_attention": _added(near, model.dtype)}
    return _added(near, model.dtype)


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    import torch

    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config
