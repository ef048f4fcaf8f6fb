"""Preference pairs and single answers with a label as tokens, and the log-probabilities that a model gives to answers.

Usage: `pairs, counts = read_pairs(context, tokenizer, "preference")`; `logps_of(model, pairs[0].sides, pad_id)`.

TRL's trainers do the training. These functions measure held-out accuracy and check the reference independently.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from common.config.batches import pair_epochs
from common.config.stages import PreferenceSettings
from common.cost.activations import MOST_LOGITS
from common.cost.workload import HELDOUT_PAIRS
from common.data.accounting import RowCount
from common.errors import DataError
from common.models.control_tokens import reader_of
from common.models.rendering import Refusal, take
from common.stage import StageContext
from common.training.loop import memory
from common.training.rows.reader import Accounts, read_role
from common.training.rows.witness import NOBODY, Witness

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
    changed: tuple[str, ...] = ()  # what was done with it, as rows are counted by

    @property
    def num_tokens(self) -> int:
        return len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def sides(self) -> tuple[Answer, ...]:
        """The chosen answer and the rejected one."""
        return (tuple(self.chosen_ids), self.start), (tuple(self.rejected_ids), self.start)

    @property
    def labels(self) -> tuple[bool, ...]:
        return True, False

    @property
    def columns(self) -> dict[str, list[int]]:
        """The prompt and the two answers, each by itself, under TRL's names."""
        start, sides = self.start, (self.chosen_ids, self.rejected_ids)
        return {"prompt_ids": sides[0][:start], "chosen_ids": sides[0][start:], "rejected_ids": sides[1][start:]}


@dataclass(frozen=True)
class Single:
    """One answer by itself: the conversation as messages and as tokens, where the answer begins, and if it is wanted.

    Its attributes are those of a pair with one side.
    """

    row: dict[str, Any]
    chosen_ids: list[int]
    start: int
    wanted: bool
    changed: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.chosen_ids)

    @property
    def sides(self) -> tuple[Answer, ...]:
        return ((tuple(self.chosen_ids), self.start),)

    @property
    def labels(self) -> tuple[bool, ...]:
        return (self.wanted,)


Preference = Pair | Single


def read_pairs(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, witness: Witness = NOBODY
) -> tuple[list[Pair], list[RowCount]]:
    """Return the usable pairs of a role in seeded order, and the accounts of their sources.

    Dropped and counted: equal sides, empty answers, overlap with the exam (training only), and pairs longer than
    `sequence_length`, since a cut would take the answer. Raises DataError for a single answer with a label.
    """
    found, counts = read_preferences(context, tokenizer, role, witness)
    pairs = [one for one in found if isinstance(one, Pair)]
    if single := next((one for one in found if isinstance(one, Single)), None):
        raise DataError(unpaired_refusal(context.stage, str(single.row.get("source", ""))))
    return pairs, counts


def read_preferences(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, role: str, witness: Witness = NOBODY
) -> tuple[list[Preference], list[RowCount]]:
    """Return the usable pairs and single answers of a role, as `read_pairs` does pairs alone.

    `witness` hears of those that are dropped.
    """
    settings = cast(PreferenceSettings, context.settings)
    accounts = Accounts(role)
    read: list[Preference] = []
    for row in read_role(context, role, accounts):
        count = accounts[row["source"]]
        try:
            one = tokenise_single(row, tokenizer) if "completion" in row else tokenise_pair(row, tokenizer)
        except Refusal as refusal:
            witness.drop(count, row, str(refusal))
            continue
        for what in one.changed:
            count.change(what)
        if reason := _unusable(one, settings.sequence_length):
            witness.drop(count, row, reason)
        else:
            count.rows_out += 1
            count.tokens += one.num_tokens
            read.append(one)
    passes = pair_epochs(settings, sum(len(one.sides) for one in read) / 2) if role == "preference" else 0.0
    return read, accounts.close(context, passes)


def unpaired_refusal(stage: str, source: str) -> str:
    """Say that a stage cannot learn from a source of single answers."""
    return (
        f"Stage {stage}: source '{source}' has single answers with a label; only kind kto learns from them. Use "
        "pipeline=kto, or give pairs of a chosen and a rejected answer."
    )


