"""What the training bench trains: models, rows, documents and pairs, on a CPU the tiny chain's, on a GPU random ones.

Usage: `m = material("tiny", "cpt", folder, steps=48)`; `m.model()`, `m.rows`, `m.documents`, `m.pairs`.

`qwen3-small` takes the way of the random ones on a CPU.
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
from common.engine.corpora import open_corpus
from common.engine.environment import prepare
from common.stage import StageContext
from common.store.artifacts import Artifact
from common.training.adapters import learner_of
from common.training.rows.preferences import Pair, tokenise_pair
from tests.conftest import REPOSITORY

Document = tuple[list[int], list[int]]  # input_ids, labels


@dataclass(frozen=True)
class Shape:
    """A model of Qwen3's kind with random weights, and the batches that it is measured with."""

    sizes: Mapping[str, int]  # of its configuration
    device: str
    row: int  # tokens
    tokens_per_step: int
    mean_document: int


def _large(hidden: int, intermediate: int) -> Shape:
    sizes = {
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
    }  # fmt: skip
    return Shape(sizes, "cuda", row=4096, tokens_per_step=65_536, mean_document=900)


SMALL = "qwen3-small"
_SMALL_SIZES = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 4096,
}  # fmt: skip
SHAPES = {
    "qwen3-0.6b": _large(1024, 3072),
    "qwen3-1.7b": _large(2048, 6144),
    SMALL: Shape(_SMALL_SIZES, "cpu", row=128, tokens_per_step=512, mean_document=40),
}


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
    def precision(self) -> str:
        """Return what the stage computes in, and so every loop: a name of torch's."""
        settings: Any = self.context.settings
        return str(settings.precision)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

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

    return ("cuda", [name for name in SHAPES if name != SMALL]) if torch.cuda.is_available() else ("cpu", ["tiny"])


def context_for(stage: str, folder: Path, **words: str) -> StageContext:
    """Return the context of a stage of the medical tiny chain."""
    resolved = resolve({"domain": "medical", **words}, REPOSITORY)
    prepare(resolved.config.run, asks_hub=False)
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    kind = {node.name: node.kind for node in resolved.nodes}.get(stage, stage)
    return StageContext(
        stage, kind, resolved.config.stages[stage], resolved.config, {}, None, open_corpus(resolved),
        folder / "out", folder / "work", folder / "models", Console("quiet"),
    )  # fmt: skip


def material(model: str, stage: str, folder: Path, steps: int, words: Mapping[str, str] | None = None) -> Material:
    """Return the batches of one stage of a model, under settings given as on the command line."""
    make = _tiny if model == "tiny" else functools.partial(_random, model)
    return make(stage, folder, steps, dict(words or {}))


def _tiny(stage: str, folder: Path, steps: int, words: dict[str, str]) -> Material:
    """Return the rows and pairs of the medical domain as its stages read them."""
    from common.stages.base import initialise, make_tokenizer
    from common.training.rows.preferences import read_pairs
    from common.training.rows.reader import Reader
    from tests.training.rows.packed import pack

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
    documents = [(list(row.input_ids), list(row.labels)) for row in stream]
    rows = pack(_as_rows(documents), settings.sequence_length, folder / "rows", stage)
    order = [place % len(rows) for place in range(steps * size)]
    return dataclasses.replace(
        found, rows_per_step=size, micro_rows=size, rows=rows.select(order), documents=documents
    )  # fmt: skip


def _as_rows(documents: list[Document]) -> Any:
    from common.training.rows.shards import TokenRow

    return (TokenRow(ids, labels) for ids, labels in documents)


def _random(model: str, stage: str, folder: Path, steps: int, words: dict[str, str]) -> Material:
    """Return random tokens for a model with random weights: packed rows, or pairs of about as many tokens.

    One row at a time, whose activations fit a GPU of 80 GB beside 1.7 billion weights: nothing is computed twice.
    """
    from common.stages.base import make_tokenizer
    from tests.training.rows.packed import pack

    shape = SHAPES[model]
    row, device = shape.row, shape.device
    words |= {
        f"{stage}.sequence_length": str(row), f"{stage}.train.gradient_checkpointing": "false",
        "run.micro_batch_tokens": str(row), "run.device": device,
    }  # fmt: skip
    if stage != "dpo":
        words[f"{stage}.batch_tokens"] = str(shape.tokens_per_step)
    context = context_for(stage, folder, **words)
    tokenizer = make_tokenizer(context)
    weights = sum(p.numel() for p in build(model, "meta").parameters())
    size = shape.tokens_per_step // row
    settings: Any = context.settings
    quantised = settings.quantization is not None
    learner = functools.partial(_quantised, model, context) if quantised else functools.partial(build, model, device)
    found = Material(
        context, tokenizer, learner, device, row, size, 1, 16, 1,
        flops_per_token=(4.0 if quantised else 6.0) * weights,  # no gradient of weights that are frozen
    )  # fmt: skip
    rng = random.Random(0)
    lengths = [max(16, min(row, round(rng.expovariate(1 / shape.mean_document)))) for _ in range(steps * 16 * 6)]
    drawn = [[rng.randrange(10, shape.sizes["vocab_size"]) for _ in range(length)] for length in lengths]
    if stage == "dpo":
        rows = [
            {
                side: [{"role": role, "content": tokenizer.decode(rng.choices(range(300, len(tokenizer)), k=length))}]
                for side, role, length in (
                    ("prompt", "user", row // 8),
                    ("chosen", "assistant", row // 4),
                    ("rejected", "assistant", row // 4),
                )
            }
            for _ in range(steps * found.pairs_per_step)
        ]
        return dataclasses.replace(found, pairs=[tokenise_pair(row, tokenizer) for row in rows])
    learned = 0 if stage == "cpt" else 2  # in SFT about half of a row is an answer
    documents = [(ids, [-100] * (len(ids) // learned if learned else 0) + ids[len(ids) // learned if learned else 0 :])
                 for ids in drawn]  # fmt: skip
    rows = pack(_as_rows(documents), row, folder / "rows", stage)
    order = [place % len(rows) for place in range(steps * size)]
    return dataclasses.replace(found, rows=rows.select(order), documents=documents)


def build(model: str, device: str) -> Any:
    """Return a model with random weights in float32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(tie_word_embeddings=True, max_position_embeddings=40_960, **SHAPES[model].sizes)
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen3ForCausalLM(config)


def save_random(model: str, folder: Path) -> Path:
    """Save a model with random weights in bfloat16, once, for what reads a checkpoint."""
    import torch

    if not folder.exists():
        build(model, SHAPES[model].device).to(torch.bfloat16).save_pretrained(folder)
    return folder


def _quantised(model: str, context: StageContext) -> Any:
    """Return the model as a stage with `peft: qlora` loads it from its parent."""
    parent = Artifact(save_random(model, context.work / "parent"), {"kind": "base"})
    return learner_of(dataclasses.replace(context, inputs={"parent": parent}, parent="parent"), None)
