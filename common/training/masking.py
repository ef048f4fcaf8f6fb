"""The two rounds of a step of RL pre-training: masks of paragraphs, then predictions of each, trained as one batch.

Usage: `trainer = mask_trainer()(..., reward_funcs=masking)`, where `masking = Masking(asking, paragraphs, ...)`.

TRL's GRPOTrainer asks for the answers to a batch of prompts at once. Here a batch has, for each paragraph, a group of
`samples` masks and `samples` groups of predictions. The prompts of the latter are made between the rounds, from the
masks of the same step; both kinds are then scored and learned in one update, as in PretrainZero (arXiv 2512.03442).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.config.rl_pretrain import RlPretrainSettings
from common.data.decontaminate import Decontaminator
from common.rewards.masks import count_words, is_valid, mask_reward, random_span, tells_apart
from common.training.own_answers import OwnAnswers, evened
from common.training.patches import text_prompt_trainer
from common.training.rows.paragraphs import Asking, Paragraph

Ids = list[int]
Write = Callable[[list[Ids]], list[Ids]]  # prompts to answers, `samples` equal prompts one after another
COUNTED = (
    "masks", "invalid", "predictions", "right", "all_right", "all_wrong", "earned", "words", "unstopped", "written",
    "tokens", "exam_overlap",
)  # fmt: skip
COUNT = "counts/{}"  # what the log calls them


class Masking(OwnAnswers):
    """Draws the masks and predictions of a batch, and gives TRL their rewards.

    A batch has blocks of `samples` masks of a paragraph, and `samples` predictions of each of these masks in turn. What
    has no prompt, as the predictions of a mask that is not valid, stands in it as one token that is not learned from.
    """

    def __init__(
        self, asking: Asking, paragraphs: Sequence[Paragraph], settings: RlPretrainSettings, stops: Sequence[int],
        tokenizer: Any, guard: Decontaminator, overlaps: Path, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(settings.samples, guard, overlaps)
        self._asking, self._paragraphs, self._settings, self._seed = asking, paragraphs, settings, seed
        self._stops, self._tokenizer, self._leads = frozenset(stops), tokenizer, settings.read == "leading"
        self.prompts: list[Ids] = []  # of the last batch, by row
        self.answers: list[Ids] = []
        self._spans: list[str | None] = []  # by mask; None where it is not valid
        self._random = False

    @property
    def at_once(self) -> int:
        """The answers that are written at once."""
        each = self._settings.prompt_tokens + self._settings.answer_tokens
        return self.samples * max(1, self._settings.generated_tokens // (each * self.samples))

    def draw(self, blocks: Sequence[tuple[int, int]], step: int, write: Write) -> None:
        """Draw the masks of a batch's paragraphs and their predictions; a block is (paragraph, number of its draw).

        `step` counts from 0: the first ones have random spans.
        """
        samples, texts = self.samples, [self._paragraphs[place].text for place, _ in blocks]
        nothing = end = [self._tokenizer.eos_token_id]
        self._random = step < self._settings.random_steps
        if self._random:
            asked = [nothing] * (len(texts) * samples)
            wrote = [end] * len(asked)
            self._spans = [self._random_span(*block, turn) for block in blocks for turn in range(samples)]
        else:
            asked = [ids for text in texts for ids in [self._asking.for_mask(text)] * samples]
            wrote = write(asked)
            self._spans = [
                span
                if is_valid(span := self._asking.span(self._text(ids)), text, self._settings.occurs_below)
                else None
                for text, group in zip(texts, self.groups(wrote), strict=True)
                for ids in group
            ]
        hiding = [text for text in texts for _ in range(samples)]
        prompts = [
            None if span is None else self._asking.for_prediction(text, span)
            for text, span in zip(hiding, self._spans, strict=True)
        ]
        drawn = iter(write([ids for ids in prompts if ids is not None for _ in range(samples)]))
        self.prompts, self.answers = [], []
        for place in range(0, len(asked), samples):
            self.prompts += asked[place : place + samples]
            self.answers += wrote[place : place + samples]
            for turn in range(place, place + samples):
                ids, span = prompts[turn], self._spans[turn]
                self.prompts += [nothing if ids is None else ids] * samples
                self.answers += [end if span is None else self._cut(next(drawn), span) for _ in range(samples)]

    def __call__(self, prompts: Sequence[Any], **context: Any) -> list[float]:
        """Return r_gen of masks and r_pred of predictions, by row, and note which rows are learned from."""
        samples, totals = self.samples, list[float]()
        self.kept = []
        counts = dict.fromkeys(COUNTED, 0.0)
        groups = list(self.groups(self.answers))
        for block, spans in zip(range(0, len(groups), 1 + samples), self.groups(self._spans), strict=True):
            found = [
                self._score(span, answers, counts) for span, answers in zip(spans, groups[block + 1 :], strict=False)
            ]
            worth = [mask_reward([r for r, keep in zip(*one, strict=True) if keep]) for one in found]
            apart = [self._random or self._seen(ids, counts) for ids in groups[block]]
            counts["masks"] += samples
            counts["earned"] += sum(worth)
            self._take(worth, apart, totals, learned=not self._random)
            for (rewards, keeps), span in zip(found, spans, strict=True):
                self._take(rewards, keeps, totals, learned=span is not None)
        values = dict(zip(COUNTED, self.settle(any(self.kept), list(counts.values())), strict=True))
        if log := context.get("log_metric"):
            logged = {COUNT.format(name): value for name, value in values.items()} | shares(values)
            for name, value in logged.items():
                log(name, value)
            log("exam_overlap", values["exam_overlap"])
            log("no_signal", float(self.without_signal))
        return totals

    def _score(
        self, span: str | None, answers: Sequence[Ids], counts: dict[str, float]
    ) -> tuple[list[float], list[bool]]:
        """Return r_pred of each prediction of a mask, and which of them may be learned from."""
        if span is None:
            counts["invalid"] += 1
            return [0.0] * len(answers), [False] * len(answers)
        rewards = [self._asking.reward(self._text(ids), span) for ids in answers]
        counts["predictions"] += len(rewards)
        counts["right"] += sum(rewards)
        counts["all_right"] += min(rewards) == 1
        counts["all_wrong"] += max(rewards) == 0
        counts["words"] += count_words(span)
        return rewards, [self._seen(ids, counts, span) for ids in answers]

    def _seen(self, ids: Ids, counts: dict[str, float], span: str | None = None) -> bool:
        """Count an answer that the model wrote. Return whether it repeats nothing of the exam."""
        text = self._text(ids)
        apart = self._is_apart(text)
        cut = self._leads and span is not None and count_words(text) >= count_words(span)
        counts["written"] += 1
        counts["tokens"] += len(ids)
        counts["unstopped"] += ids[-1] not in self._stops and not cut
        counts["exam_overlap"] += not apart
        return apart

    def _take(self, rewards: Sequence[float], keeps: Sequence[bool], totals: list[float], *, learned: bool) -> None:
        """Add a group to the batch: one whose rewards are equal is dropped (DAPO), and so is one that has no prompt."""
        left = [reward for reward, keep in zip(rewards, keeps, strict=True) if keep]
        learned = learned and tells_apart(left)
        totals += evened(rewards, keeps)
        self.kept += [keep and learned for keep in keeps]

    def _random_span(self, place: int, number: int, turn: int) -> str | None:
        draw = random.Random(f"{self._seed}/{number}/{turn}")
        most, below = self._settings.random_words, self._settings.occurs_below
        return random_span(self._paragraphs[place].text, draw, most, below)

    def _cut(self, ids: Ids, span: str) -> Ids:
        """Return a prediction as far as it is read; where its first words count, what follows them is no answer."""
        if not self._leads:
            return ids
        said = self._asking.prediction(self._text(ids), span)
        ends = (end for end in range(1, len(ids)) if self._asking.prediction(self._text(ids[:end]), span) == said)
        return ids[: next(ends, len(ids))] if said else ids

    def _text(self, ids: Ids) -> str:
        own = ids[:-1] if ids and ids[-1] in self._stops else ids
        return str(self._tokenizer.decode(own, skip_special_tokens=True))


def shares(counts: dict[str, float]) -> dict[str, float]:
    """Return means from counts of a step, or of several steps; none of what was not there, as without valid masks.

    `predicted` is the mean of r_pred and `earned` that of r_gen; `all_right` and `all_wrong` are shares of the valid
    masks, whose predictions are dropped; `words` is the mean length of a span.
    """
    valid = counts["masks"] - counts["invalid"]
    found = {
        "predicted": (counts["right"], counts["predictions"]),
        "earned": (counts["earned"], counts["masks"]),
        "invalid": (counts["invalid"], counts["masks"]),
        "all_right": (counts["all_right"], valid),
        "all_wrong": (counts["all_wrong"], valid),
        "words": (counts["words"], valid),
        "unstopped": (counts["unstopped"], counts["written"]),
    }
    return {name: part / whole for name, (part, whole) in found.items() if whole}


@functools.cache
def mask_trainer() -> Any:
    """Return the GRPOTrainer whose one reward function is a `Masking`, which also draws the answers.

    TRL 1.16: `_generate_single_turn` is the one place where answers are written, `_prepare_inputs` calls for them once
    a step. The loss `dapo` is a mean over all answers' tokens; here over those of the answers that are kept.
    """
    from trl import GRPOTrainer

    class MaskTrainer(text_prompt_trainer(GRPOTrainer)):  # type: ignore[misc] # TRL is untyped
        @property
        def masking(self) -> Masking:
            (found,) = self.reward_funcs
            assert isinstance(found, Masking), "it is made with one"
            return found

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            samples = self.masking.samples
            blocks = [(row["paragraph"], row["number"]) for row in inputs[:: samples * (1 + samples)]]
            self.masking.draw(blocks, self.state.global_step, self._write)
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            learned = output["completion_mask"] * output.get("tool_mask", 1)
            output["num_items_in_batch"] = self.accelerator.gather(learned.sum()).sum()
            return output

        def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[Ids], None, dict[str, Any]]:
            return self.masking.prompts, None, {}

        def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[Ids], None]:
            return self.masking.answers, None

        def _write(self, prompts: list[Ids]) -> list[Ids]:
            """Return an answer to each prompt, written in batches of `generated_tokens`."""
            found: list[Ids] = []
            size = self.masking.at_once
            for start in range(0, len(prompts), size):
                some = prompts[start : start + size]
                found += super()._generate_single_turn(some, None, {}, self.masking.samples)[0]
            return found

    return MaskTrainer
