"""The model that lm-evaluation-harness asks: choices share their context, and long questions are reported.

Usage: `candidate = Candidate(pretrained=model, tokenizer=tokenizer, batch_size=64)`, from `common.evaluation.harness`.

It imports the harness, so nothing that is on the way of a plan imports this module.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import logging
import operator
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from common.cost.memory import TEXT_WINDOW
from common.errors import DataError
from common.evaluation import shared_context
from common.models.control_tokens import MARK, reader_of
from common.models.limits import within_limits
from common.models.rendering import marked_messages

TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}  # of log-likelihoods per token, shared against plain
logger = logging.getLogger(__name__)


class Candidate(HFLM):  # type: ignore[misc]  # the harness ships no types
    """A checkpoint as the harness asks it: without bars, contexts shared, passes reported to `on_pass`."""

    _max_length: int | None
    add_bos_token: bool | None
    on_pass: Callable[[int], None] | None = None
    unshared: str | None = None  # why choices cannot share a context
    chat: bool = False  # whether strings were written by the chat template
    ending: str = ""  # what closes every choice, written by us
    checked: collections.Counter[tuple[str, bool]]  # the longest rows scored in both ways; True: of several choices
    loglikelihood = functools.partialmethod(HFLM.loglikelihood, disable_tqdm=True)
    generate_until = functools.partialmethod(HFLM.generate_until, disable_tqdm=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.checked = collections.Counter()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as text; the names of control tokens in it are marked as text."""
        marked = marked_messages(self.tokenizer, chat_history)
        with within_limits(self.tokenizer, len(marked)):
            return str(super().apply_chat_template(marked, add_generation_prompt=add_generation_prompt))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self.chat:
            text = continuation.removesuffix(self.ending)
            continuation = reader_of(self.tokenizer).mark(text) + continuation[len(text) :]
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **options: Any
    ) -> list[int]:
        """Return a string as ids; the names of control tokens in a text are text."""
        marked = self._marked(string)
        if MARK not in marked:
            ids: list[int] = super().tok_encode(string, add_special_tokens, left_truncate_len, **options)
            return ids
        around = self.add_bos_token if add_special_tokens is None else add_special_tokens
        (ids,) = reader_of(self.tokenizer).encode([marked], whole=around is not False)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Return strings as a padded batch of ids and its mask; the names of control tokens in texts are text."""
        if not any(MARK in self._marked(string) for string in strings):
            found: tuple[Any, Any] = super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
            return found
        ids = [self.tok_encode(string) for string in strings]
        batch = self.tokenizer.pad({"input_ids": ids}, padding_side=padding_side, return_tensors="pt")
        last = slice(-left_truncate_len, None) if left_truncate_len else slice(None)
        return batch["input_ids"][:, last], batch["attention_mask"][:, last]

    def _marked(self, string: str) -> str:
        return string if self.chat else reader_of(self.tokenizer).mark(string)

    def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
        logits = super()._model_call(inps, *args, **kwargs)
        self._count(len(inps))
        return logits

    def _count(self, num_sequences: int) -> None:
        if self.on_pass is not None:
            self.on_pass(num_sequences)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Score texts behind what a document follows, which is no token of the text itself."""
        before = self._max_length, self.add_bos_token
        self._max_length, self.add_bos_token = min(self.max_length, TEXT_WINDOW), False
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)
        finally:
            self._max_length, self.add_bos_token = before

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: Any = None) -> Any:
        check_lengths(requests, self.max_length)
        plain = functools.partial(super()._loglikelihood_tokens, disable_tqdm=True, override_bs=override_bs)
        if not requests or any(name is None for name, _, _ in requests):  # pieces of a text: nothing to share
            return plain(requests)
        rows = shared_context.rows_of(requests, self.max_length)
        if self.unshared is None:
            self._check_sharing(rows, requests, plain)
        if self.unshared is not None:
            return plain(requests)
        found: dict[int, shared_context.Found] = {}
        for batch in shared_context.batches_of(rows, self.batch_size):
            found |= shared_context.score(self.model, batch, self.device)
            self._count(sum(len(row.choices) for row in batch))
        answers = [found[index] for index in range(len(requests))]
        for (name, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", name, answer)
        return answers

    def _check_sharing(self, rows: list[shared_context.Row], requests: Any, plain: Callable[[Any], Any]) -> None:
        """Score the longest row, and that with the longest choices, in both ways, unless longer ones were before.

        The same for rows of several choices, as a row of one shows nothing of how choices are kept apart. Two of
        each are enough: the second is wrong where the first is not kept from it.
        """
        several = [row for row in rows if len(row.choices) > 1]
        for measure, pool in itertools.product(("tokens", "tokens_of_choices"), (rows, several)):
            row = max(pool, key=operator.attrgetter(measure), default=None)
            if row is None or self.unshared is not None:
                continue
            key, long = (measure, len(row.choices) > 1), getattr(row, measure)
            if long <= self.checked[key]:
                continue
            self.checked[key] = long
            two = dataclasses.replace(row, choices=sorted(row.choices, key=lambda choice: len(choice[1]))[-2:])
            self.unshared = shared_context.refusal(self.model) or _disagreement(
                self.model, two, plain([requests[index] for index, _ in two.choices]), self.device
            )
            if self.unshared is not None:
                logger.warning("every choice is scored with its whole context: %s", self.unshared)


def _disagreement(model: Any, row: shared_context.Row, plain: list[tuple[float, bool]], device: Any) -> str | None:
    """Return why a row cannot be scored at once: the model does not allow it, or gives other likelihoods; or None."""
    try:
        found = shared_context.score(model, [row], device, padding=1)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model's own code raises on a mask or on positions
        return f"the model takes no mask of its own ({type(error).__name__})"
    allowed = TOLERANCE[str(model.dtype).removeprefix("torch.")]
    for (index, choice), (likelihood, _) in zip(row.choices, plain, strict=True):
        if not abs(found[index][0] - likelihood) <= allowed * max(len(choice), abs(likelihood) / 10):
            return "the model does not keep the choices behind one context apart"
    return None


def check_lengths(requests: list[tuple[Any, list[int], list[int]]], window: int) -> None:
    """Warn of prompts that lose their beginning. Raises DataError for an answer longer than the context window."""
    longest = max((len(answer) for _, _, answer in requests), default=0)
    if longest > window:
        raise DataError(
            f"A choice has {longest} tokens, more than the model's context of {window}. Shorten it, leave the question "
            "out, or use a model with a longer context."
        )
    # The last token is only predicted, never read, so one more than the window fits.
    cut = sum(len(prompt) + len(answer) > window + 1 for _, prompt, answer in requests)
    if cut:
        logger.warning(
            "%d of %d prompts are longer than the model's context of %d tokens; the model does not see their beginning",
            cut, len(requests), window,
        )  # fmt: skip
