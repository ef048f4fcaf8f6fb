"""How long a stage takes: FLOPs over what a machine reaches, and what moves through memory, before any correction.

Usage: `step_seconds(setting, hardware)`; `token_seconds(setting, hardware)`.

A step is the sum of its matrix products at a share of the peak, of what its activations and its optimizer move through
memory, and of a little per layer and pass. What a machine really does is a matter of its libraries, its other users
and its heat: the steps of a training are measured, and correct later plans (`common.cost.corrections`).
Processes are taken to share the work without loss: what they tell each other (gradients of DDP, gathered layers of
FSDP2 and ZeRO-3) is not modelled, so between machines measured steps matter most.
"""

from __future__ import annotations

import math

from common.config.kinds import kind_of
from common.cost import activations
from common.cost.hardware import Hardware
from common.cost.memory import FLOAT, HALF, Setting
from common.cost.workload import Work
from common.models.device import ROOM as PLACED

# Shares of the peak that matrix products of a training reach, attention with them. GPU: 40 to 55% is what public runs
# of dense models report (PaLM 46%, arXiv 2204.02311, table 3; Llama 3 38 to 43%, arXiv 2407.21783, table 4). CPU: of
# the rate that `common.cost.hardware` gives, which is one of trainings and no peak; measured on an EPYC with AVX-512.
REACHED = {"cuda": 0.42, "cpu": 0.9}
WRITING_REACHED = 0.5  # share of the bandwidth that reading all weights for a next word reaches
PASSES = 3.0  # times that a saved activation moves: written, read, its gradient
OPTIMIZER_MOVES = 28.0  # bytes a weight: read and written weight and two moments, its gradient read
LAYER_SECONDS = {"cuda": 3e-4, "cpu": 3e-4}  # of launching a layer's operations, forward and back
STEP_SECONDS = {"cuda": 5e-3, "cpu": 18e-3}  # of what a trainer does around a step
START_SECONDS = 0.5  # of a stage, whatever it does
LIBRARIES = {"train": 4.5, "exam": 1.5}  # seconds of loading them, once in a process; an exam's after a training's
HOST_LINK = 20e9  # bytes/s from main memory to a GPU: about two thirds of what 16 lanes of PCIe 4 carry
DISK_BANDWIDTH = 1e9  # bytes/s, of reading and writing checkpoints
EXAM_REACHED = {"cuda": 0.42, "cpu": 1.17}  # share of the rate in EXAM_PRECISION that its forward passes reach
REQUEST_SECONDS = 0.8e-3  # of what the harness does for a choice or a text, besides the model
PAIR_SECONDS = 2.5e-3  # of rendering and tokenising a pair, one thread
# Of unpacking a GGUF file, for a token of its vocabulary and for a weight; measured on an EPYC with AVX2 alone.
GGUF_TOKEN, GGUF_WEIGHT = 0.27e-3, 0.03e-6
LOGIT_MOVES = 6.0  # times that float32 logits of an exam move: written, made probabilities, read
WRITTEN = 0.5  # share of the longest answer that a batch writes until its last answer ends: a guess
EXAM_PRECISION = {"cuda": "bfloat16", "cpu": "float32"}  # as `common.evaluation.harness` loads a checkpoint


def token_flops(setting: Setting, work: Work) -> float:
    """Return the FLOPs that training spends on a token: forward, backward, and a second forward where checkpointed.

    The backward pass takes twice the forward's; half of that, the weights' gradients, falls away for frozen weights.
    Below the lowest layer that learns nothing is passed back, and nothing is computed again; above it frozen layers are
    where they are checkpointed with the others.
    A teacher reads forward only.
    """
    shape = setting.shape
    masked = setting.device == "cpu"  # its attention computes what the mask hides; variable-length attention does not
    head = work.scored / work.tokens
    looked_at = work.looked_at if masked else work.looked_at / 2
    forward = shape.forward_flops(looked_at, head=head)
    if work.only is not None:
        of_layers = shape.forward_flops(looked_at, head=0)
        of_head = forward - of_layers
        beside = setting.teacher * forward
        computed = work.passed(shape) + work.again(shape) + work.learning(shape)
        return forward + of_layers * computed / shape.layers + of_head * (1 + work.head_learns(shape)) + beside
    backward, again = 2.0 if work.peft == "full" else 1.0, 1.0 if work.checkpointing else 0.0
    return forward * (1 + backward + again + setting.teacher)


