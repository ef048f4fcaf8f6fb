"""How much the answers of a conversation depend on what was said before their own question.

Usage: `dependence(pairs_of(row), compressed_bits)`, or with `LossBits(model, tokenizer)` of a checkpoint.

Formula, ours (CareBot names its filter ConFilter and publishes none): the share of an answer's information that earlier
turns supply, `1 - bits(answer | history, question) / bits(answer | question)`, summed over the answers that have a
history. Bits are those of a compressor whose dictionary holds what came before, or of a language model. Near 0 each
turn stands alone; negative where the history misleads.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from common.config.blocks import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_HISTORY = 16_000  # characters of a history that are read, the last ones; a compressor looks back 32 KiB


class Pair(NamedTuple):
    """An answer, its own question, and all that was said before that."""

    history: str
    question: str
    answer: str


Bits = Callable[[str, str], float]  # (what came before, answer) -> the answer's information


def pairs_of(row: Row) -> list[Pair]:
    """Return the answers of a conversation that have a history; none where the user speaks fewer than two times."""
    said: list[str] = []
    pairs: list[Pair] = []
    question: list[str] = []
    for message in row["messages"]:
        text = message["content"] or ""
        if message["role"] == "assistant":
            if said and question and text.strip():
                pairs.append(Pair("\n".join(said)[-MOST_HISTORY:], "\n".join(question), text))
            said, question = [*said, *question, text], []
        elif message["role"] == "system":
            continue  # it stands before every turn, so that it makes no difference
        else:
            question.append(text)
    return pairs


def dependence(pairs: Sequence[Pair], bits: Bits) -> float | None:
    """Return the share of the answers' information that their history supplies; None without any pair."""
    alone = sum(bits(pair.question, pair.answer) for pair in pairs)
    told = sum(bits(f"{pair.history}\n{pair.question}", pair.answer) for pair in pairs)
    return 1 - told / alone if alone > 0 else None


def compressed_bits(before: str, answer: str) -> float:
    """Return the size of an answer in bits, deflated with what came before as its dictionary."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, before.casefold().encode()[-32_000:])
    return 8.0 * len(packer.compress(answer.casefold().encode()) + packer.flush())


class LossBits:
    """Counts an answer's information by the loss of a language model, in nats; the unit cancels out."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int = 2048) -> None:
        """`longest` is how many tokens are read, those before the answer cut at their beginning."""
        self._model, self._tokenizer = model.eval(), tokenizer
        self._longest = min(longest, getattr(model.config, "max_position_embeddings", None) or longest)

    def __call__(self, before: str, answer: str) -> float:
        read = self._tokenizer(f"{before}\n", add_special_tokens=True)["input_ids"]
        said = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        return self.of(read, said)

    def of(self, read: Sequence[int], said: Sequence[int]) -> float:
        """Return the loss of some tokens behind others, in nats; 0 without any."""
        import torch

        said = said[: self._longest // 2]
        read = read[-(self._longest - len(said)) :]
        if not said:
            return 0.0
        ids_1T = torch.tensor([[*read, *said]], device=self._model.device)
        with torch.no_grad():
            logits_1TV = self._model(input_ids=ids_1T).logits.float()
        first = len(read)
        loss = torch.nn.functional.cross_entropy(logits_1TV[0, first - 1 : -1], ids_1T[0, first:], reduction="sum")
        return round(float(loss), 3)  # rounded, so that the number of threads changes nothing
