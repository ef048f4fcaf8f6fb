"""Keep conversations of several turns whose answers depend on what was said before.

Usage: in a manifest, `blocks: [{history: {drop_lowest: 0.25}}]`, or `{history: {at_least: 0.1, checkpoint: ./small}}`.

The measure is `common.data.dependence`: ours, after the idea of CareBot's ConFilter (Zhao et al. 2024, arXiv
2412.15236). It is cheap by default, a compressor's; with a `checkpoint` it is that model's loss. Conversations in which
the user speaks once are not judged.
"""

from __future__ import annotations

from pydantic import Field

from common.config.blocks import Block, BlockContext, Row
from common.config.names import NonEmpty
from common.data.dependence import Bits, LossBits, compressed_bits, dependence, pairs_of
from common.data.selecting import ByScore, SelectionSettings
from common.models.reference import load_reference, require_folder


class HistorySettings(SelectionSettings):
    """Which conversations stay, by how much of their answers the history supplies."""

    checkpoint: NonEmpty | None = Field(
        None, description="folder of a model whose loss measures it; none: a compressor does"
    )
    longest: int = Field(2048, ge=64, le=131_072, description="tokens that the model reads at once")


def look(settings: HistorySettings, context: BlockContext) -> ByScore:
    """Return what scores all conversations and then judges them. Raises ConfigError for a folder that is none."""
    if settings.checkpoint is not None:
        require_folder(settings.checkpoint, "history.checkpoint")
    measures: list[Bits] = []  # a model is loaded with the first conversation, in the process that reads it

    def score(row: Row) -> float | None:
        pairs = pairs_of(row)
        if not pairs:
            return None
        if not measures:
            measures.append(_measure(settings))
        return dependence(pairs, measures[0])

    return ByScore(settings, context, score, "dependence on history", "history")


def _measure(settings: HistorySettings) -> Bits:
    if settings.checkpoint is None:
        return compressed_bits
    model, tokenizer = load_reference(settings.checkpoint)
    return LossBits(model, tokenizer, settings.longest)


BLOCK = Block(
    name="history", settings=HistorySettings, look=look, rows=("messages",), scores=lambda settings: ("history",),
    checkpoints=lambda settings: [settings.checkpoint] if settings.checkpoint else [],
    phrase="conversations whose answers depend too little on what was said before",
)  # fmt: skip
