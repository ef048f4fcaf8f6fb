"""Generates written answers and marks them.

Usage: `answers = write_answers(model, tokenizer, questions, chat=True, most_tokens=128, batch_size=64)`.

These answers are greedy; `common.training.sampling` draws several per prompt. Texts and numbers are compared in
`common.data.answers`. Which questions are answered in writing is decided in `common.evaluation.exam`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.data.answers import exact, f1, final_answer, parse_number, same_number
from common.evaluation.tasks import PLAIN_PROMPT
from common.models.control_tokens import reader_of
from common.models.facts import context_of
from common.models.rendering import encode_chat
from common.models.special_tokens import first_tokens, stop_ids

logger = logging.getLogger(__name__)
Question = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Written:
    """What a checkpoint wrote: its text, whether it stopped by itself, and its tokens including the stop token."""

    text: str
    stopped: bool
    num_tokens: int = field(default=0, compare=False)


def write_answers(
    model: Any, tokenizer: Any, questions: Sequence[Question], *, chat: bool, most_tokens: int, batch_size: int
) -> list[Written]:
    """Return one greedy answer per question, in their order; a question is a text, or with `chat` the messages so far.

    Questions of similar length share a batch, padded on the left. An answer that has not ended after `most_tokens` is
    cut there. A question that leaves no room for an answer loses its beginning, as in multiple choice.
    """
    prompts, most_tokens = as_prompts(model, tokenizer, questions, chat=chat, most_tokens=most_tokens)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[Written] = [Written("", False)] * len(prompts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        wrote = generate(model, tokenizer, [prompts[index] for index in batch], most_tokens, {"do_sample": False})
        for index, answer in zip(batch, wrote, strict=True):
            answers[index] = answer
    return answers


def as_prompts(
    model: Any, tokenizer: Any, questions: Sequence[Question], *, chat: bool, most_tokens: int
) -> tuple[list[list[int]], int]:
    """Return the questions as token ids, cut so that an answer fits after them, and the longest answer in tokens.

    A plain question begins as a text of the model without a prompt does, where the method `conditional` says how.
    """
    room = context_of(model)
    most_tokens = min(most_tokens, room // 2)
    first = [] if chat else first_tokens(model)
    prompts = _cut([_prompt(tokenizer, question, chat) for question in questions], room - most_tokens - len(first))
    return [first + prompt for prompt in prompts], most_tokens


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], most_tokens: int, options: Mapping[str, Any]
) -> list[Written]:
    """Return the model's answers to one batch of prompts; `options` are those of transformers' `generate`.

    With `num_return_sequences` the answers to a prompt follow each other. Dropout is off meanwhile.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    stops = frozenset(stop_ids(model, tokenizer))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stops, default=0)
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    was_training = model.training
    model.eval()
    output = model.generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=most_tokens,
        pad_token_id=pad, **options,
    )  # fmt: skip
    model.train(was_training)
    return [_until_stop(new, stops, tokenizer) for new in output[:, ids.shape[1] :].tolist()]


def _cut(prompts: list[list[int]], longest: int) -> list[list[int]]:
    cut = sum(len(prompt) > longest for prompt in prompts)
    if cut:
        logger.warning(
            "%d of %d questions leave no room for an answer in %d tokens; the model does not see their beginning",
            cut, len(prompts), longest,
        )  # fmt: skip
    return [prompt[-longest:] for prompt in prompts]


def _prompt(tokenizer: Any, question: Question, chat: bool) -> list[int]:
    if not chat:
        reader = reader_of(tokenizer)
        (plain,) = reader.encode([reader.mark(PLAIN_PROMPT.format(question=question))], whole=True)
        return plain
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    return encode_chat(tokenizer, messages, prompt=True)


def _until_stop(ids: list[int], stops: frozenset[int], tokenizer: Any) -> Written:
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
    return Written(str(text).strip(), end is not None, len(ids) if end is None else end + 1)


def mark(row: Mapping[str, Any], text: str) -> tuple[bool, float]:
    """Return (right, F1 of words) of a written answer to a question row with `answers` and `match`.

    Only the line after the mark `final` counts, if the row has one and the text contains it. `match: number` compares
    the last number; `match: text` compares words without case, punctuation and articles, as SQuAD's evaluation does
    (Rajpurkar et al. 2016).
    """
    final = row.get("final")
    answer = final_answer(text, final) if final else text
    if row["match"] == "text":
        return exact(answer, row["answers"]), f1(answer, row["answers"])
    number = parse_number(answer)
    right = any(same_number(number, parse_number(reference)) for reference in row["answers"])
    return right, float(right)
