"""Runs the exam on one checkpoint: questions of both sides, and held-out texts for bits per byte.

Usage: `result = run_exam(folder, ExamQuestions(questions, texts), EvaluateSettings(), device="cpu")`.

Questions with choices are scored by log-likelihood in lm-evaluation-harness. Questions without choices are answered in
writing (`common.evaluation.written`). Checkpoints are compared in `common.evaluation.comparison`; the results are
saved by `common.stages.evaluate`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.config.stages import EvaluateSettings
from common.errors import DataError
from common.evaluation import extra, harness, long_context
from common.evaluation.languages import LanguageCheck
from common.evaluation.scores import SIDES, by_language, by_probe, by_side, by_source, text_scores, written_scores
from common.evaluation.tasks import question_task, text_task
from common.evaluation.written import Written, mark, write_answers
from common.models.device import release_memory
from common.models.finite import require_finite
from common.models.special_tokens import stop_ids

DIVERGED = "The model computes no numbers here. Nothing is compared with it; train its stage again, or give another."
SCORE_DIGITS = 4  # of log-likelihoods in the records; float32 is not reproducible beyond
PROBE = "probe"  # side of the records that count in no score of the exam
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ExamQuestions:
    """What can be asked: question rows and text rows by side, `general` and `domain`; a side may be missing.

    A question has `choices` and the index of the right `answer`, or `answers` (texts, any of them right), `match` and
    `final`. A question with a `probe` counts in no side's score.
    """

    questions: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The scores and records of one exam; `to_json` is the exam.json of a checkpoint."""

    precision: str  # of the weights while they were asked; the device decides it, so it is no part of the recipe
    exam: dict[str, dict[str, Any] | None]  # side -> score, n, low, high
    bits_per_byte: dict[str, float | None]
    texts: dict[str, dict[str, Any]]  # side -> bits_per_byte, n documents, bytes, low, high
    tasks: dict[str, dict[str, Any]]  # harness task -> version and how it was asked
    extra: dict[str, dict[str, float]]  # further harness task -> metric -> value
    written: dict[str, dict[str, Any]]  # side -> exact, stopped, f1, in_language
    probes: dict[str, dict[str, Any]]  # label -> score, n, low, high
    languages: dict[str, dict[str, Any]]  # code -> exam, in_language, bits_per_byte, tokens_per_character
    sources: dict[str, dict[str, Any]]  # source -> score, where a side has several
    long_context: dict[str, Any] | None  # the needle test and curves by position, where they are asked for
    records: list[dict[str, Any]]  # one per question, in the order asked
    documents: list[dict[str, Any]]  # one per held-out text: id, side, source, language, bits, bytes

    def to_json(self, checkpoint: str) -> dict[str, Any]:
        facts = {part.name: getattr(self, part.name) for part in fields(self)}
        apart = {"records", "documents"}  # have files of their own
        apart |= {"long_context"} if self.long_context is None else set()
        return {"checkpoint": checkpoint, **{name: value for name, value in facts.items() if name not in apart}}


