"""How long a stage takes: FLOPs over what a machine reaches, and what moves through memory, before any correction.

Usage: `step_seconds(setting, hardware)`; `token_seconds(setting, hardware)`.

A step is the sum of its matrix products at a share of the peak, of what its activations and its optimizer move through
memory, and of a little per layer and pass. What a machine really does is a matter of its libraries, its other users
and its heat: the first steps of every training are measured, and correct later plans (`common.cost.corrections`).
Processes are taken to share the work without loss: what they tell each other (gradients of DDP, gathered layers of
FSDP2 and ZeRO-3) is not modelled, so between machines the first measured steps matter most.
"""

from __future__ import annotations

from common.config.kinds import kind_of
from common.cost import activations
from common.cost.hardware import Hardware
from common.cost.memory import FLOAT, HALF, Setting
from common.cost.workload import Work
from common.models.device import ROOM as PLACED

# Shares of the peak that matrix products of a training reach, attention with them. GPU: 40 to 55% is what public runs
# of dense models report (PaLM 46%, arXiv 2204.02311, table 3; Llama 3 38 to 43%, arXiv 2407.21783, table 4).
REACHED = {"cuda": 0.42, "cpu": 0.35}
WRITING_REACHED = 0.5  # share of the bandwidth that reading all weights for a next word reaches
PASSES = 3.0  # times that a saved activation moves: written, read, its gradient
OPTIMIZER_MOVES = 28.0  # bytes a weight: read and written weight and two moments, its gradient read
LAYER_SECONDS = {"cuda": 3e-4, "cpu": 3e-4}  # of launching a layer's operations, forward and back
START_SECONDS = 6.0  # loading libraries, rendering, checking
HOST_LINK = 20e9  # bytes/s from main memory to a GPU: about two thirds of what 16 lanes of PCIe 4 carry
DISK_BANDWIDTH = 1e9  # bytes/s, of reading and writing checkpoints
EXAM_PRECISION = {"cuda": "bfloat16", "cpu": "float32"}  # as `common.evaluation.harness` loads a checkpoint
# Until an exam has been sat here its length is a guess: questions of four choices on two sides.
EXAM_QUESTIONS, EXAM_TOKENS, CHOICES = 2000, 96, 4


def token_flops(setting: Setting, work: Work) -> float:
    """Return the FLOPs that training spends on a token: forward, backward, and a second forward where checkpointed.

    The backward pass takes twice the forward's; half of that, the weights' gradients, falls away for frozen weights.
    """
    shape = setting.shape
    masked = setting.device == "cpu"  # its attention computes what the mask hides; variable-length attention does not
    head = work.scored / work.tokens
    forward = shape.forward_flops(work.length if masked else work.length / 2, head=head)
    backward = 2.0 if work.peft == "full" else 1.0
    again = 1.0 if work.checkpointing else 0.0
    return forward * (1 + backward + again)


def step_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of an optimizer step of a stage that trains, in every process alike."""
    assert setting.work is not None, f"a stage of kind {setting.kind} has no steps"
    work, shape = setting.work, setting.shape
    tokens = work.tokens * work.accumulation
    attention = activations.attention_of(setting.run.attention, setting.device, work.precision)
    computing = tokens * token_flops(setting, work) / (hardware.flops[work.precision] * REACHED[hardware.device])
    moved = PASSES * tokens * shape.layers * activations.layer_bytes(shape, work, attention)
    moved += OPTIMIZER_MOVES * work.learned(shape) / setting.shards
    launching = work.accumulation * shape.layers * LAYER_SECONDS[hardware.device]
    writing = writing_seconds(setting, hardware) if kind_of(setting.kind).online else 0.0
    return computing + moved / hardware.bandwidth + launching + writing


def writing_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of writing a batch of answers: for every next word all weights, keys and values are read.

    That is in float32, without autocast.
    """
    shape = setting.shape
    cached = setting.sequences * (setting.prompt + setting.answer / 2) * shape.cache_bytes(4)
    word = (FLOAT * shape.parameters + cached) / (hardware.bandwidth * WRITING_REACHED)
    computing = setting.sequences * shape.forward_flops(0) / (hardware.flops["float32"] * REACHED[hardware.device])
    answers = setting.answer * max(word, computing)
    return answers + setting.answer * shape.layers * LAYER_SECONDS[hardware.device]


def token_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of training on a token, all processes together."""
    work = setting.work
    assert work is not None, f"a stage of kind {setting.kind} has no steps"
    return step_seconds(setting, hardware) / (work.tokens * work.accumulation * setting.run.processes)


def other_seconds(setting: Setting, hardware: Hardware) -> float:
    """Return the seconds of what is no training: starting, reading and writing checkpoints, an exam, a merge."""
    shape = setting.shape
    read = FLOAT * shape.parameters / DISK_BANDWIDTH
    if setting.exam_rows:
        requests = 2 * EXAM_QUESTIONS * CHOICES
        reached = hardware.flops[EXAM_PRECISION[hardware.device]] * REACHED[hardware.device]
        computing = requests * EXAM_TOKENS * shape.forward_flops(EXAM_TOKENS) / reached
        # What a GPU has no room for comes to it in every forward pass (`common.models.device.offload_kwargs`).
        over = HALF * shape.parameters - PLACED * hardware.memory if hardware.device == "cuda" else 0.0
        moving = requests / setting.exam_rows * max(0.0, over) / HOST_LINK
        return START_SECONDS + read + computing + moving
    if setting.members:
        return START_SECONDS + (setting.members + 1) * read
    return START_SECONDS + 3 * read  # read once, written once, read again by a clean process
