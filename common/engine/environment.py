"""Set up the libraries before the first of them is imported: threads, output, and access to the Hub.

Usage: `prepare(resolved.config.run, asks_hub=needs_hub(config, corpus, stages))`, once per process.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence

from common.config.base import StageSettings
from common.config.schema import Config, RunSettings
from common.config.stages import PublishSettings, RewardSettings
from common.data.corpus import Corpus
from common.machine import cores
from common.models.source import is_hub_id
from common.system.importing import importing
from common.system.limited import Exceeded, watched
from common.training.distributed import ranks

HUB = "https://huggingface.co"
PATIENCE = 5.0  # seconds
REDIRECTS = range(300, 400)  # codes of answers that name another place
VISIBLE = "CUDA_VISIBLE_DEVICES"
_limited = False  # whether it was `prepare` that set it
OFFLINE = "HF_HUB_OFFLINE"
# The libraries read the variable once, when they are imported, into these constants. All others ask `huggingface_hub`.
OFFLINE_CONSTANTS = (
    ("huggingface_hub.constants", OFFLINE), ("datasets.config", OFFLINE), ("datasets.config", "HF_DATASETS_OFFLINE"),
)  # fmt: skip
_kept_off = False  # whether it was `prepare` that keeps this process off the Hub
NOISY = ("trl", "accelerate", "datasets", "mergekit", "lm_eval", "matplotlib", "bitsandbytes")


def prepare(run: RunSettings, *, asks_hub: bool) -> None:
    """Keep libraries quiet, set the number of threads, and keep them off a Hub that is not needed or does not answer.

    A Hub that does not answer is found out once here: its clients try every file six times, for half a minute each.
    They still find what is in their caches. Each run of a process decides again, unless the user has set the variable.
    """
    if _kept_off or not {OFFLINE, "TRANSFORMERS_OFFLINE"} & os.environ.keys():
        _allow_hub(asks_hub and hub_answers())
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO is among what TRL may still change
    if ranks.size() == 1 and VISIBLE not in os.environ:
        global _limited  # a process by itself trains on one GPU; seeing several, Trainer would split its batches
        os.environ[VISIBLE], _limited = "0", True
    with importing():
        import torch
        import transformers

    if run.threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(run.threads or max(1, cores() // ranks.local_size()))
    if run.verbosity != "verbose":
        warnings.filterwarnings("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)


def _allow_hub(allowed: bool) -> None:
    """Let the Hub's clients ask it or not, those included that are imported already."""
    global _kept_off
    _kept_off = not allowed
    if allowed:
        os.environ.pop(OFFLINE, None)
    else:
        os.environ[OFFLINE] = "1"
    for module, constant in OFFLINE_CONSTANTS:
        if module in sys.modules:
            setattr(sys.modules[module], constant, not allowed)


@contextlib.contextmanager
def hub_restored() -> Iterator[None]:
    """Undo on leaving what `prepare` did to the access to the Hub."""
    try:
        yield
    finally:
        if _kept_off:
            _allow_hub(True)


def environment() -> dict[str, str]:
    """Return the environment for processes that share a stage: without the limit to one GPU that `prepare` sets."""
    return {key: value for key, value in os.environ.items() if not (_limited and key == VISIBLE)}


def needs_hub(config: Config, corpus: Corpus, stages: Sequence[StageSettings]) -> bool:
    """Whether some stages of a run read from the Hub or publish to it."""
    publishes = any(isinstance(settings, PublishSettings) and settings.to.startswith("hub:") for settings in stages)
    benchmarks = any(getattr(settings, "tasks", ()) for settings in stages)
    rows = any("revision" in source for source in corpus.sources())  # of data sets of the Hub
    judges = any(isinstance(settings, RewardSettings) and is_hub_id(settings.path) for settings in stages)
    return publishes or benchmarks or rows or judges or is_hub_id(config.model.path)


def hub_answers() -> bool:
    """Whether the Hub can be reached at all, whatever it says."""
    try:
        request = urllib.request.Request(os.environ.get("HF_ENDPOINT", HUB), method="HEAD")

        def ask() -> None:
            with urllib.request.urlopen(request, timeout=PATIENCE):
                pass

        watched(ask, 2 * PATIENCE)  # the other limit is for each byte of an answer
        return True
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            return error.code not in REDIRECTS  # one that sends from place to place is none
    except (OSError, ValueError, http.client.HTTPException, Exceeded):
        return False
