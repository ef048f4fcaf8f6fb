"""Memory of a stage by phase: what each process needs on its device, and what a machine needs besides.

Usage: `needs = phases_of(setting)`; `needs["train"].device_total`; `setting` is a `Setting` of one stage.

Weights are loaded in float32 (`common.models.checkpoint`) and trained under bfloat16 autocast, so a weight that
learns costs 4 bytes, 4 for its gradient and the optimizer's state: 16 with AdamW, not the 12 to 14 of a pure bfloat16
training (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1, counts both ways). What is not modelled: pieces of
memory that an allocator cannot use, what an earlier stage of the same process has not given back, other programs, and
buffers of collectives beyond those of DDP and the gathered layers of FSDP2 and ZeRO-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from common.config.kinds import kind_of
from common.config.schema import RunSettings
from common.cost import activations
from common.cost.shapes import Shape
from common.cost.workload import HELDOUT_PAIRS, Work

MIB = 2**20
# Main memory of a process that trains, without model and batch, and of one that sits an exam: measured on Linux with a
# CPU build of torch (tiny profile). The CUDA build's is larger by what the driver maps; 2 GiB more is a guess.
LIBRARIES, EXAMINER, CUDA_BUILD = 615.0 * MIB, 545.0 * MIB, 2048.0 * MIB
CLEAN = 395.0 * MIB  # of the process that loads a result again
CONTEXT = 600.0 * MIB  # of CUDA and its kernels, on the GPU; torch.cuda.max_memory_allocated does not count it
OF_A_STEP = ("gradients", "activations", "logits", "bfloat16 copies", "scored pairs", "pieces")
# Of what a CPU's allocator holds beside, in pieces that nothing fits: 4 to 15% of all but the libraries in our
# measurements, with LoRA once 21 and once 35%.
PIECES = 0.12
TEXT_WINDOW = 1024  # tokens that an exam reads at once; it reads longer texts in such pieces, which bounds memory
EMBEDDED_TEXT = 64  # tokens of the longest embedded document, of 243 letters
NF4, NF8 = 0.5 + 0.127 / 8, 1.0  # bytes of a quantised weight with its constants (arXiv 2305.14314, section 3)
FLOAT, HALF = 4.0, 2.0


@dataclass(frozen=True)
class Need:
    """What one phase needs, in bytes by what it is for."""

    device: Mapping[str, float] = field(default_factory=dict)  # of a process, where it computes; a CPU's is main memory
    host: Mapping[str, float] = field(default_factory=dict)  # further main memory of a machine, all its processes
    at_most: frozenset[str] = frozenset()  # names whose size the lengths of rows decide: it may be less

    @property
    def device_total(self) -> float:
        return sum(self.device.values())

    @property
    def device_sure(self) -> float:
        """Without what may turn out smaller."""
        return sum(size for name, size in self.device.items() if name not in self.at_most)

    @property
    def host_total(self) -> float:
        return sum(self.host.values())


@dataclass(frozen=True)
class ExamWork:
    """What an exam computes; see `common.cost.exam`."""

    questions: float = 0.0
    requests: float = 0.0  # choices that are scored
    choosing: float = 0.0  # tokens that pass through the model for them
    documents: float = 0.0  # held-out texts
    texts: float = 0.0  # tokens of them
    written: float = 0.0  # answers that are written
    prompts: float = 0.0  # tokens of the questions before them
    assumed: bool = False  # some questions are not on this machine, so that their number is a guess

    def __add__(self, other: ExamWork) -> ExamWork:
        amounts = {part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)}
        return ExamWork(**{**amounts, "assumed": self.assumed or other.assumed})

    @property
    def tokens(self) -> float:
        """Tokens that are read and not written."""
        return self.choosing + self.texts


@dataclass(frozen=True)
class Setting:
    """One stage on one kind of machine."""

    kind: str
    shape: Shape
    run: RunSettings
    device: str  # cpu or cuda
    work: Work | None = None  # of a stage that trains
    stored: float = FLOAT  # bytes of a stored weight: model.dtype
    reference: bool = False  # a second model, whole, beside the learner
    judges: int = 0  # reward models
    sequences: int = 0  # answers that are written at once in a process
    answer: int = 0  # tokens of an answer
    prompt: int = 0
    exam_rows: int = 0  # requests of a forward pass
    exam_length: int = TEXT_WINDOW
    exam: ExamWork = ExamWork()
    far: int = 0  # of an exam that measures long inputs: tokens of the longest
    far_tokens: float = 0.0  # and tokens of all of them
    far_passes: float = 0.0  # and forward passes over them
    members: int = 0  # checkpoints that are merged
    probed: int = 0  # tokens that pass through the model to measure it
    probed_a_step: float = 0.0  # the same while it trains, forward and back, on average
    best: bool = False  # files of best weights are kept while it trains
    teacher: bool = False  # the stage before it runs beside, frozen, and sharded where the learner is
    keeps: int = 0  # of the stage before that reads all rows first: its logits that are kept at each position
    kept_tokens: float = 0.0  # positions of these rows, at most
    unpacked: bool = False  # it takes a GGUF file
    beside: float = 0.0  # bytes that methods hold beside each weight that learns

    @property
    def shards(self) -> int:
        """Parts that weights, gradients and optimizer state are in."""
        return self.run.processes if self.run.parallelism in ("fsdp2", "zero3") else 1

    @property
    def local(self) -> int:
        """Processes of a machine."""
        return max(1, self.run.processes // self.run.machines)


def phases_of(setting: Setting) -> dict[str, Need]:
    """Return the phases of a stage, in their order: train, generate, eval, save, merge."""
    if setting.exam_rows:
        return {"eval": _evaluated(setting)}
    if setting.members:
        return {"merge": _merged(setting)}
    phases = {}
    if setting.work is not None:
        phases["train"] = _trained(setting, setting.work)
    if setting.sequences:
        phases["generate"] = _generated(setting)
    if kind_of(setting.kind).makes_model:
        phases["save"] = _saved(setting, phases.get("train"))
    return phases


def _libraries(setting: Setting) -> tuple[dict[str, float], dict[str, float]]:
    """Return what comes before any model, on the device and in main memory."""
    if setting.device == "cpu":
        return {"libraries": LIBRARIES}, {}
    return {"CUDA": CONTEXT}, {"libraries": setting.local * (LIBRARIES + CUDA_BUILD)}


def weight_bytes(shape: Shape, work: Work) -> float:
    """Return the bytes of the weights as they are loaded: float32, or the layers' matrices quantised."""
    if work.peft != "qlora":
        return FLOAT * shape.parameters
    matrices = shape.layers * shape.layer_linear
    return (NF8 if work.eight_bit else NF4) * matrices + FLOAT * (shape.parameters - matrices)


