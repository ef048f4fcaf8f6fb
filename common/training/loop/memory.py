"""Explain an out-of-memory error: the phase it happened in, what was expected, and which setting to change.

Usage: `with memory.explain_errors(context): stage.run(context)`, and inside `with memory.phase("evaluating"): …`.

How much is computed at once (`run.*`) does not change a result, so the stage resumes from its last trainer checkpoint
with a smaller setting. What a plan expects is `common.cost`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.config.answering import SamplingSettings
from common.config.batches import batch_of, micro_tokens
from common.config.methods import chosen
from common.config.stages import EvaluateSettings, LearningSettings, WithMethods
from common.cost.outlook import expected, setting_in
from common.errors import ResourceError, first_line

if TYPE_CHECKING:
    from common.stage import StageContext

TRAINING, EVALUATING, SAMPLING, SAVING = "training", "evaluating", "sampling", "saving and checking"
SCORING = "scoring pairs"
LOADING = "loading"
PHASES = {  # as a plan calls them
    TRAINING: "train", SCORING: "train", EVALUATING: "eval", SAMPLING: "generate", SAVING: "save",
}  # fmt: skip
# In errors of torch on a CPU, and of CUDA's libraries, which allocate GPU memory that torch does not manage.
MESSAGES = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED")
_phase = LOADING


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Name what is done inside, for the message of an out-of-memory error."""
    global _phase
    before, _phase = _phase, name
    yield
    _phase = before  # after an error it stays: the message says where that happened


@contextlib.contextmanager
def explain_errors(context: StageContext) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what to do. Raises ResourceError."""
    global _phase
    _phase = LOADING
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(_message(context, error)) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the GPU or the machine has no memory left."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def _message(context: StageContext, error: Exception) -> str:
    from common.models.device import device_of

    where = "the GPU" if device_of(context.config.run) == "cuda" and _phase != SAVING else "this machine"
    predicted = expected(context, PHASES[_phase]) if _phase in PHASES else ""
    details = f"{first_line(error).rstrip('.')}{f'; {predicted}' if predicted else ''}"
    settings = remedies(context)
    advice = f"Set {' or '.join(settings)}" if settings else "Use a machine with more memory"
    return (
        f"Stage {context.stage} ran out of memory on {where} while {_phase} ({details}). {advice}. "
        "The same command then resumes from the last trainer checkpoint."
    )


def remedies(context: StageContext) -> list[str]:
    """Return settings with which the phase needs less memory, the cheapest first."""
    settings, run = context.settings, context.config.run
    found = []
    if isinstance(settings, EvaluateSettings):
        found += [f"evaluate.batch_size={settings.batch_size // 2}"] if settings.batch_size > 1 else []
    elif isinstance(settings, SamplingSettings) and _phase == SAMPLING:
        found.append(f"{context.stage}.generated_tokens={settings.generated_tokens // 2}")
    elif isinstance(settings, LearningSettings) and _phase in (TRAINING, SCORING):
        batch = batch_of(context.stage, settings)
        assert batch is not None, f"{context.stage} has no batch"
        now = min(micro_tokens(settings, run) or batch.tokens, batch.tokens // run.processes)
        if now // 2 >= batch.tokens_each:
            found.append(f"run.micro_batch_tokens={now // 2} (now {now})")
        if _phase == SCORING:
            return found
        if not settings.train.get("gradient_checkpointing", True):  # TRL turns it on
            found.append(f"{context.stage}.train.gradient_checkpointing=true")
        elif (known := setting_in(context)) and known[0].work is not None and known[0].work.keeps_frozen:
            found.append("run.keep_frozen=false")
        if _may_adapt(settings):
            found.append(f"{context.stage}.peft=lora, which changes the result")
    return found


def _may_adapt(settings: LearningSettings) -> bool:
    """Whether all weights learn, and an adapter may in their place."""
    if not settings.adapts or settings.peft != "full":
        return False
    try:
        adapted = type(settings).model_validate({**settings.model_dump(), "peft": "lora"})
    except ValueError:
        return False
    return not isinstance(settings, WithMethods) or not any(
        method.problem(own, adapted) for method, own in chosen(settings)
    )