def run_exam(
    checkpoint: Path, exam: ExamQuestions, settings: EvaluateSettings, *, device: str,
    progress: harness.Progress | None = None, trust_remote_code: bool = False, task_folders: tuple[Path, ...] = (),
) -> Result:  # fmt: skip
    """Run the exam on the checkpoint in a folder and return what it scored.

    `progress(done, total)` counts sequences. `task_folders` hold further harness task files. Raises ConfigError for a
    harness task that does not exist. Raises DataError for a task whose data could not be loaded, for malformed
    questions, and for an empty exam.
    """
    plan = ExamPlan.of(exam, settings)
    import torch

    extra_tasks = extra.load(settings.tasks, task_folders)  # first: a misspelt name should not cost a whole exam
    total = plan.num_sequences + (settings.long_context.num_needles if settings.long_context else 0)
    counter = _Counter(total, progress)
    with harness.quiet(), torch.inference_mode():
        model = harness.load(
            checkpoint, batch_size=settings.batch_size, device=device, trust_remote_code=trust_remote_code,
            on_pass=counter.add,
        )  # fmt: skip
        if settings.long_context is not None:
            long_context.check_room(model.tokenizer, settings.long_context)
        answers = _ask(model, plan, settings, counter)
        further = extra.evaluate(model, extra_tasks, answers.chat, settings.limit)
        far = None
        if settings.long_context is not None:
            held_out = {side: [str(row["text"]) for row in rows] for side, rows in plan.texts.items()}
            far = long_context.measure(model.model, model.tokenizer, held_out, settings.long_context, counter.add)
        tokenizer, precision = model.tokenizer, str(model.model.dtype).removeprefix("torch.")
        del model
    release_memory()
    counter.add(total)
    records, documents = _records(plan, answers), _documents(plan, answers)
    form = {"asked": "chat" if answers.chat else "plain", "ending": answers.ending}
    form |= {"unshared": answers.unshared} if answers.unshared else {}
    texts = plan.texts.get("domain", [])
    languages = _languages([*plan.questions.get("domain", []), *texts])
    return Result(
        precision=precision,
        exam=by_side(records),
        bits_per_byte={
            side: answers.read["results"][_name("text", side)]["bits_per_byte,none"] if side in plan.texts else None
            for side in SIDES
        },
        texts=text_scores(documents),
        tasks=_describe(answers.chosen, form) | _describe(answers.read, {}) | further.tasks,
        extra=further.scores,
        written=written_scores(records),
        probes=by_probe(records),
        languages=by_language(
            tokenizer, languages, records, texts, answers.read["samples"].get(_name("text", "domain"), [])
        ),
        sources=by_source(records),
        long_context=far,
        records=records,
        documents=documents,
    )


@dataclass(frozen=True)
class ExamPlan:
    """What one exam asks, by side; a side without any rows is left out."""

    questions: dict[str, list[Row]]
    texts: dict[str, list[Row]]
    chosen: dict[str, list[Row]]  # the questions that are answered by a choice
    written: dict[str, list[Row]]  # and those that are answered in writing; a question can be in both

    @classmethod
    def of(cls, exam: ExamQuestions, settings: EvaluateSettings) -> ExamPlan:
        """Select what the settings ask for. Raises DataError where that is nothing."""
        documents = {side: [row for row in exam.texts.get(side, ()) if row["text"].strip()] for side in SIDES}
        questions = _filled({side: _sample(exam.questions.get(side, ()), settings.limit) for side in SIDES})
        texts = _filled({side: _sample(rows, settings.text_documents) for side, rows in documents.items()})
        if not (questions or texts or settings.tasks):
            raise DataError(
                "The exam has no questions, no held-out texts and no tasks. Give the data sources of role eval, "
                "or set `tasks` of the evaluate stage."
            )
        chosen = {side: [row for row in rows if "choices" in row] for side, rows in questions.items()}
        # Writing the domain's answers too shows what the choices hide.
        written = {
            side: [row for row in rows if "choices" not in row or (settings.written and side == "domain")]
            for side, rows in questions.items()
        }
        return cls(questions, texts, _filled(chosen), _filled(written))

    @property
    def num_sequences(self) -> int:
        """How many sequences go through the model."""
        choices = sum(len(row["choices"]) for rows in self.chosen.values() for row in rows)
        return choices + sum(len(rows) for side in (self.written, self.texts) for rows in side.values())


