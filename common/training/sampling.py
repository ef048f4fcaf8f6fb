"""Draw several answers to each prompt from a model, score them, and select those to learn from.

Usage: `drawn = draw(context, model, tokenizer, rows, mix, key="round-1")`, then `right_answers(...)`, `pairs_of(...)`.

Prompts of similar length share a batch, so that little of it is padding. Every batch has a seed of its own, so the same
model gives the same answers however often a run was stopped. `common.training.rows.prompts` reads the prompts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from common.config.answering import SamplingSettings
from common.config.json import as_written
from common.evaluation.written import Written, as_prompts, generate, write_answers
from common.rewards.mix import Mix
from common.rewards.verifiers import Answer
from common.stage import StageContext
from common.store.artifacts import write_rows
from common.training.loop import memory

Row = dict[str, Any]
GREEDY = 64  # prompts of a batch whose answers are not drawn
# The classes of a pass rate, each with the highest of it.
RATES = {"0": 0.0, "to 1/4": 0.25, "to 1/2": 0.5, "to 3/4": 0.75, "below 1": math.nextafter(1, 0), "1": 1.0}


@dataclass(frozen=True)
class Sample:
    """One answer: its text, whether it stopped by itself, its number of tokens, and its rewards."""

    text: str
    stopped: bool
    num_tokens: int
    reward: float
    parts: dict[str, float] = field(default_factory=dict)

    def is_right(self, passing: float) -> bool:
        """An answer that never stopped is not right, whatever its reward: it would teach not to stop."""
        return self.stopped and bool(self.text) and self.reward >= passing


@dataclass(frozen=True)
class PromptSamples:
    """A prompt row with all its answers, in the order in which they were drawn."""

    row: Row
    answers: list[Sample]

    @property
    def source(self) -> str:
        return f"{self.row['source']} (sampled)"

    def pass_rate(self, passing: float) -> float:
        return sum(answer.is_right(passing) for answer in self.answers) / len(self.answers)


def draw(
    context: StageContext, model: Any, tokenizer: Any, rows: Sequence[Row], mix: Mix, *, key: str = ""
) -> list[PromptSamples]:
    """Return every row with `samples` scored answers of the model, in the order of the rows.

    `key` tells draws of one stage apart. Raises DataError for a reward that is no number.
    """
    import torch

    settings = cast(SamplingSettings, context.settings)
    questions = [row["prompt"] for row in rows]
    prompts, most = as_prompts(model, tokenizer, questions, chat=True, most_tokens=settings.answer_tokens)
    options = {
        "do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0,
        "num_return_sequences": settings.samples,
    }  # fmt: skip
    wrote: list[list[Written]] = [[]] * len(rows)
    on_cuda = [model.device] if model.device.type == "cuda" else []
    with (
        memory.phase(memory.SAMPLING),
        torch.random.fork_rng(devices=on_cuda),
        context.console.progress(context.stage, len(rows) * settings.samples, "answers") as bar,
    ):
        done = 0
        for number, batch in enumerate(batches_of([len(p) for p in prompts], settings, most)):
            digest = hashlib.sha256(f"{context.config.seed}/{context.stage}/{key}/{number}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:4], "big"))
            answers = generate(model, tokenizer, [prompts[place] for place in batch], most, options)
            for turn, place in enumerate(batch):
                wrote[place] = answers[turn * settings.samples : (turn + 1) * settings.samples]
            done += len(answers)
            bar.update(done)
    return _scored(rows, wrote, mix)


def answer_greedily(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], most_tokens: int) -> list[Answer]:
    """Return the likeliest answer of a model to each prompt row."""
    prompts = [row["prompt"] for row in rows]
    wrote = write_answers(model, tokenizer, prompts, chat=True, most_tokens=most_tokens, batch_size=GREEDY)
    return [_answer(written, row) for written, row in zip(wrote, rows, strict=True)]


def _answer(written: Written, row: Mapping[str, Any]) -> Answer:
    return Answer(written.text, row, written.stopped, written.num_tokens, row["prompt"])


def batches_of(lengths: Sequence[int], settings: SamplingSettings, most_tokens: int) -> Iterator[list[int]]:
    """Yield the places of prompts in batches of similar length, the longest first, of at most `generated_tokens`.

    A batch costs its longest prompt plus the longest answer, times its answers. A prompt is never split. The first
    batch is the largest, so memory runs out there or nowhere.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    while order:
        cost = (lengths[order[0]] + most_tokens) * settings.samples
        size = max(1, settings.generated_tokens // cost)
        yield order[:size]
        order = order[size:]


def _scored(rows: Sequence[Row], wrote: Sequence[Sequence[Written]], mix: Mix) -> list[PromptSamples]:
    answers = [_answer(written, row) for row, group in zip(rows, wrote, strict=True) for written in group]
    scores = mix.score(answers)
    parts = [{name: round(values[place], 6) for name, values in scores.parts.items()} for place in range(len(answers))]
    drawn = (
        Sample(answer.text, answer.stopped, answer.num_tokens, round(total, 6), part)
        for answer, total, part in zip(answers, scores.totals, parts, strict=True)
    )
    return [PromptSamples(row, [next(drawn) for _ in group]) for row, group in zip(rows, wrote, strict=True)]


def right_answers(
    rounds: Iterable[Sequence[PromptSamples]], settings: SamplingSettings
) -> tuple[list[Row], Counter[str]]:
    """Return conversations for SFT with right answers, and how many right ones were left out for which reason.

    Rejection sampling after Yuan et al. 2023 (arXiv 2308.01825): over all rounds each text once per prompt, and at most
    `keep` per prompt, so that easy prompts do not outnumber hard ones.
    """
    kept: dict[str, list[str]] = {}
    rows = []
    left_out: Counter[str] = Counter()
    for one in itertools.chain.from_iterable(rounds):
        texts = kept.setdefault(json.dumps(one.row["prompt"]), [])
        for answer in one.answers:
            if not answer.is_right(settings.passing):
                continue
            if answer.text in texts:
                left_out["duplicate"] += 1
            elif len(texts) >= settings.keep:
                left_out["more than keep"] += 1
            else:
                texts.append(answer.text)
                said = {"role": "assistant", "content": answer.text}
                rows.append({"messages": [*one.row["prompt"], said], "source": one.source})
    return rows, left_out


def pairs_of(drawn: Iterable[PromptSamples], margin: float) -> tuple[list[Row], Counter[str]]:
    """Return preference rows, the best answer of a prompt against its worst, and how many prompts gave none, and why.

    Only answers that stopped are compared: a pair would give the others a stop token, and teach against it. A prompt
    whose answers have equal rewards gives no pair.
    """
    rows = []
    left_out: Counter[str] = Counter()
    for one in drawn:
        said = [answer for answer in one.answers if answer.text and answer.stopped]
        best = max(said, key=lambda answer: answer.reward, default=None)
        worst = min(said, key=lambda answer: answer.reward, default=None)
        if best is None or worst is None:
            left_out["no answer stopped"] += 1
        elif best.reward <= worst.reward or best.text == worst.text:
            left_out["tie"] += 1
        elif best.reward - worst.reward < margin:
            left_out["below margin"] += 1
        else:
            chosen, rejected = ([{"role": "assistant", "content": answer.text}] for answer in (best, worst))
            rows.append({"prompt": one.row["prompt"], "chosen": chosen, "rejected": rejected, "source": one.source})
    return rows, left_out


def prompt_rows(drawn: Iterable[PromptSamples], passing: float) -> list[Row]:
    """Return the prompt rows, each with the share of its answers that were right."""
    return [{**one.row, "pass_rate": round(one.pass_rate(passing), 4)} for one in drawn]


def facts_of(drawn: Sequence[PromptSamples], passing: float) -> dict[str, Any]:
    """Return the facts of a draw for the card: counts, means, shares and the histogram of pass rates."""
    answers = [answer for one in drawn for answer in one.answers]
    number, tokens = len(answers), sum(answer.num_tokens for answer in answers)
    rates = Counter(next(name for name, most in RATES.items() if one.pass_rate(passing) <= most) for one in drawn)
    return {
        "prompts": len(drawn), "answers": number, "tokens_drawn": tokens, "mean_tokens": round(tokens / number, 2),
        "mean_reward": round(sum(answer.reward for answer in answers) / number, 4),
        "answers_right": round(sum(answer.is_right(passing) for answer in answers) / number, 4),
        "unstopped": round(sum(not answer.stopped for answer in answers) / number, 4),
        "pass_rates": {name: rates[name] for name in RATES},
    }  # fmt: skip


def write_drawn(path: Path, drawn: Iterable[PromptSamples]) -> None:
    """Write prompts with all their answers, for people to read and for `read_drawn`."""
    write_rows(path, ({"row": one.row, "answers": [asdict(answer) for answer in one.answers]} for one in drawn))


def read_drawn(path: Path) -> list[PromptSamples]:
    """Return what `write_drawn` wrote."""
    with as_written(path), path.open(encoding="utf-8") as lines:
        records = map(json.loads, lines)
        return [PromptSamples(one["row"], [Sample(**answer) for answer in one["answers"]]) for one in records]
