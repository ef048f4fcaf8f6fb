"""Bytes that a forward pass keeps for its backward pass, tensor by tensor as transformers' decoders save them.

Usage: `layer_bytes(shape, work, "varlen")` per token and layer; `head_bytes(shape, work)` for the logits.

Counted with torch's saved-tensor hooks on Llama and Qwen3 of transformers 5.23 with float32 weights, with and without
autocast, whole and with adapters: the formulas for the attention of the CPU are exact there (a test holds them to it);
those for CUDA follow the same tensors in the types of `common.training.speed.attention`, and have not been measured.
Sizes: H hidden, M inner, Q and K the widths of queries and keys, T tokens of a row, V vocabulary, r rank of an adapter.
"""

from __future__ import annotations

from typing import Literal

from common.cost.shapes import Shape
from common.cost.workload import Work

LEAN_LOGITS = 64_000_000  # of CPT and SFT: one cross-entropy up to these, TRL's pieces above
# Of scored answers, at once: 256 MB in float32. More are computed in pieces, and again for the backward pass.
MOST_LOGITS = 64_000_000
# Bytes of a logit that is there at once with all others: by a trainer that knows no better, for losses beside that of
# the next token, and for those that compare with a teacher's. Measured on a CPU: 26 with a teacher at 65 M logits.
HEADS_OF_LOSSES = {"full": 16.0, "terms": 24.0, "taught": 20.0, "kept": 16.0}
PIECE, OF_A_PIECE = 16_000_000, 24.0  # logits that are compared with a teacher's at once, and bytes of each besides
TRL_PIECE = 32_768  # entries of the vocabulary at a time: trl/trainer/utils.py, _CHUNKED_LOGPROB_CHUNK_SIZE
Attention = Literal["sdpa_float32", "varlen", "sdpa", "eager"]


def attention_of(asked: str, device: str, precision: str) -> Attention:
    """Return how attention is computed, as `run.attention`, device and precision decide; other names go as `sdpa`.

    On a CPU that is under a mask: where documents get rows of their own depends on the batch, and takes about as much.
    """
    if asked == "auto":
        return "sdpa_float32" if device == "cpu" else "sdpa" if precision == "float32" else "varlen"
    if asked == "documents_float32":
        return "sdpa_float32"
    return asked if asked in ("sdpa_float32", "varlen", "eager") else "sdpa"  # type: ignore[return-value] # narrowed


def layer_bytes(shape: Shape, work: Work, attention: Attention) -> float:
    """Return the bytes per token that one layer saves.

    Norms save what goes in, in float32, and what they make of it (for the weight's gradient).
    Under autocast every linear layer keeps a bfloat16 copy of its own input; without, q, k, v and gate, up share one.
    """
    h, m, q, k = shape.hidden, shape.inner, shape.queries, shape.keys
    whole, wide = work.peft == "full", 2 if work.halved else 4
    norms = 2 * 4 * h * (2 if whole else 1)
    inputs = wide * (5 * h + q) if work.halved else 2 * wide * h
    inner = 4 * wide * m
    adapter = 0 if whole else len(work.targets) * wide * work.rank
    small = _sums_bytes(shape)
    if shape.normed_heads:
        small += (4 + wide) * (q + k) if work.halved or whole else 4 * (q + k)
    shared = 2 * q if attention == "varlen" and work.halved else 0  # what comes out is the input of o_proj
    return norms + inputs + inner + adapter + small + _attention_bytes(shape, work, attention) - shared


def frozen_bytes(shape: Shape, work: Work, attention: Attention) -> float:
    """Return the bytes per token that a layer saves whose weights are frozen, so that gradients can pass through it.

    Matrices and norms keep no input for gradients of weights: norms save what goes in, the inner activation its two
    inputs and what comes out of it.
    """
    wide = 2 if work.halved else 4
    heads = 4 * (shape.queries + shape.keys) if shape.normed_heads else 0
    own = 2 * 4 * shape.hidden + 3 * wide * shape.inner + heads + _sums_bytes(shape)
    return own + _attention_bytes(shape, work, attention)


def saved_bytes(shape: Shape, work: Work, attention: Attention) -> float:
    """Return the bytes per token that all layers save which the backward pass goes through, those kept and those made
    again."""
    learning = work.learning(shape)
    frozen = work.passed(shape) - learning
    return learning * layer_bytes(shape, work, attention) + frozen * frozen_bytes(shape, work, attention)