def _filled(sides: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {side: rows for side, rows in sides.items() if rows}


def _sample(rows: Sequence[Row], most: int | None) -> list[Row]:
    """Return up to `most` rows, evenly spaced, so that every source and language has its share."""
    if most is None or len(rows) <= most:
        return list(rows)
    return [rows[place * len(rows) // most] for place in range(most)]


@dataclass(frozen=True)
class _Answers:
    """What the harness returned for choices and texts, and the written answers by side."""

    chat: bool  # whether the chat template was used
    ending: str  # that closed each choice
    unshared: str | None  # why every choice was scored with its whole context
    chosen: dict[str, Any]
    read: dict[str, Any]
    written: dict[str, list[Written]]


def _ask(model: Any, plan: ExamPlan, settings: EvaluateSettings, counter: _Counter) -> _Answers:
    chat = settings.chat_template and bool(model.tokenizer.chat_template)
    ending = harness.answer_ending(model.tokenizer, stop_ids(model.model, model.tokenizer)) if chat else ""
    questions = [
        question_task(_name("questions", side), rows, chat=chat, ending=ending) for side, rows in plan.chosen.items()
    ]
    texts = [text_task(_name("text", side), rows) for side, rows in plan.texts.items()]
    chosen, read = (
        harness.evaluate(model, {"tasks": {task.task_name: task for task in tasks}}, with_chat, ending=closed_by)
        for tasks, with_chat, closed_by in ((questions, chat, ending), (texts, False, ""))
    )
    written = {}
    for side, rows in plan.written.items():
        written[side] = write_answers(
            model.model, model.tokenizer, [str(row["question"]) for row in rows], chat=chat,
            most_tokens=settings.answer_tokens, batch_size=settings.batch_size,
        )  # fmt: skip
        counter.add(len(rows))
    return _Answers(chat, ending, model.unshared, chosen, read, written)


def _records(plan: ExamPlan, answers: _Answers) -> list[dict[str, Any]]:
    """Return one record per question, in the order asked."""
    check = LanguageCheck(row for rows in plan.questions.values() for row in rows)
    records = []
    for side, rows in plan.questions.items():
        samples = {s["doc"]["id"]: s for s in answers.chosen["samples"].get(_name("questions", side), ())}
        ids = (row["id"] for row in plan.written.get(side, ()))
        written = dict(zip(ids, answers.written.get(side, ()), strict=True))
        records += [_record(side, row, samples.get(row["id"]), written.get(row["id"]), check) for row in rows]
    return records


def _record(
    side: str, row: Row, sample: Mapping[str, Any] | None, written: Written | None, check: LanguageCheck
) -> dict[str, Any]:
    """Return what was chosen or written for one question, and whether it is right."""
    record = {
        "id": row["id"],
        "side": PROBE if "probe" in row else side,
        "task": _name("questions" if sample is not None else "written", side),
        **{key: row[key] for key in ("source", "language", "probe") if key in row},
    }
    if sample is not None:
        scores = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
        require_finite([("the log-likelihood of a choice", scores)], f"Question {row['id']} of the exam", DIVERGED)
        record |= {
            "answer": row["answer"],
            "predicted": max(range(len(scores)), key=scores.__getitem__),  # the first of equals, as the harness does
            "correct": bool(sample["acc"]),
            "scores": [round(score, SCORE_DIGITS) for score in scores],
        }
    if written is None:
        return record
    reference = row if sample is None else {"answers": [row["choices"][row["answer"]]], "match": "text", "final": None}
    exact, f1 = mark(reference, written.text)
    record |= {"written": written.text, "stopped": written.stopped, "exact": exact, "f1": round(f1, SCORE_DIGITS)}
    if sample is None:
        record |= {"answers": list(row["answers"]), "correct": exact}
    if check.languages and "language" in row:
        record["in_language"] = check.is_in(written.text, str(row["language"]))
    return record


def _documents(plan: ExamPlan, answers: _Answers) -> list[dict[str, Any]]:
    """Return one record per held-out text, in the order of the texts."""
    documents = []
    for side, rows in plan.texts.items():
        read = {s["doc_id"]: s["bits_per_byte"] for s in answers.read["samples"][_name("text", side)]}
        for index, row in enumerate(rows):
            likelihood, num_bytes = read[index]
            named = [("its log-likelihood", likelihood)]
            require_finite(named, f"Held-out text {index + 1} of the {side} side", DIVERGED)
            documents.append({
                "id": str(row.get("id") or hashlib.sha256(row["text"].encode()).hexdigest()[:16]),
                "side": side,
                **{key: row[key] for key in ("source", "language") if key in row},
                "bits": round(-likelihood / math.log(2), SCORE_DIGITS),
                "bytes": num_bytes,
            })  # fmt: skip
    return documents


def _languages(rows: Sequence[Row]) -> list[str]:
    """Return the languages of the rows; none where there is only one."""
    found = sorted({str(row["language"]) for row in rows if row.get("language")})
    return found if len(found) > 1 else []


class _Counter:
    """Counts the sequences that went through the model and reports them.

    Choices of one token share a pass and long documents take several, so the count is not exact before the end.
    """

    def __init__(self, total: int, progress: harness.Progress | None) -> None:
        self.total, self.done = total, 0
        self.progress = progress or (lambda done, total: None)
        self.progress(0, total)

    def add(self, num_sequences: int) -> None:
        self.done = min(self.total, self.done + num_sequences)
        self.progress(self.done, self.total)


def _name(part: str, side: str) -> str:
    return f"exam_{side}_{part}"


def _describe(results: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"version": version, **form} for name, version in results["versions"].items()}
