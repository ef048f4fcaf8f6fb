"""Preference pairs as tokens, and the log-probabilities that a model gives to their two sides.

Usage: `pairs, counts = read_pairs(context, tokenizer, "preference")`; `answer_logps(model, pairs, pad_id)`.

TRL's trainers do the training. These functions measure held-out accuracy and check the reference independently.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from common.config.batches import pair_epochs
from common.config.stages import PreferenceSettings
from common.cost.activations import MOST_LOGITS
from common.cost.workload import HELDOUT_PAIRS
from common.data.accounting import RowCount
from common.stage import StageContext
from common.training.loop import memory
from common.training.rows.reader import Accounts, read_role

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Answer = tuple[tuple[int, ...], int]  # prompt and answer as tokens, and where the answer begins


@dataclass(frozen=True)
class Pair:
    """One preference: the conversation as messages and as tokens, and where the answers begin."""

    row: dict[str, Any]
    chosen_ids: list[int]
    rejected_ids: list[int]
    start: int  # tokens of the prompt, which both sides share

    @property
    def num_tokens(self) -> int:
        return len(self.chosen_ids) + len(self.rejected_ids)


def read_pairs(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str
) -> tuple[list[Pair], list[RowCount]]:
    """Return the usable pairs of a role in seeded order, and the accounts of their sources.

    Dropped and counted: equal sides, empty answers, overlap with the exam (training only), and pairs longer than
    `sequence_length`, since a cut would take the answer.
    """
    settings = cast(PreferenceSettings, context.settings)
    accounts = Accounts(role)
    pairs = []
    for row in read_role(context, role, accounts):
        count = accounts[row["source"]]
        pair = tokenise_pair(row, tokenizer)
        if reason := _unusable(row, pair, settings.sequence_length):
            count.drop(reason)
        else:
            count.rows_out += 1
            count.tokens += pair.num_tokens
            pairs.append(pair)
    passes = pair_epochs(settings, len(pairs)) if role == "preference" else 0.0
    return pairs, accounts.close(context, passes)


def tokenise_pair(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Pair:
    """Return a conversation's prompt with its two answers, as the tokenizer's template writes them."""

    def encode(messages: list[dict[str, str]], **options: Any) -> list[int]:
        ids: list[int] = tokenizer.apply_chat_template(messages, return_dict=False, **options)
        return ids

    prompt = encode(row["prompt"], add_generation_prompt=True)
    chosen, rejected = encode(row["prompt"] + row["chosen"]), encode(row["prompt"] + row["rejected"])
    start = next((i for i, ids in enumerate(zip(prompt, chosen, rejected, strict=False)) if len(set(ids)) > 1), None)
    return Pair(row, chosen, rejected, min(len(prompt), len(chosen), len(rejected)) if start is None else start)


def _unusable(row: dict[str, Any], pair: Pair, limit: int) -> str | None:
    answers = ["".join(m["content"] for m in row[side]).strip() for side in ("chosen", "rejected")]
    if not all(answers):
        return "empty answer"
    if answers[0] == answers[1]:
        return "equal sides"
    if max(len(pair.chosen_ids), len(pair.rejected_ids)) > limit:
        return "longer than sequence_length"
    return None


def answer_logps(
    model: Any, pairs: Sequence[Pair], pad_id: int, batch_size: int = HELDOUT_PAIRS, most_logits: int = MOST_LOGITS
) -> tuple[list[float], list[float]]:
    """Return the summed log-probabilities (nats) of the chosen and of the rejected answers, without autocast.

    A forward pass reads at most `batch_size` answers and makes at most `most_logits` logits; one long answer may
    make more.
    """
    import torch

    was_training = model.training
    model.eval()
    bare = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", model)
    partly = "logits_to_keep" in inspect.signature(bare.forward).parameters
    positions = most_logits // bare.config.get_text_config().vocab_size
    sides = [(tuple(ids), pair.start) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    # Many pairs share an answer, and answers of similar length need little padding.
    unique = sorted(dict.fromkeys(sides), key=lambda answer: (len(answer[0]), answer[1]))
    found: dict[Answer, float] = {}
    with torch.no_grad(), memory.phase(memory.SCORING):  # inference mode has no way to gather shards
        for batch in _batches(unique, batch_size, positions):
            found.update(zip(batch, _logps(model, batch, pad_id, partly=partly).tolist(), strict=True))
    model.train(was_training)
    return [found[answer] for answer in sides[::2]], [found[answer] for answer in sides[1::2]]


def _batches(answers: Sequence[Answer], size: int, positions: int) -> Iterator[list[Answer]]:
    """Yield answers in their order, in batches within both limits: of rows, and of rows times positions with logits."""
    batch: list[Answer] = []
    for answer in answers:
        grown = [*batch, answer]
        wide = max(len(ids) for ids, _ in grown) - min(start for _, start in grown)
        if batch and (len(grown) > size or len(grown) * wide > positions):
            yield batch
            grown = [answer]
        batch = grown
    if batch:
        yield batch


def _logps(model: Any, answers: list[Answer], pad_id: int, *, partly: bool) -> Tensor:
    """Return (B,) sums over an answer's tokens of log p(token | before). Only these tokens get logits."""
    import torch

    length, first = max(len(ids) for ids, _ in answers), max(1, min(start for _, start in answers))
    device = next(model.parameters()).device
    ids_BT = torch.full((len(answers), length), pad_id)
    learned_BT = torch.zeros((len(answers), length), dtype=torch.bool)
    for number, (ids, start) in enumerate(answers):
        ids_BT[number, : len(ids)] = torch.tensor(ids)
        learned_BT[number, start : len(ids)] = True
    ids_BT = ids_BT.to(device)
    if partly:  # the model can leave out the logits of other positions
        kept = torch.arange(first - 1, length - 1, device=device)
        logits_BKV = model(input_ids=ids_BT, use_cache=False, logits_to_keep=kept).logits.float()
    else:
        logits_BKV = model(input_ids=ids_BT, use_cache=False).logits[:, first - 1 : -1].float()
    picked_BK = logits_BKV.gather(-1, ids_BT[:, first:, None])[..., 0] - torch.logsumexp(logits_BKV, -1)
    return (picked_BK.cpu() * learned_BT[:, first:]).sum(-1)


def accuracy(
    policy: tuple[Sequence[float], Sequence[float]], reference: tuple[Sequence[float], Sequence[float]]
) -> int:
    """Count pairs whose chosen side gained more than the rejected one against the reference.

    This is the accuracy of DPO's implicit reward beta * log(pi / pi_ref): Rafailov et al. 2023, equation 5.
    """
    columns = zip(policy[0], policy[1], reference[0], reference[1], strict=True)
    return sum((pc - rc) > (pr - rr) for pc, pr, rc, rr in columns)


def ranked_first(logps: tuple[list[float], list[float]], pairs: Sequence[Pair]) -> int:
    """Return in how many pairs the chosen answer has the higher log-probability per token (nats)."""
    sides = zip(*logps, pairs, strict=True)
    return sum(
        chosen / (len(pair.chosen_ids) - pair.start) > rejected / (len(pair.rejected_ids) - pair.start)
        for chosen, rejected, pair in sides
    )