def tokenise_pair(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Pair:
    """Return a conversation's prompt with its two answers, as the tokenizer's template writes them. Raises Refusal."""
    reader, asked = reader_of(tokenizer), row.get("control_tokens", ())
    reader.require(asked, row.get("source", ""))
    sides = [
        take(tokenizer, [*row["prompt"], *row[side]], row.get("tools"), asked=asked) for side in ("chosen", "rejected")
    ]
    texts = [sides[0].render(len(row["prompt"]), prompt=True), *(side.render() for side in sides)]
    prompt, chosen, rejected = reader.encode(texts)
    start = _num_shared(prompt, chosen, rejected)
    return Pair(row, chosen, rejected, start, tuple(dict.fromkeys(what for side in sides for what in side.changed)))


def tokenise_single(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Single:
    """Return a conversation's prompt with its answer, as the tokenizer's template writes them. Raises Refusal."""
    reader, asked = reader_of(tokenizer), row.get("control_tokens", ())
    reader.require(asked, row.get("source", ""))
    taken = take(tokenizer, [*row["prompt"], *row["completion"]], row.get("tools"), asked=asked)
    prompt, whole = reader.encode([taken.render(len(row["prompt"]), prompt=True), taken.render()])
    return Single(row, whole, _num_shared(prompt, whole), bool(row["label"]), taken.changed)


def _num_shared(*texts: list[int]) -> int:
    """Return how many tokens some texts have in common at their beginning."""
    return next((i for i, ids in enumerate(zip(*texts, strict=False)) if len(set(ids)) > 1), min(map(len, texts)))


def _unusable(one: Preference, limit: int) -> str | None:
    names = ("completion",) if isinstance(one, Single) else ("chosen", "rejected")
    answers = [_said(one.row[name]) for name in names]
    if not all(answers):
        return "empty answer"
    if len(set(answers)) < len(answers):
        return "equal sides"
    if max(len(ids) for ids, _ in one.sides) > limit:
        return "longer than sequence_length"
    return None


def _said(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what an answer says, calls of tools included, to compare it with another."""
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    text = "".join(str(message["content"]) for message in messages).strip()
    return text + (json.dumps(calls, sort_keys=True) if calls else "")


def logps_of(
    model: Any, sides: Sequence[Answer], pad_id: int, batch_size: int = HELDOUT_PAIRS, most_logits: int = MOST_LOGITS
) -> list[float]:
    """Return the summed log-probability (nats) of each answer, without autocast.

    A forward pass reads at most `batch_size` answers and makes at most `most_logits` logits; one long answer may
    make more.
    """
    import torch

    was_training = model.training
    model.eval()
    bare = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", model)
    partly = "logits_to_keep" in inspect.signature(bare.forward).parameters
    positions = most_logits // bare.config.get_text_config().vocab_size
    # Many pairs share an answer, and answers of similar length need little padding.
    unique = sorted(dict.fromkeys(sides), key=lambda answer: (len(answer[0]), answer[1]))
    found: dict[Answer, float] = {}
    with torch.no_grad(), memory.phase(memory.SCORING):  # inference mode has no way to gather shards
        for batch in _batches(unique, batch_size, positions):
            found.update(zip(batch, _logps(model, batch, pad_id, partly=partly).tolist(), strict=True))
    model.train(was_training)
    return [found[answer] for answer in sides]


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


def on_their_side(singles: Sequence[Single], policy: Sequence[float], reference: Sequence[float]) -> int:
    """Count single answers whose implied reward beta * log(pi / pi_ref) has the sign of their label.

    A measure of ours, for answers that have no other to be compared with: wanted ones have become likelier than they
    were for the reference, unwanted ones less likely. The reward is that of KTO (Ethayarajh et al. 2024, section 3.2).
    """
    columns = zip(singles, policy, reference, strict=True)
    return sum((after > before) if single.wanted else (after < before) for single, after, before in columns)


def ranked_first(logps: tuple[Sequence[float], Sequence[float]], pairs: Sequence[Pair]) -> int:
    """Return in how many pairs the chosen answer has the higher log-probability per token (nats)."""
    sides = zip(*logps, pairs, strict=True)
    return sum(
        chosen / (len(pair.chosen_ids) - pair.start) > rejected / (len(pair.rejected_ids) - pair.start)
        for chosen, rejected, pair in sides
    )