def _trained(setting: Setting, work: Work) -> Need:
    """Return the most that training needs, over the moments of a step that can be the worst.

    The loss: all activations and the logits are there, and the head's gradient comes, in both types, to those of
    earlier forward passes of the step. The end of the backward pass: all gradients, one layer's activations. In
    between, a checkpointed layer is computed again.
    """
    shape, shards = setting.shape, setting.shards
    attention = activations.attention_of(setting.run.attention, setting.device, work.precision)
    learned = work.learned(shape)
    device, host = _libraries(setting)
    device |= {"weights": weight_bytes(shape, work) / shards, "optimizer": work.state * learned / shards}
    if work.peft != "full":
        device["adapter"] = FLOAT * learned / shards
    if setting.teacher:
        device["teacher"] = FLOAT * shape.parameters / shards
    if setting.beside:
        device["methods"] = setting.beside * learned / shards
    if setting.run.processes > 1 and shards == 1:
        device["buckets of DDP"] = FLOAT * learned
    if shards > 1:  # two layers, gathered: the one that is computed and the next; and the tables, which are one unit
        device["gathered"] = FLOAT * (2 * shape.layer_parameters + shape.table * (1 if shape.tied else 2))
    reference = FLOAT * shape.parameters if setting.reference else 0.0
    read_before = reference + _size(device) - device["optimizer"] if _scores_pairs(work) else 0.0
    if reference and not read_before:
        device["reference"] = reference
    if setting.judges:
        device["reward models"] = setting.judges * FLOAT * shape.parameters
    gradients = FLOAT * learned / shards
    layer = work.tokens * activations.layer_bytes(shape, work, attention)
    ends = work.tokens * activations.ends_bytes(shape)
    # What is sharded is gathered in bfloat16, layer by layer: autocast finds nothing to copy.
    copies = activations.copies_bytes(shape, work) if shards == 1 else 0.0
    head = activations.head_bytes(shape, work)
    whole = work.peft == "full" and (work.only is None or bool(work.tables))
    table = (HALF + FLOAT) * shape.table if whole and work.head != "none" else 0.0
    working = activations.working_bytes(shape, work)
    one_layer = HALF * shape.layer_linear if work.halved and shards == 1 else 0.0
    earlier = gradients if work.accumulation > 1 else 0.0
    kept = work.tokens * (activations.kept_bytes(shape, work, attention) + activations.pairs_bytes(shape, work))
    moments: list[dict[str, float]] = [
        {"gradients": earlier + table / shards, "activations": kept + ends, "logits": head, "bfloat16 copies": copies},
        {"gradients": gradients, "activations": layer + working, "bfloat16 copies": one_layer},
    ]
    if work.again(shape):  # the last layer again, while the inputs of all are kept
        moments.append({"gradients": earlier, "activations": kept + layer + working, "bfloat16 copies": one_layer})
    worst = max(moments, key=_size)
    device |= worst
    device |= _scored(setting, work, device)
    if setting.keeps:  # a teacher reads before there is an optimizer, a forward pass alone, and leaves the device
        held = _size(_libraries(setting)[0]) + (weight_bytes(shape, work) + FLOAT * shape.parameters) / shards
        reading = (
            held + device.get("gathered", 0.0) + layer + ends + copies + 2 * FLOAT * work.scored * shape.vocabulary
        )
        device["teacher that reads"] = max(0.0, reading - _size(device))
    if reference and read_before:  # by itself, and then it leaves the device
        device["reference"] = max(0.0, read_before + _scored_bytes(setting, work) - _size(device))
    if setting.device == "cpu":
        device["pieces"] = PIECES * (_size(device) - LIBRARIES)
    else:
        host["loading"] = FLOAT * shape.parameters * _copies_read(setting, work)
    unsure = {"activations", "logits", "scored pairs"} if not work.certain else set()
    return Need(device, host, frozenset(unsure))


