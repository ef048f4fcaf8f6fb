"""What to do when memory runs out: the phase it ran out in, what is there, and which setting to change.

Usage: `with memory.explained(context): stage.run(context)`, and inside `with memory.phase("evaluating"): …`.

How much is computed at once (`run.*`) is no part of a result, so a stage that ran out goes on from its last checkpoint
with less. What a plan expects is `common.cost`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.config.stages import EvaluateSettings, LearningSettings, SamplingSettings
from common.cost.expectation import expected
from common.errors import ResourceError

if TYPE_CHECKING:
    from common.stage import StageContext

TRAINING, EVALUATING, SAMPLING, SAVING = "training", "evaluating", "sampling", "saving and checking"
SCORING = "scoring pairs"
LOADING = "loading"
PHASES = {
    TRAINING: "train",
    SCORING: "train",
    EVALUATING: "eval",
    SAMPLING: "generate",
    SAVING: "save",
}  # as a plan calls them
# How torch says that a CPU has no more, and CUDA's libraries that a GPU has none beside what torch manages.
NO_MORE = (
    "not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED",
)  # fmt: skip
_phase = LOADING


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Say what is being done from here on, for the message in case memory runs out; afterwards it is what it was."""
    global _phase
    before, _phase = _phase, name
    yield
    _phase = before  # not after an error: that is to tell where it happened


@contextlib.contextmanager
def explained(context: StageContext) -> Iterator[None]:
    """Turn the error of memory that ran out into one that says what to do. Raises ResourceError."""
    global _phase
    _phase = LOADING
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise ResourceError(_message(context, error)) from error


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory ran out, of the GPU or of the machine."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MORE)


def _message(context: StageContext, error: Exception) -> str:
    from common.models.device import device_of

    where = "the GPU" if device_of(context.config.run) == "cuda" and _phase != SAVING else "this machine"
    first, *_ = str(error).splitlines() or [type(error).__name__]
    predicted = expected(context, PHASES[_phase]) if _phase in PHASES else ""
    told = f"{first.strip().rstrip('.')}{f'; {predicted}' if predicted else ''}"
    words = remedies(context)
    advice = f"Set {' or '.join(words)}" if words else "Use a machine with more memory"
    return (
        f"Stage {context.stage} ran out of memory of {where} while {_phase} ({told}). {advice}; "
        "the same command then goes on from the last checkpoint."
    )


def remedies(context: StageContext) -> list[str]:
    """Return words that make the phase need less, the cheapest first."""
    settings, run = context.settings, context.config.run
    found = []
    if isinstance(settings, EvaluateSettings):
        found += [f"evaluate.batch_size={settings.batch_size // 2}"] if settings.batch_size > 1 else []
    elif isinstance(settings, SamplingSettings) and _phase == SAMPLING:
        found.append(f"{context.stage}.generated_tokens={settings.generated_tokens // 2}")
    elif isinstance(settings, LearningSettings) and _phase in (TRAINING, SCORING):
        step, least = _batch(settings)
        now = min(run.micro_batch_tokens or step, step // run.processes)
        if now // 2 >= least:
            found.append(f"run.micro_batch_tokens={now // 2} (now {now})")
        if _phase == SCORING:
            return found
        if not settings.train.get("gradient_checkpointing", True):  # TRL has it on
            found.append(f"{context.stage}.train.gradient_checkpointing=true")
        if settings.peft == "full" and settings.adapts:
            found.append(f"{context.stage}.peft=lora, which gives another result")
    return found


def _batch(settings: Any) -> tuple[int, int]:
    """Return the tokens of a whole step, and the fewest that a forward pass can read."""
    if (tokens := getattr(settings, "batch_tokens", None)) is not None:
        return int(tokens), int(settings.sequence_length)
    if (pairs := getattr(settings, "batch_pairs", None)) is not None:
        pair = 2 * int(settings.sequence_length)
        return int(pairs) * pair, pair
    answer = int(settings.prompt_tokens) + int(settings.answer_tokens)
    return int(settings.prompts_per_step) * int(settings.samples) * answer, answer
