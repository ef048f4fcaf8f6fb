"""One checkpoint sits the exam: questions of both sides by log-likelihood, held-out texts by bits per byte.

Usage: `result = sit(folder, Paper(questions, texts), EvaluateSettings(), device="cpu", work=scratch)`.

It measures one checkpoint and compares none (`common.evaluation.gate`); writing the results down is
`common.stages.evaluate`. The scoring is lm-evaluation-harness's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import EvaluateSettings
from common.errors import DataError
from common.evaluation import extra, harness
from common.evaluation.statistics import wilson
from common.evaluation.tasks import write_question_task, write_text_task

SIDES = ("general", "domain")
SCORE_DIGITS = 4  # of log-likelihoods in the records; float32 is not reproducible beyond


@dataclass(frozen=True)
class Paper:
    """What is asked: question rows and whole documents by side, `general` and `domain`; a side may be missing."""

    questions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came out; `to_json` is the exam.json of one checkpoint."""

    exam: dict[str, dict[str, Any] | None]  # side -> score, n, low, high
    bits_per_byte: dict[str, float | None]
    tasks: dict[str, dict[str, Any]]  # harness task -> version and how it was asked
    extra: dict[str, dict[str, float]]  # further harness task -> metric -> value
    records: list[dict[str, Any]]  # one per question, in the order of the paper

    def to_json(self, checkpoint: str) -> dict[str, Any]:
        return {
            "checkpoint": checkpoint,
            "exam": self.exam,
            "bits_per_byte": self.bits_per_byte,
            "tasks": self.tasks,
            "extra": self.extra,
        }


def sit(
    checkpoint: Path,
    paper: Paper,
    settings: EvaluateSettings,
    *,
    device: str,
    work: Path,
    progress: harness.Progress | None = None,
    trust_remote_code: bool = False,
) -> Result:
    """Examine the checkpoint in a folder and return what it scored; `work` is scratch for the task files.

    `progress(done, total)` counts sequences. Raises ConfigError for a harness task that does not exist and
    DataError for one whose data cannot be had, for malformed questions, and for an exam without anything in it.
    """
    questions, texts = _select(paper, settings)
    import torch

    extra_tasks = extra.load(settings.tasks)  # first: a misspelt name should not cost a whole exam
    counter = _Counter(questions, texts, progress)
    folder = work / "tasks"
    shutil.rmtree(folder, ignore_errors=True)  # of an exam that was interrupted
    with harness.quiet(), torch.inference_mode():
        model = harness.load(
            checkpoint,
            batch_size=settings.batch_size,
            device=device,
            trust_remote_code=trust_remote_code,
            on_pass=counter.add,
        )
        chat = settings.chat_template and bool(model.tokenizer.chat_template)
        ending = harness.answer_ending(model.tokenizer) if chat else ""
        _write_paper(folder, questions, texts, chat=chat, ending=ending)
        asked = harness.evaluate(model, harness.local_tasks(folder, [_name("questions", s) for s in questions]), chat)
        read = harness.evaluate(model, harness.local_tasks(folder, [_name("text", s) for s in texts]), False)
        further = extra.evaluate(model, extra_tasks, chat, settings.limit)
        del model
    harness.free(device)
    counter.finish()
    shutil.rmtree(folder, ignore_errors=True)  # there is none when only further tasks were asked for
    records = [record for side in questions for record in _records(side, asked["samples"][_name("questions", side)])]
    form = {"asked": "chat" if chat else "plain", "ending": ending}
    return Result(
        exam={side: _score([r for r in records if r["side"] == side]) for side in SIDES},
        bits_per_byte={
            side: read["results"][_name("text", side)]["bits_per_byte,none"] if side in texts else None
            for side in SIDES
        },
        tasks=_describe(asked, form) | _describe(read, {}) | further.tasks,
        extra=further.scores,
        records=records,
    )


def _select(
    paper: Paper, settings: EvaluateSettings
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, list[str]]]:
    """Return the questions and texts that the settings ask for, sides without any left out."""
    questions = {side: list(paper.questions[side])[: settings.limit] for side in SIDES if paper.questions.get(side)}
    documents = {side: [text for text in paper.texts.get(side, ()) if text.strip()] for side in SIDES}
    texts = {side: kept[: settings.text_documents] for side, kept in documents.items() if kept}
    if not (questions or texts or settings.tasks):
        raise DataError(
            "The exam has no questions, no held-out texts and no tasks; give the data sources of role eval, "
            "or set `tasks` of the evaluate stage."
        )
    return questions, texts


class _Counter:
    """Counts the sequences that went through the model and reports them."""

    def __init__(
        self,
        questions: Mapping[str, Sequence[Mapping[str, Any]]],
        texts: Mapping[str, Sequence[str]],
        progress: harness.Progress | None,
    ) -> None:
        self.total = sum(len(row["choices"]) for rows in questions.values() for row in rows)
        self.total += sum(len(documents) for documents in texts.values())
        self.done = 0
        self.progress = progress
        self.report()

    def add(self, num_sequences: int) -> None:
        # Choices of one token share a pass and long documents take several, so the count is not exact.
        self.done = min(self.total, self.done + num_sequences)
        self.report()

    def finish(self) -> None:
        if self.done < self.total:
            self.done = self.total
            self.report()

    def report(self) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total)


def _name(part: str, side: str) -> str:
    return f"exam_{side}_{part}"


def _write_paper(
    folder: Path,
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    texts: Mapping[str, Sequence[str]],
    *,
    chat: bool,
    ending: str,
) -> None:
    for side, rows in questions.items():
        write_question_task(folder, _name("questions", side), rows, chat=chat, ending=ending)
    for side, documents in texts.items():
        write_text_task(folder, _name("text", side), documents)


def _records(side: str, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turn the harness's log of one task into our records, in the order of the paper."""
    records = []
    for sample in sorted(samples, key=lambda sample: int(sample["doc_id"])):
        scores = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
        predicted = max(range(len(scores)), key=scores.__getitem__)  # the first of equals, as the harness does
        records.append(
            {
                "id": sample["doc"]["id"],
                "side": side,
                "task": _name("questions", side),
                "answer": sample["doc"]["answer"],
                "predicted": predicted,
                "correct": bool(sample["acc"]),
                "scores": [round(score, SCORE_DIGITS) for score in scores],
            }
        )
    return records


def _score(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the share of correct answers with its 95% interval, or None without questions."""
    if not records:
        return None
    correct = sum(record["correct"] for record in records)
    low, high = wilson(correct, len(records))
    return {"score": correct / len(records), "n": len(records), "low": low, "high": high}


def _describe(results: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"version": version, **form} for name, version in results["versions"].items()}