def _copies_read(setting: Setting, work: Work) -> int:
    """Return the models that a machine's processes read into main memory first.

    Each process reads one; of FSDP2's the first one alone, but for a reward model, whose head is new. That one reads a
    reference of DPO or KTO too, which is sharded, read, and gone from the GPUs before the learner comes to them.
    """
    if setting.run.parallelism != "fsdp2" or setting.run.processes == 1 or work.head == "none":
        return setting.local
    return 2 if kind_of(work.kind).reference else 1


def _size(parts: Mapping[str, float]) -> float:
    return sum(parts.values())


def _scored(setting: Setting, work: Work, device: Mapping[str, float]) -> dict[str, float]:
    """Return what scoring pairs needs beyond training: float32 logits and their exponentials, 8 bytes each.

    `common.training.rows.preferences.logps_of` reads held-out pairs, and those that check the reference, by 32
    answers, padded, before the optimizer has a state and after training; never more logits at once than MOST_LOGITS, or
    those of one row.
    """
    if not _scores_pairs(work):
        return {}
    passing = sum(device.get(name, 0.0) for name in (*OF_A_STEP, "optimizer"))
    return {"scored pairs": max(0.0, _scored_bytes(setting, work) - passing)}


def _scores_pairs(work: Work) -> bool:
    """Whether log-probabilities of whole pairs are computed, before and after it trains."""
    kind = kind_of(work.kind)
    return "preference" in kind.roles and kind.makes == "language model"


def _scored_bytes(setting: Setting, work: Work) -> float:
    row = work.length * setting.shape.vocabulary
    return 2 * FLOAT * min(HELDOUT_PAIRS * row, max(activations.MOST_LOGITS, row))