def kept_bytes(shape: Shape, work: Work, attention: Attention) -> float:
    """Return the bytes per token that layers keep until the backward pass: of those that are made again, their input.

    Only frozen layers may do without, beside others that are made again.
    """
    again, passed = work.again(shape), work.passed(shape)
    if not work.checkpointing:
        return saved_bytes(shape, work, attention)
    return again * cut_bytes(shape) + (passed - again) * frozen_bytes(shape, work, attention)


def _sums_bytes(shape: Shape) -> float:
    """Return the bytes per token of the sums of attention and of the scales of all norms."""
    return 4 * shape.heads + 2 * 4 + (4 * (shape.heads + shape.key_heads) if shape.normed_heads else 0)


def _attention_bytes(shape: Shape, work: Work, attention: Attention) -> float:
    """Return the bytes per token that attention saves: q, k, v and what comes out, and a mask or its weights."""
    q, k, length = shape.queries, shape.keys, work.length
    if attention == "varlen":  # in bfloat16, keys and values once
        return 2 * (2 * q + 2 * k)
    if attention == "sdpa_float32":  # keys and values repeated for every head of queries, a mask of numbers
        return 4 * 4 * q + 4 * length
    wide = 2 if work.halved else 4
    if attention == "sdpa":
        return 4 * wide * q + length
    return 4 * wide * q + shape.heads * length * (4 + 2 * wide)


def ends_bytes(shape: Shape) -> float:
    """Return the bytes per token that are saved around the layers: the last norm, angles, the ids."""
    return 2 * 4 * shape.hidden + 2 * 4 * shape.head_size + 8 + 4


def pairs_bytes(shape: Shape, work: Work) -> float:
    """Return the bytes per token that pairs save besides their layers: for the meeting of outputs, and their distance.

    Measured for each pair, in float32: 0 (lerp), 8 H (dlerp) or 16 H (slerp), and 4 H (mse) or 8 H (cosine). These are
    the most of both.
    """
    return 24.0 * shape.hidden * work.pairs


def cut_bytes(shape: Shape) -> float:
    """Return the bytes per token that a checkpointed layer keeps: what goes into it, in float32."""
    return 4.0 * shape.hidden


def copies_bytes(shape: Shape, work: Work) -> float:
    """Return the bytes of the bfloat16 copies that autocast makes of float32 weights, all layers and the head.

    It holds those of weights that learn. Those of frozen ones stay where a layer keeps them for its backward pass.
    """
    if not work.halved:
        return 0.0
    layers = 0 if work.peft == "qlora" else shape.layers
    if work.only is not None:
        layers = work.learning(shape) if work.again(shape) == work.passed(shape) else work.passed(shape)
    return 2.0 * (shape.table + layers * shape.layer_linear)


def working_bytes(shape: Shape, work: Work) -> float:
    """Return the bytes that the backward pass of one layer works with: gradients of its widest tensors, for a moment.

    Two of the inner width and two of the residual's, and a matrix's gradient before it is in float32.
    """
    wide = 2 if work.halved else 4
    return work.tokens * (2 * wide * shape.inner + 2 * 4 * shape.hidden) + (wide + 4) * shape.hidden * shape.inner


def head_bytes(shape: Shape, work: Work) -> float:
    """Return the most bytes that logits and their gradients take at once.

    Lean: log-probabilities, their gradient and the logits' in float32, 12 a number, at the start of the backward pass.
    Scored: the logits and three more of their size, never more than MOST_LOGITS numbers. Chunked: two pieces of the
    vocabulary in float32, and the float32 gradient of the hidden states (TRL, _ChunkedLogProbFunction). Taught: a
    teacher's logits too, and what comparing a piece takes (`common.training.methods.pieces`). Kept: the latter alone.
    """
    numbers = float(work.scored * shape.vocabulary)
    if work.head == "none":
        return 0.0
    if work.head == "scored":
        return 16 * min(numbers, MOST_LOGITS)
    if work.head in HEADS_OF_LOSSES:
        compared = OF_A_PIECE * min(numbers, PIECE) if work.head in ("taught", "kept") else 0.0
        return HEADS_OF_LOSSES[work.head] * numbers + compared
    if work.head == "lean" and numbers <= LEAN_LOGITS:
        return 12 * numbers
    return work.scored * (3 * 4 * min(TRL_PIECE, shape.vocabulary) + 2 * 4 * shape.hidden)
