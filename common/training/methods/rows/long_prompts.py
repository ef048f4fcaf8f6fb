"""Fine-tuning that learns the prompts of long conversations too, not the answers alone.

Usage: `sft: {sequence_length: 16384, methods: {long_prompts: {from_tokens: 4096}}}`.

Xiong et al. 2023 (Llama 2 Long, arXiv 2309.16039), section 4.3: the loss of a language model over the long prompts as
well as over the answers makes fine-tuning on long inputs better (Qasper 35.7 to 38.9, QuALITY 59.3 to 77.3). With n
tokens of a conversation and a of them the assistant's, all n are learned where n - a is at least `from_tokens`, and the
a alone otherwise. Answers that the data want as context (`learn: false`) are not to be learned, so a conversation with
one of them stays as it is. Replay stays too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.methods import MethodSettings, RowsMethod

if TYPE_CHECKING:
    from common.config.stages import TrainingSettings

LEARNED = "long prompt learned too"  # as accounts count rows


class LongPromptsSettings(MethodSettings):
    """Which prompts are long."""

    from_tokens: int = Field(
        512, gt=0, description="tokens of a conversation that are no answer, from which on it is long"
    )


def mark(
    row: Mapping[str, Any], learned: Sequence[bool], settings: LongPromptsSettings
) -> tuple[list[bool], str] | None:
    """Return that all tokens of a long conversation are learned; None for others. `learned` are the assistant's."""
    if any(message.get("learn") is False for message in row["messages"]):
        return None
    if learned.count(False) < settings.from_tokens:
        return None
    return [True] * len(learned), LEARNED


def problem(own: LongPromptsSettings, stage: TrainingSettings) -> str:
    """Say why no prompt would be learned, or nothing."""
    if not stage.assistant_only:
        return "this stage learns every token already; it is for fine-tuning on conversations"
    if own.from_tokens >= stage.sequence_length:
        return (
            f"from_tokens={own.from_tokens} is not below sequence_length={stage.sequence_length}, so no conversation "
            "is long; lower it"
        )
    return ""


METHOD = RowsMethod(
    name="long_prompts", settings=LongPromptsSettings, mark=mark, problem=problem,
    phrase="loss over the prompts of long conversations too", paper="arXiv 2309.16039, section 4.3",
    ours="long from 512 tokens on; the paper gives no number",
)  # fmt: skip
