"""Wraps a checkpoint for lm-evaluation-harness and keeps the harness quiet.

Usage: `with quiet(): model = load(checkpoint, batch_size=64, device="cpu")`.

Patches of the harness are here and nowhere else; it is pinned to the 0.4 series. What it is asked is
`common.evaluation.exam`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.cost.memory import TEXT_WINDOW
from common.errors import DataError
from common.evaluation import shared_context
from common.models.checkpoint import read_header, shards_of
from common.models.device import has_room, offload_kwargs
from common.models.special_tokens import document_start
from common.models.turns import ANSWER, DIALOGUE, render, turn_end

Progress = Callable[[int, int], None]
FEWSHOT_SEED = 1234  # the harness's own default
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}  # of log-likelihoods per token, shared against plain
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off the progress bars and log lines of the harness, datasets and transformers, and restore them after."""
    import datasets
    import lm_eval.api.task as task_module
    from transformers.utils import logging as transformers_logging

    with contextlib.ExitStack() as after:
        for noisy in map(logging.getLogger, ("lm_eval", "datasets", "transformers")):
            after.callback(noisy.setLevel, noisy.level)
            noisy.setLevel(logging.ERROR)
        after.callback(setattr, task_module, "tqdm", task_module.tqdm)  # the one bar of the harness without a switch
        task_module.tqdm = functools.partial(task_module.tqdm, disable=True)
        if not datasets.are_progress_bars_disabled():
            after.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        if transformers_logging.is_progress_bar_enabled():
            after.callback(transformers_logging.enable_progress_bar)
            transformers_logging.disable_progress_bar()
        yield


def load(
    checkpoint: Path,
    *,
    batch_size: int,
    device: str,
    trust_remote_code: bool = False,
    on_pass: Callable[[int], None] | None = None,
) -> Any:
    """Load a checkpoint and wrap it for the harness: in bfloat16 on a GPU that computes in it, elsewhere in float32.

    Older GPUs would emulate bfloat16, and a model that was trained in it may leave the range of float16. A model that
    is too large for the GPU stays partly in main memory (`common.models.device.offload_kwargs`). `on_pass` is called
    after every forward pass with the number of sequences in it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = device.startswith("cuda")
    narrow = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if narrow else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint), trust_remote_code=trust_remote_code)
    fits = not on_gpu or has_room(_num_weights(checkpoint) * dtype.itemsize)
    model = AutoModelForCausalLM.from_pretrained(
        str(checkpoint), dtype=dtype, trust_remote_code=trust_remote_code, **({} if fits else offload_kwargs())
    )
    if fits:
        model.to(torch.device(device))
    # Log-softmax in float32: bfloat16 has three digits, too few to distinguish two choices.
    candidate = _wrapper()(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32",
        prefix_token_id=document_start(tokenizer),
    )  # fmt: skip
    candidate.on_pass = on_pass
    return candidate


def _num_weights(folder: Path) -> int:
    headers = (read_header(shard) for shard in shards_of(folder))
    return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())


def evaluate(model: Any, tasks: Mapping[str, Any], chat: bool, limit: int | None = None) -> dict[str, Any]:
    """Run loaded tasks and return the harness's results with a log of every sample.

    This is `lm_eval.evaluate`: `simple_evaluate` also seeds the global generators and spends seconds on collecting
    facts of the machine. It makes no bootstrap: `common.evaluation.statistics` has the intervals.
    """
    from lm_eval import evaluate as run

    if not tasks.get("tasks"):
        return {"results": {}, "versions": {}, "samples": {}}
    for task in tasks["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    model.add_bos_token = False if chat else None  # a chat template writes the first token by itself, if it has one
    results = run(
        lm=model,
        task_dict=dict(tasks),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    assert results is not None, "one process always has results"
    return dict(results)


@functools.cache
def _wrapper() -> type[Any]:
    """Return the harness's model class with its bars off, contexts shared, long questions reported, a progress hook."""
    from lm_eval.models.huggingface import HFLM

    class Candidate(HFLM):  # type: ignore[misc]  # the harness ships no types
        _max_length: int | None
        add_bos_token: bool | None
        on_pass: Callable[[int], None] | None = None
        unshared: str | None = None  # why choices cannot share a context
        checked: collections.Counter[tuple[str, bool]]  # the longest rows scored in both ways; True: of several choices
        loglikelihood = functools.partialmethod(HFLM.loglikelihood, disable_tqdm=True)
        generate_until = functools.partialmethod(HFLM.generate_until, disable_tqdm=True)

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.checked = collections.Counter()

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

    return Candidate


def _disagreement(model: Any, row: shared_context.Row, plain: list[tuple[float, bool]], device: Any) -> str | None:
    """Return why a row cannot be scored at once: the model does not allow it, or gives other likelihoods; or None."""
    import torch

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


def answer_ending(tokenizer: Any, stops: Collection[int]) -> str:
    """Return what the chat template writes after an assistant's answer, up to and with the token that ends its turn.

    It is empty where that token is none of the model's `stops`: then the model was not trained to stop with it.
    """
    end = turn_end(tokenizer)
    if end is None or end not in stops:
        return ""
    token = tokenizer.convert_ids_to_tokens(end)
    between, _, _ = (render(tokenizer, DIALOGUE) or "").rpartition(ANSWER)[2].partition(token)
    return "" if between.strip() else between + token
