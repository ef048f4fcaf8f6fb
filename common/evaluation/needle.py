"""A needle in a long text: does a model find a pass key that stands somewhere in front of the question?

Usage: `records = ask(model, tokenizer, length=4096, depths=5, samples=8, choices=4)`; `summed = by_cell(records)`.

Mohtashami and Jaggi 2023 (arXiv 2305.16300), section 4.2, hide a pass key in filler and ask for it; Kamradt's test of
"needles in a haystack" (2023) varies length and depth. Here the answer is not written, so that a tiny model can be
measured too: a model is right where of some keys the right one has gained most by the text,

    log p(key | text, question) - log p(key | question)

which keeps apart what a model likes anyway, such as short words (Holtzman et al. 2021, arXiv 2104.08315, section 3).
Chance is 1 / choices. Texts are ours, and the same for every model, but for what its tokenizer makes of them. It is no
measure of what a model understands of a long text. Shapes: V vocabulary, T tokens.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from common.evaluation.scores import score_of
from common.models.special_tokens import without_end

if TYPE_CHECKING:
    from torch import Tensor

# Sentences of any text: none of them names a key.
FILLER = (
    "The road follows the river for most of the way.",
    "In the morning the market opens and people come from all sides.",
    "A small house stands behind the trees, and its door is open.",
    "The weather was dry for weeks before the rain began.",
    "Some of the books were old, and others were new.",
    "They walked along the wall until they reached the bridge.",
    "The teacher wrote a long letter to the city.",
    "Ships leave the port early and return in the evening.",
    "On the table there was bread, and a cup of water.",
    "The garden is quiet, and birds sit on the roof.",
    "Many years later the mill was still at work.",
    "He asked about the price and went home again.",
)  # fmt: skip
KEYS = (
    "apple", "bottle", "candle", "dragon", "engine", "feather", "guitar", "hammer", "island", "jacket", "kettle",
    "lemon", "mirror", "number", "orange", "pencil", "rabbit", "silver", "tiger", "violin", "window", "yellow",
    "basket", "camel", "doctor", "eagle", "flower", "ghost", "honey", "ladder",
)  # fmt: skip
NEEDLE = "The pass key is {key}. Remember it: {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Needle:
    """One text with its question."""

    context: str
    depth: float  # 0: the key is at the beginning; 1: right before the question
    keys: tuple[str, ...]  # among which the model chooses
    answer: int  # place of the right one


def needles(count: Callable[[str], int], *, length: int, depths: int, samples: int, choices: int) -> Iterator[Needle]:
    """Yield `samples` texts for each of `depths` places, each of at most `length` tokens, its answer included.

    They fall short of it by less than a sentence. `count` gives the tokens of a text. Raises ValueError for a length
    that has no room for a key and its question.
    """
    most = length // _least(count)
    for place in range(depths):
        depth = place / (depths - 1) if depths > 1 else 0.5
        for number in range(samples):
            rng = random.Random(f"{length}/{depth}/{number}")
            keys = tuple(rng.sample(KEYS, choices))
            answer = rng.randrange(choices)
            sentences = [rng.choice(FILLER) for _ in range(most)]
            longest = max(keys, key=count)
            fitting = _most_that_fit(partial(_size, count, sentences, depth, longest), length, most)
            yield Needle(_text(sentences[:fitting], depth, keys[answer]), depth, keys, answer)


def least_length(count: Callable[[str], int]) -> int:
    """Return the tokens of the longest key with its question, without any text around them."""
    return max(_size(count, (), 0.0, key, 0) for key in KEYS)


def _least(count: Callable[[str], int]) -> int:
    """Return by how many tokens the shortest sentence makes a text longer, which begins with one already."""
    return max(1, min(count(f"{sentence} {sentence}") - count(sentence) for sentence in FILLER))


def _size(count: Callable[[str], int], sentences: Sequence[str], depth: float, key: str, number: int) -> int:
    return count(f"{_text(sentences[:number], depth, key)} {key}")


def _most_that_fit(tokens: Callable[[int], int], length: int, most: int) -> int:
    """Return the largest number of sentences with which a text has at most `length` tokens, by bisection to `most`."""
    if tokens(0) > length:
        raise ValueError(f"a key and its question take {tokens(0)} tokens, more than {length}")
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens(middle) <= length else (low, middle - 1)
    return low


def _text(sentences: Sequence[str], depth: float, key: str) -> str:
    place = round(depth * len(sentences))
    return " ".join([*sentences[:place], NEEDLE.format(key=key), *sentences[place:], QUESTION])


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return a text as tokens, as a text of the training begins, and without an end."""
    return without_end(tokenizer, tokenizer(text).input_ids)


