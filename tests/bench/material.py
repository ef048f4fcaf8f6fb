"""What the training bench trains: models, rows, documents and pairs, on a CPU the tiny chain's, on a GPU random ones.

Usage: `m = material("tiny", "cpt", folder, steps=48)`; `m.model()`, `m.rows`, `m.documents`, `m.pairs`.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.resolve import resolve
from common.console import Console
from common.engine.environment import prepare
from common.engine.plan import open_corpus
from common.stage import StageContext
from common.training.rows.preferences import Pair, tokenise_pair
from tests.conftest import REPOSITORY

Document = tuple[list[int], list[int]]  # input_ids, labels
ROW = 4096  # tokens of a row on a GPU
TOKENS_PER_STEP = 65_536
MEAN_DOCUMENT = 900  # tokens
# Qwen3's shapes, with random weights.
SHAPES = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
}
VOCABULARY = 151_936


@dataclass
class Material:
    """One stage's batches, the same for every loop."""

    context: StageContext
    tokenizer: Any
    model: Callable[[], Any]
    device: str
    length: int
    rows_per_step: int
    micro_rows: int
    pairs_per_step: int
    micro_pairs: int
    flops_per_token: float  # forward and backward, attention left out: 6 per weight (Kaplan et al. 2020, section 2.1)
    rows: Any = None  # packed
    documents: list[Document] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def bf16(self) -> bool:
        """Whether every loop computes in bfloat16, as the stage does on this machine."""
        settings: Any = self.context.settings
        return bool(settings.precision == "bfloat16")

    @property
    def tokens_per_step(self) -> float:
        """Return the tokens of a step: of whole rows, padding included, or the real ones of pairs, on average."""
        if not self.pairs:
            return self.rows_per_step * self.length
        real = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in self.pairs)
        return real / len(self.pairs) * self.pairs_per_step


def models_here() -> tuple[str, list[str]]:
    """Return the device of this machine and the models that are measured on it."""
    import torch

    return ("cuda", list(SHAPES)) if torch.cuda.is_available() else ("cpu", ["tiny"])


def context_for(stage: str, folder: Path, **words: str) -> StageContext:
    """Return the context of a stage of the medical tiny chain."""
    resolved = resolve({"domain": "medical", **words}, REPOSITORY)
    prepare(resolved.config.run, asks_hub=False)
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage, stage, resolved.config.stages[stage], resolved.config, {}, None, open_corpus(resolved),
        folder / "out", folder / "work", folder / "models", Console("quiet"),
    )  # fmt: skip


def material(model: str, stage: str, folder: Path, steps: int, words: Mapping[str, str] | None = None) -> Material:
    """Return the batches of one stage of a model, under settings given as on the command line."""
    make = _tiny if model == "tiny" else functools.partial(_random, model)
    return make(stage, folder, steps, dict(words or {}))


def _tiny(stage: str, folder: Path, steps: int, words: dict[str, str]) -> Material:
    """Return the rows and pairs of the medical domain as its stages read them."""
    from common.stages.base import initialise, make_tokenizer
    from common.training.rows.packing import pack
    from common.training.rows.preferences import read_pairs
    from common.training.rows.reader import Reader

    context = context_for(stage, folder, **words)
    tokenizer = make_tokenizer(context)
    settings: Any = context.settings
    weights = sum(p.numel() for p in initialise(context, tokenizer).parameters())
    found = Material(
        context, tokenizer, lambda: initialise(context, tokenizer), "cpu", settings.sequence_length, 1, 1, 1, 1,
        flops_per_token=6.0 * weights,
    )  # fmt: skip
    if stage == "dpo":
        pairs, _ = read_pairs(context, tokenizer, "preference")
        size = settings.batch_pairs
        chosen = [pairs[place % len(pairs)] for place in range(steps * size)]
        return dataclasses.replace(found, pairs_per_step=size, micro_pairs=size, pairs=chosen)
    size = settings.batch_tokens // settings.sequence_length
    reader = Reader(context, tokenizer, stage, chat_only=False)
    budget = int(1.2 * steps * settings.batch_tokens)
    stream = reader.tokens(assistant_only=stage == "sft", sequence_length=settings.sequence_length, budget=budget)
    documents = [(row.input_ids, row.labels) for row in stream]
    rows = pack(_as_rows(documents), settings.sequence_length, folder / "rows", stage)
    order = [place % len(rows) for place in range(steps * size)]
    return dataclasses.replace(
        found, rows_per_step=size, micro_rows=size, rows=rows.select(order), documents=documents
    )  # fmt: skip


def _as_rows(documents: list[Document]) -> Any:
    from common.training.rows.packing import TokenRow

    return (TokenRow(ids, labels) for ids, labels in documents)


def _random(model: str, stage: str, folder: Path, steps: int, words: dict[str, str]) -> Material:
    """Return random tokens for a model with random weights: rows of 4,096, or pairs of about as many.

    One at a time, whose activations fit a GPU of 80 GB beside 1.7 billion weights: nothing is computed twice.
    """
    from common.stages.base import make_tokenizer
    from common.training.rows.packing import pack

    words |= {
        f"{stage}.sequence_length": str(ROW), f"{stage}.train.gradient_checkpointing": "false",
        "run.micro_batch_tokens": str(ROW), "run.device": "cuda",
    }  # fmt: skip
    if stage != "dpo":
        words[f"{stage}.batch_tokens"] = str(TOKENS_PER_STEP)
    context = context_for(stage, folder, **words)
    tokenizer = make_tokenizer(context)
    weights = sum(p.numel() for p in _build(model, "meta").parameters())
    size = TOKENS_PER_STEP // ROW
    found = Material(
        context, tokenizer, lambda: _build(model, "cuda"), "cuda", ROW, size, 1, 16, 1,
        flops_per_token=6.0 * weights,
    )  # fmt: skip
    rng = random.Random(0)
    lengths = [max(16, min(ROW, round(rng.expovariate(1 / MEAN_DOCUMENT)))) for _ in range(steps * 16 * 6)]
    drawn = [[rng.randrange(10, VOCABULARY) for _ in range(length)] for length in lengths]
    if stage == "dpo":
        rows = [
            {
                side: [{"role": role, "content": tokenizer.decode(rng.choices(range(300, len(tokenizer)), k=length))}]
                for side, role, length in (
                    ("prompt", "user", ROW // 8),
                    ("chosen", "assistant", ROW // 4),
                    ("rejected", "assistant", ROW // 4),
                )
            }
            for _ in range(steps * found.pairs_per_step)
        ]
        return dataclasses.replace(found, pairs=[tokenise_pair(row, tokenizer) for row in rows])
    learned = 0 if stage == "cpt" else 2  # in SFT about half of a row is an answer
    documents = [(ids, [-100] * (len(ids) // learned if learned else 0) + ids[len(ids) // learned if learned else 0 :])
                 for ids in drawn]  # fmt: skip
    rows = pack(_as_rows(documents), ROW, folder / "rows", stage)
    order = [place % len(rows) for place in range(steps * size)]
    return dataclasses.replace(found, rows=rows.select(order), documents=documents)


def _build(model: str, device: str) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
        max_position_embeddings=40_960, **SHAPES[model],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen3ForCausalLM(config)
