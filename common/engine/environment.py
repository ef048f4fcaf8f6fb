"""Set up the libraries before the first of them is imported: threads, quiet, and the Hub only where it is needed.

Usage: `prepare(resolved.config.run, asks_hub=needs_hub(resolved, corpus))`, once per process.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Sequence

from common.config.base import StageSettings
from common.config.schema import Config, RunSettings
from common.config.stages import PublishSettings, RewardSettings
from common.data.corpus import Corpus
from common.models.source import is_hub_id
from common.training.distributed import ranks

HUB = "https://huggingface.co"
PATIENCE = 5.0  # seconds
VISIBLE = "CUDA_VISIBLE_DEVICES"
_limited = False  # whether it was `prepare` that set it
NOISY = ("trl", "accelerate", "datasets", "mergekit", "lm_eval", "matplotlib", "bitsandbytes")


def prepare(run: RunSettings, *, asks_hub: bool) -> None:
    """Keep libraries quiet, set the number of threads, and keep off the Hub what does not need it or cannot reach it.

    A Hub that does not answer is told once here: its clients try every file six times, for half a minute each. What
    lies in their caches is still found.
    """
    if "HF_HUB_OFFLINE" not in os.environ and not (asks_hub and hub_answers()):
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO is among what TRL may still change
    if ranks.size() == 1 and VISIBLE not in os.environ:
        global _limited  # a process by itself trains on one GPU; seeing several, Trainer would split its batches
        os.environ[VISIBLE], _limited = "0", True
    import torch
    import transformers

    if run.threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(run.threads or max(1, (os.cpu_count() or 1) // ranks.local_size()))
    if run.verbosity != "verbose":
        warnings.filterwarnings("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)


def environment() -> dict[str, str]:
    """Return the environment for processes that share a stage: without the one GPU that `prepare` leaves this one."""
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
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