def count_tokens(tokenizer: Any, text: str) -> int:
    return len(encode(tokenizer, text))


def score(model: Any, context: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """Return log p(answer | context) in nats of each answer, all of its tokens. The context is read once."""
    import torch

    device = model.get_input_embeddings().weight.device
    read = model(input_ids=torch.tensor([list(context)], device=device), use_cache=True, logits_to_keep=1)
    first_V, found = _log_probs(read.logits[0, -1]), []
    shared = _is_cut_back(read.past_key_values)
    for answer in answers:
        total = float(first_V[answer[0]])
        if len(answer) > 1:
            ids = torch.tensor([list(answer)], device=device)
            cache = read.past_key_values if shared else copy.deepcopy(read.past_key_values)
            logits_TV = model(input_ids=ids[:, :-1], past_key_values=cache).logits[0]
            total += float(_log_probs(logits_TV).gather(-1, ids[0, 1:, None]).sum())
            if shared:
                cache.crop(1 - len(answer))  # below 0: so many tokens go
        found.append(total)
    return found


def _is_cut_back(cache: Any) -> bool:
    """Whether a cache can be put back as it was: not where a sliding window has dropped what lies behind."""
    return getattr(cache, "is_croppable", False) and not any(cache.is_sliding)


def _log_probs(logits: Tensor) -> Tensor:
    """Return log-probabilities in float32: bfloat16 has too few digits to tell two answers apart."""
    return logits.float().log_softmax(-1)


def ask(
    model: Any, tokenizer: Any, *, length: int, depths: int, samples: int, choices: int,
    on_answer: Progress | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return a record of each text of a length: its depth, its tokens, and whether the right key gained most."""
    records = []
    counted = {"length": length, "depths": depths, "samples": samples, "choices": choices}
    asked = needles(partial(count_tokens, tokenizer), **counted)
    anyway = dict(zip(KEYS, _of_keys(model, tokenizer, QUESTION, KEYS), strict=True))
    for needle in asked:
        found = _of_keys(model, tokenizer, needle.context, needle.keys)
        gained = [value - anyway[key] for value, key in zip(found, needle.keys, strict=True)]
        best = max(range(choices), key=gained.__getitem__)
        records.append({"length": length, "depth": needle.depth, "correct": best == needle.answer})
        if on_answer is not None:
            on_answer(1)
    return records


def _of_keys(model: Any, tokenizer: Any, context: str, keys: Sequence[str]) -> list[float]:
    """Return log p(key | context) of each key. All tokens count that are not alike in all of them."""
    whole = [encode(tokenizer, f"{context} {key}") for key in keys]
    columns = zip(*whole, strict=False)  # a tokenizer may write the end of a text otherwise before a word
    alike = sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns))
    return score(model, whole[0][:alike], [ids[alike:] for ids in whole])


def by_cell(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each length and depth, and for each length over all depths (depth None), score, n, low and high."""
    found = []
    lengths = dict.fromkeys(record["length"] for record in records)
    for length in lengths:
        of_length = [record for record in records if record["length"] == length]
        for depth in [*dict.fromkeys(record["depth"] for record in of_length), None]:
            answers = [bool(r["correct"]) for r in of_length if depth is None or r["depth"] == depth]
            found.append({"length": length, "depth": depth, **(score_of(answers) or {})})
    return found
