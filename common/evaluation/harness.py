"""Wraps a checkpoint for lm-evaluation-harness and keeps the harness quiet.

Usage: `with quiet(): model = load(checkpoint, batch_size=64, device="cpu")`.

Patches of the harness are here and nowhere else; it is pinned to the 0.4 series. What it is asked is
`common.evaluation.exam`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.yaml import read_yaml
from common.errors import DataError
from common.models.device import has_room, offload_kwargs
from common.models.remote_code import loadable
from common.models.shards import read_header, shards_of
from common.models.special_tokens import document_start
from common.models.turns import ANSWER, DIALOGUE, render, turn_end

Progress = Callable[[int, int], None]
FEWSHOT_SEED = 1234  # the harness's own default
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


@contextlib.contextmanager
def metrics_of_its_own() -> Iterator[None]:
    """Let tasks name metrics of the harness alone: for any other it fetches code from the Hub, and runs it."""
    import lm_eval.api.metrics  # noqa: F401  # registers them
    import lm_eval.api.task as task_module
    from lm_eval.api.registry import metric_registry

    found = task_module.get_metric

    def get(name: str, hf_evaluate_metric: bool = False) -> Any:
        if hf_evaluate_metric or name not in metric_registry:
            raise DataError(f"the metric {name} is code of the Hub, which is not run; the harness has others")
        return found(name)

    task_module.get_metric = get
    try:
        yield
    finally:
        task_module.get_metric = found


@contextlib.contextmanager
def bounded_files(folders: Sequence[Path]) -> Iterator[None]:
    """Let the harness pass over the task files in some folders that ours cannot read either.

    Its own reader has no bounds: a file of brackets ends the process, and one of aliases never ends.
    """
    from lm_eval.tasks._index import TaskIndex

    files = TaskIndex._iter_yaml_files

    def readable(root: Path) -> Iterator[Path]:
        for path in files(root):
            if root not in folders or _is_read(path):
                yield path

    TaskIndex._iter_yaml_files = staticmethod(readable)
    try:
        yield
    finally:
        TaskIndex._iter_yaml_files = staticmethod(files)


def _is_read(path: Path) -> bool:
    try:
        read_yaml(path, any_tag=True)
    except DataError as error:
        logger.warning("%s It is left out.", error)
        return False
    return True


def load(
    checkpoint: Path, *, batch_size: int, device: str, trust_remote_code: bool = False,
    on_pass: Callable[[int], None] | None = None,
) -> Any:  # fmt: skip
    """Load a checkpoint and wrap it for the harness: in bfloat16 on a GPU that computes in it, elsewhere in float32.

    Older GPUs would emulate bfloat16, and a model that was trained in it may leave the range of float16. A model that
    is too large for the GPU stays partly in main memory (`common.models.device.offload_kwargs`). `on_pass` is called
    after every forward pass with the number of sequences in it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from common.evaluation.candidate import Candidate

    on_gpu = device.startswith("cuda")
    narrow = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if narrow else torch.float32
    place = str(loadable(checkpoint, trust_remote_code))
    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    fits = not on_gpu or has_room(_num_weights(checkpoint) * dtype.itemsize)
    model = AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype, trust_remote_code=trust_remote_code, **({} if fits else offload_kwargs())
    )
    if fits:
        model.to(torch.device(device))
    # Log-softmax in float32: bfloat16 has three digits, too few to distinguish two choices.
    candidate = Candidate(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32",
        prefix_token_id=document_start(tokenizer),
    )  # fmt: skip
    candidate.on_pass = on_pass
    return candidate


def _num_weights(folder: Path) -> int:
    headers = (read_header(shard) for shard in shards_of(folder))
    return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())


def evaluate(
    model: Any, tasks: Mapping[str, Any], chat: bool, limit: int | None = None, *, ending: str = ""
) -> dict[str, Any]:
    """Run loaded tasks and return the harness's results with a log of every sample; `ending` closes every choice.

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
    model.chat, model.ending = chat, ending
    model.add_bos_token = False if chat else None  # a chat template writes the first token by itself, if it has one
    results = run(
        lm=model, task_dict=dict(tasks), limit=limit, bootstrap_iters=0, log_samples=True, apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )  # fmt: skip
    assert results is not None, "one process always has results"
    return dict(results)


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