def _generated(setting: Setting) -> Need:
    """Return what writing answers needs: weights in float32, keys and values of all answers, the next word's logits.

    transformers' `generate` works without autocast here. In a stage that trains, the optimizer's state stays.
    """
    shape = setting.shape
    device, host = _libraries(setting)
    device["weights"] = FLOAT * shape.parameters
    if setting.work is not None:
        learned = setting.work.learned(shape)
        device["weights"] = weight_bytes(shape, setting.work)
        device["optimizer"] = setting.work.state * learned if kind_of(setting.kind).online else 0.0
        device["adapter"] = FLOAT * learned if setting.work.peft != "full" else 0.0
        if setting.run.processes > 1:
            device["buckets of DDP"] = FLOAT * learned
    if setting.reference:
        device["reference"] = FLOAT * shape.parameters
    if setting.judges:
        device["reward models"] = setting.judges * FLOAT * shape.parameters
    tokens = setting.sequences * (setting.prompt + setting.answer)
    device["keys and values"] = float(tokens * shape.cache_bytes(4))
    prompts = setting.sequences * setting.prompt
    device["activations"] = FLOAT * prompts * (2 * shape.inner + 6 * shape.hidden)
    device["logits"] = 3 * FLOAT * setting.sequences * shape.vocabulary  # of the last token: kept, scaled, softmax
    return Need(device, host, frozenset({"keys and values", "activations"}))


def _evaluated(setting: Setting) -> Need:
    """Return what the exam needs: weights (bfloat16 on CUDA), logits of a whole batch and their float32 log-softmax.

    lm-evaluation-harness computes logits for every token of a batch; a document fills at most a window.
    """
    shape, wide = setting.shape, FLOAT if setting.device == "cpu" else HALF
    device, host = _libraries(setting)
    if setting.device == "cpu":
        device["libraries"] = EXAMINER
    else:
        host |= {"libraries": EXAMINER + CUDA_BUILD, "loading": HALF * shape.parameters}
    tokens = setting.exam_rows * setting.exam_length
    device["weights"] = wide * shape.parameters
    logits = (wide + FLOAT) * tokens * shape.vocabulary
    layer = wide * tokens * (3 * shape.inner + 3 * shape.hidden)  # gone before there are logits
    device["logits"] = max(logits, layer)
    device["activations"] = wide * tokens * shape.hidden
    if setting.far:  # one input alone: its keys and values, with a copy for each answer, and a layer's activations
        device["long inputs"] = 2 * setting.far * shape.cache_bytes(int(wide)) + wide * setting.far * 3 * shape.inner
    return Need(device, host, frozenset({"logits", "activations"}))


def _saved(setting: Setting, train: Need | None) -> Need:
    """Return what saving needs, all in main memory: the whole model, and a clean process that loads it again.

    On a CPU the heap gives back what the last step freed (`common.training.speed.heap`); the optimizer's state stays
    beside the weights. Without `run.keep_heap` freed pieces below the allocator's limits stay with the process (91 to
    98% in our measurements). An adapter is merged into the stage before, which is loaded beside what was trained; so it
    is beside a model that was grown from it. With shards, the first process gathers the whole model first.
    """
    shape, work = setting.shape, setting.work
    clean = {"clean process": CLEAN + setting.stored * shape.parameters}
    whole = FLOAT * shape.parameters
    apart = kind_of(setting.kind).reshapes is not None or (work is not None and work.peft != "full")
    merged = {"stage before": whole} if apart else {}
    if setting.device == "cpu":
        held = dict(train.device) if train is not None else {**_libraries(setting)[0], "weights": whole}
        if setting.run.keep_heap:
            held = {name: size for name, size in held.items() if name not in OF_A_STEP}
        return Need({**held, **merged}, clean, train.at_most if train is not None else frozenset())
    gathered = {"gathered": whole} if setting.shards > 1 else {}
    libraries = setting.local * (LIBRARIES + CUDA_BUILD)
    host = {"libraries": libraries, "weights": whole, **gathered, **merged, **clean}
    staying = ("CUDA", "optimizer", "reference", "reward models", "teacher", "methods")
    kept = {name: size for name, size in train.device.items() if name in staying} if train is not None else {}
    return Need(kept or {"CUDA": CONTEXT}, host)


def _merged(setting: Setting) -> Need:
    """Return what mergekit needs, on the CPU always: the result, which is one file, and a tensor of every member.

    Members are read tensor by tensor from mapped files, whose pages the system takes back as it likes.
    """
    shape = setting.shape
    tensors = FLOAT * max(shape.table, shape.hidden * shape.inner) * (setting.members + 2)
    parts = {"libraries": LIBRARIES, "result": setting.stored * shape.parameters, "tensors": tensors}
    return Need(parts, {}) if setting.device == "cpu" else Need({}, parts)
