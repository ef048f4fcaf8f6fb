"""Bits per byte by the position of a token: does a model read the end of a long text as well as its beginning?

Usage: `curve = by_position(model, tokenizer, texts, length=4096, buckets=8)`.

Held-out texts are joined, with the end-of-sequence token between them, and cut into windows of one length. A token at
position i of a window is predicted from the i tokens before it. With bits b and bytes y of the tokens in a bucket of
positions, its value is the sum of b over the sum of y, over all windows, and its interval a bootstrap over these. Where
texts are shorter than a window, what lies far back is another text. A model that never read so far is worse there; one
that reads on without gain stays level. Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from common.config.long_context import MOST_WINDOWS, PIECE
from common.evaluation.statistics import ratio_of_sums
from common.models.special_tokens import without_end

if TYPE_CHECKING:
    import numpy as np


def by_position(model: Any, tokenizer: Any, texts: Iterable[str], *, length: int, buckets: int) -> list[dict[str, Any]]:
    """Return for each bucket of positions where it begins and ends, its bits per byte with an interval, its windows.

    Buckets are of one size, to the nearest token, and without one that has no text; the last one ends with the longest
    window.
    """
    import numpy as np

    edges = np.round(np.linspace(0, length, buckets + 1)).astype(int)
    bits, sizes, longest = [], [], 0
    for ids, weights_T, of_text_T in itertools.islice(windows(tokenizer, texts, length), MOST_WINDOWS):
        bits_T = bits_of(model, ids)
        bits_T[~of_text_T] = 0.0
        bits.append(summed(bits_T, edges))
        sizes.append(summed(weights_T, edges))
        longest = max(longest, len(ids))
    found = []
    for bucket, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        pairs = [(one[bucket], size[bucket]) for one, size in zip(bits, sizes, strict=True) if size[bucket]]
        if pairs:
            value, low, high = ratio_of_sums([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            place = {"first": first, "last": min(last, longest) - 1, "n": len(pairs)}
            found.append({**place, "bits_per_byte": value, "low": low, "high": high})
    return found


def windows(tokenizer: Any, texts: Iterable[str], length: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield the tokens of each window, of each the bytes of text that it stands for, and whether its bits count.

    The first token of a window is predicted from nothing, and an end of a text is no part of it: bits of both count as
    little as their bytes. The last window may be shorter.
    """
    import numpy as np

    ids: list[int] = []
    sizes: list[int] = []
    of_text: list[bool] = []
    for text in texts:
        tokens, own, counted = bytes_of(tokenizer, text)
        ids += [*tokens, tokenizer.eos_token_id]
        sizes += [*own, 0]
        of_text += [*counted, False]
        while len(ids) >= length:
            yield ids[:length], np.array([0.0, *sizes[1:length]]), np.array([False, *of_text[1:length]])
            ids, sizes, of_text = ids[length:], sizes[length:], of_text[length:]
    if len(ids) > 1:
        yield ids, np.array([0.0, *sizes[1:]]), np.array([False, *of_text[1:]])


def bytes_of(tokenizer: Any, text: str) -> tuple[list[int], list[int], list[bool]]:
    """Return the tokens of a text, how many bytes of it each one ends (together, all of them), and whether it is text.

    Of tokens that are parts of one character the last one has its bytes. What a tokenizer adds to a text is none of it.
    """
    found = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = without_end(tokenizer, found["input_ids"])
    ends = [end for _, end in found["offset_mapping"]][: len(ids)]
    of_text = [not special for special in found["special_tokens_mask"]][: len(ids)]
    sizes, seen = [], 0
    for place, end in enumerate(ends):
        end = len(text) if place == len(ends) - 1 else end
        shared = place + 1 < len(ends) and ends[place + 1] == end and end > seen
        reached = seen if shared else max(seen, end)
        sizes.append(len(text[seen:reached].encode()))
        seen = reached
    return ids, sizes, of_text


def bits_of(model: Any, ids: Sequence[int]) -> np.ndarray:
    """Return (T,) bits of each token given those before it; the first one has none.

    Tokens are read in pieces, behind the keys and values of those before, so that few logits are there at once.
    """
    import numpy as np
    import torch

    tokens_T = torch.tensor(list(ids), device=model.get_input_embeddings().weight.device)
    found, kept = [np.zeros(1)], None
    for start in range(0, len(tokens_T) - 1, PIECE):
        next_T = tokens_T[start + 1 : start + 1 + PIECE]
        read = model(input_ids=tokens_T[None, start : start + len(next_T)], past_key_values=kept, use_cache=True)
        kept = read.past_key_values
        nats_T = torch.nn.functional.cross_entropy(read.logits[0].float(), next_T, reduction="none")
        found.append(nats_T.double().cpu().numpy() / math.log(2))
    bits_T: np.ndarray = np.concatenate(found)
    return bits_T


def summed(values_T: np.ndarray, edges: np.ndarray) -> list[float]:
    """Return the sum of values between each two edges, the upper one not included."""
    import numpy as np

    places = np.searchsorted(edges, np.arange(len(values_T)), side="right") - 1
    found: list[float] = np.bincount(places, weights=values_T, minlength=len(edges) - 1).tolist()
    return found