def step_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of an optimizer step of a stage that trains, in every process alike."""
    assert setting.work is not None, f"a stage of kind {setting.kind} has no steps"
    work, shape = setting.work, setting.shape
    tokens = work.tokens * work.accumulation
    attention = activations.attention_of(setting.run.attention, setting.device, work.precision)
    probing = 3 * setting.probed_a_step * shape.forward_flops(work.length) / exam_rate(hardware)
    computing = tokens * token_flops(setting, work) / (hardware.flops[work.precision] * REACHED[hardware.device])
    moved = PASSES * tokens * activations.saved_bytes(shape, work, attention)
    moved += OPTIMIZER_MOVES * work.learned(shape) / setting.shards
    launching = work.accumulation * shape.layers * LAYER_SECONDS[hardware.device]
    writing = 0.0
    if kind_of(setting.kind).online:
        writing = math.ceil(work.rows * work.accumulation / setting.sequences) * writing_seconds(setting, hardware)
    return computing + probing + moved / hardware.bandwidth + launching + writing + STEP_SECONDS[hardware.device]


def writing_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of writing a batch of answers to the end."""
    return _writing(setting, hardware, setting.sequences, setting.prompt, setting.answer)


def _writing(setting: Setting, hardware: Hardware, rows: float, prompt: float, words: float) -> float:
    """Return the seconds of writing answers at once: for every next word all weights, keys and values are read.

    That is in float32, without autocast.
    """
    shape = setting.shape
    cached = rows * (prompt + words / 2) * shape.cache_bytes(4)
    word = (FLOAT * shape.parameters + cached) / (hardware.bandwidth * WRITING_REACHED)
    computing = rows * shape.forward_flops(0) / (hardware.flops["float32"] * EXAM_REACHED[hardware.device])
    return words * max(word, computing) + words * shape.layers * LAYER_SECONDS[hardware.device]


def token_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of training on a token, all processes together."""
    work = setting.work
    assert work is not None, f"a stage of kind {setting.kind} has no steps"
    return step_seconds(setting, hardware) / (work.tokens * work.accumulation * setting.run.processes)


def other_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of what is no training step: starting, reading and writing checkpoints, an exam, a merge."""
    shape = setting.shape
    read = FLOAT * shape.parameters / DISK_BANDWIDTH
    if setting.exam_rows:
        return START_SECONDS + read + exam_seconds(setting, hardware)
    if setting.members:
        return START_SECONDS + (setting.members + 1) * read
    probing = setting.probed * shape.forward_flops(0) / exam_rate(hardware)
    # Read once, written once, read again by a clean process; a teacher that reads rows before is read too.
    other = probing + reading_seconds(setting, hardware) + (3 + (setting.keeps > 0)) * read
    if setting.unpacked:
        other += GGUF_TOKEN * shape.vocabulary + GGUF_WEIGHT * shape.parameters
    return START_SECONDS + other


def reading_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds in which a teacher reads all rows once, before a stage trains; 0 without such a one."""
    work = setting.work
    if work is None or not setting.keeps:
        return 0.0
    rate = hardware.flops[work.precision] * REACHED[hardware.device] * setting.run.processes
    return setting.kept_tokens * setting.shape.forward_flops(work.length) / rate


def pair_seconds(setting: Setting, hardware: Hardware, pairs: float, heldout: float, tokens: float) -> float:
    """Return the seconds of what a stage does with pairs of `tokens` each besides training on them.

    All are tokenised. A reference scores those that train once, and the held-out ones are scored before and after.
    """
    assert setting.work is not None, f"a stage of kind {setting.kind} has no pairs"
    scored = tokens * (2 * heldout + (pairs if kind_of(setting.kind).reference else 0))
    rate = exam_rate(hardware)
    forward = setting.shape.forward_flops(setting.work.length) / rate
    return PAIR_SECONDS * (pairs + heldout) + scored * forward


def exam_rate(hardware: Hardware) -> float:
    """Return the FLOP/s that forward passes without autocast reach."""
    return hardware.flops[EXAM_PRECISION[hardware.device]] * EXAM_REACHED[hardware.device]


def exam_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of an exam once its model is loaded: reading choices and texts, and writing answers."""
    shape, work = setting.shape, setting.exam
    requests = work.requests + work.documents
    length = min(setting.exam_length, work.tokens / requests) if requests else 0.0
    reading = work.tokens * shape.forward_flops(length) / exam_rate(hardware)
    reading += LOGIT_MOVES * FLOAT * work.tokens * shape.vocabulary / hardware.bandwidth
    # Long texts pass in pieces, each by itself; passes of a GPU wait for what it has no room for, which comes to it in
    # every one (`common.models.device.offload_kwargs`).
    passes = work.requests / setting.exam_rows + max(work.documents, work.texts / setting.exam_length)
    if setting.far:
        reading += setting.far_tokens * shape.forward_flops(setting.far / 2) / exam_rate(hardware)
        passes += setting.far_passes
    over = HALF * shape.parameters - PLACED * hardware.memory if hardware.device == "cuda" else 0.0
    waiting = passes * (max(0.0, over) / HOST_LINK + shape.layers * LAYER_SECONDS[hardware.device] / 2)
    batches = math.ceil(work.written / setting.exam_rows)
    written = 0.0
    if batches:
        prompt, words = work.prompts / work.written, WRITTEN * setting.answer
        written = batches * _writing(setting, hardware, work.written / batches, prompt, words)
        reading += work.prompts * shape.forward_flops(prompt) / exam_rate(hardware)
    return reading + waiting + written + requests * REQUEST_SECONDS
