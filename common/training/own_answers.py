"""What the stages that learn from answers of their own model share: which answers are learned from, and which steps.

Usage: `class Reward(OwnAnswers): ...`; `trainer.add_callback(skipper(reward))`; `answers_left_out(...)`.

An answer that repeats the exam is not learned from (`kept`), and earns what the others of its group earn on average.
Where no group has answers that earned more than others, a step leaves the weights alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data.accounting import MOST_OVERLAPS, RowCount
from common.data.decontaminate import EXAM_OVERLAP, Decontaminator
from common.stage import StageContext
from common.training.callbacks import callback
from common.training.distributed import ranks

OVERLAPS = "exam_overlap-{}.jsonl"  # in the scratch, by process: answers that repeat the exam, with both texts


def evened(rewards: Sequence[float], keeps: Sequence[bool]) -> list[float]:
    """Return rewards of a group in which an answer that is not kept has the mean of those that are."""
    left = [reward for reward, keep in zip(rewards, keeps, strict=True) if keep]
    mean = sum(left) / max(1, len(left))
    return [reward if keep else mean for reward, keep in zip(rewards, keeps, strict=True)]


class OwnAnswers:
    """The base of the reward functions that TRL calls with a batch of answers, those of a group one after another."""

    __name__ = "reward"  # TRL logs it under this name

    def __init__(self, samples: int, guard: Decontaminator, overlaps: Path) -> None:
        self.samples = samples
        self.without_signal = False
        self.kept: list[bool] = []  # of the last batch: which answers are learned from
        self._guard, self._overlaps = guard, overlaps

    def groups(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yield the values of each group."""
        return (values[place : place + self.samples] for place in range(0, len(values), self.samples))

    def evened(self, totals: Sequence[float]) -> list[float]:
        """Return rewards in which an answer that is not kept has the mean of those of its group that are."""
        pairs = zip(self.groups(totals), self.groups(self.kept), strict=True)
        return [total for group, keeps in pairs for total in evened(group, keeps)]

    def differing(self, totals: Sequence[float]) -> bool:
        """Whether a group has answers that earned more than others."""
        return any(len(set(group)) > 1 for group in self.groups(totals))

    def settle(self, differs: bool, counts: Sequence[float]) -> list[float]:
        """Note whether any process has something to learn, as all step alike. Return counts, those of all added up."""
        gathered = ranks.all_gather([float(differs), *counts])
        self.without_signal = not any(row[0] for row in gathered)
        return [float(sum(values)) for values in zip(*(row[1:] for row in gathered), strict=True)]

    def _is_apart(self, text: str) -> bool:
        """Whether an answer repeats nothing of the exam; both texts of one that does are noted."""
        hit = self._guard.hit(text)
        if hit is not None:
            with self._overlaps.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(hit.detail) + "\n")
        return hit is None


def skipper(reward: OwnAnswers) -> Any:
    """Return a callback that leaves the weights alone where no answer earned more than the others to its prompt."""

    def skip(args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if reward.without_signal:
            for parameter in model.parameters():
                parameter.grad = None  # optimizers pass over these: no momentum, no weight decay

    return callback(on_pre_optimizer_step=skip)


def answers_left_out(
    context: StageContext, log: Sequence[Mapping[str, Any]], role: str, drawn: int
) -> Iterator[RowCount]:
    """Yield the account of the `drawn` answers of the model, where some repeat the exam and were not learned from."""
    number = round(sum(record.get("exam_overlap", 0.0) for record in log))
    if not number:
        return
    noted = sorted(context.work.glob(OVERLAPS.format("*")))
    texts = [line for path in noted for line in path.read_text(encoding="utf-8").splitlines()]
    yield RowCount(
        f"answers of {context.stage}", role, rows_in=drawn, dropped={EXAM_OVERLAP: number},
        rows_out=drawn - number, overlaps=[json.loads(line) for line in dict.fromkeys(texts)][:MOST_OVERLAPS],
    )  # fmt: skip
