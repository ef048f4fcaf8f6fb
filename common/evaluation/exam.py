"""One checkpoint sits the exam: questions of both sides, chosen or written, and held-out texts by bits per byte.

Usage: `result = run_exam(folder, ExamQuestions(questions, texts), EvaluateSettings(), device="cpu", work=scratch)`.

Questions with choices are scored by log-likelihood, by lm-evaluation-harness; questions without are answered in
writing (`common.evaluation.written`). It measures one checkpoint and compares none (`common.evaluation.gate`); writing
the results down is `common.stages.evaluate`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.stages import EvaluateSettings
from common.errors import DataError
from common.evaluation import extra, harness
from common.evaluation.languages import LanguageCheck
from common.evaluation.scores import by_language, by_probe, by_source, language_scores, score_of, written_scores
from common.evaluation.tasks import write_question_task, write_text_task
from common.evaluation.written import Written, mark, write_answers

SIDES = ("general", "domain")
SCORE_DIGITS = 4  # of log-likelihoods in the records; float32 is not reproducible beyond
PROBE = "probe"  # side of the records that count in no score of the exam
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ExamQuestions:
    """What is asked: question rows and text rows by side, `general` and `domain`; a side may be missing.

    A question has `choices` and the place of the right `answer`, or `answers` (texts, any of them right), `match` and
    `final`. With a `probe` it shows something and counts in no side's score.
    """

    questions: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came out; `to_json` is the exam.json of one checkpoint."""

    exam: dict[str, dict[str, Any] | None]  # side -> score, n, low, high
    bits_per_byte: dict[str, float | None]
    tasks: dict[str, dict[str, Any]]  # harness task -> version and how it was asked
    extra: dict[str, dict[str, float]]  # further harness task -> metric -> value
    records: list[dict[str, Any]]  # one per question, in the order of the paper
    written: dict[str, dict[str, Any]] = field(default_factory=dict)  # side -> exact, stopped, f1, in_language
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)  # label -> score, n, low, high
    languages: dict[str, dict[str, Any]] = field(default_factory=dict)  # code -> score, bits per byte, fertility
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)  # source -> score, where a side has several

    def to_json(self, checkpoint: str) -> dict[str, Any]:
        parts = ("exam", "bits_per_byte", "tasks", "extra", "written", "probes", "languages", "sources")
        return {"checkpoint": checkpoint, **{part: getattr(self, part) for part in parts}}


def run_exam(
    checkpoint: Path,
    paper: ExamQuestions,
    settings: EvaluateSettings,
    *,
    device: str,
    work: Path,
    progress: harness.Progress | None = None,
    trust_remote_code: bool = False,
    task_folders: tuple[Path, ...] = (),
) -> Result:
    """Examine the checkpoint in a folder and return what it scored; `work` is scratch for the task files.

    `progress(done, total)` counts sequences; `task_folders` hold further harness task files. Raises ConfigError for a
    harness task that does not exist and DataError for one whose data cannot be had, for malformed questions, and for
    an exam without anything in it.
    """
    questions, texts = _select(paper, settings)
    import torch

    extra_tasks = extra.load(settings.tasks, task_folders)  # first: a misspelt name should not cost a whole exam
    sheet = _Sheet(questions, texts, settings)
    counter = _Counter(sheet, progress)
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
        answers = _ask(model, sheet, settings, folder, counter)
        further = extra.evaluate(model, extra_tasks, answers.chat, settings.limit)
        own = texts.get("domain", [])
        languages = by_language(
            model.tokenizer, _languages([*questions.get("domain", []), *own]), own,
            answers.read["samples"].get(_name("text", "domain"), []),
        )  # fmt: skip
        del model
    harness.free(device)
    counter.finish()
    shutil.rmtree(folder, ignore_errors=True)  # there is none when only further tasks were asked for
    records = _records(sheet, answers)
    form = {"asked": "chat" if answers.chat else "plain", "ending": answers.ending}
    return Result(
        exam={side: score_of([r["correct"] for r in records if r["side"] == side]) for side in SIDES},
        bits_per_byte={
            side: answers.read["results"][_name("text", side)]["bits_per_byte,none"] if side in texts else None
            for side in SIDES
        },
        tasks=_describe(answers.asked, form) | _describe(answers.read, {}) | further.tasks,
        extra=further.scores,
        records=records,
        written=written_scores(records, SIDES),
        probes=by_probe(records),
        languages={code: {**language_scores(records, code), **facts} for code, facts in languages.items()},
        sources=by_source(records, SIDES),
    )


class _Sheet:
    """What one exam asks, by side: questions to choose an answer for, questions to write one to, texts to read."""

    def __init__(
        self, questions: Mapping[str, Sequence[Row]], texts: Mapping[str, Sequence[Row]], settings: EvaluateSettings
    ) -> None:
        self.questions, self.texts = questions, texts
        with_choices = {side: [row for row in rows if "choices" in row] for side, rows in questions.items()}
        to_write = {side: _to_write(side, rows, settings) for side, rows in questions.items()}
        self.chosen = {side: rows for side, rows in with_choices.items() if rows}
        self.written = {side: rows for side, rows in to_write.items() if rows}

    def num_sequences(self) -> int:
        """Return how many sequences go through the model."""
        choices = sum(len(row["choices"]) for rows in self.chosen.values() for row in rows)
        return choices + sum(len(rows) for side in (self.written, self.texts) for rows in side.values())


@dataclass(frozen=True)
class _Answers:
    """What the harness and the written part brought back."""

    chat: bool
    ending: str
    asked: dict[str, Any]
    read: dict[str, Any]
    wrote: dict[str, list[Written]]


def _ask(model: Any, sheet: _Sheet, settings: EvaluateSettings, folder: Path, counter: _Counter) -> _Answers:
    chat = settings.chat_template and bool(model.tokenizer.chat_template)
    ending = harness.answer_ending(model.tokenizer) if chat else ""
    _write_paper(folder, sheet.chosen, sheet.texts, chat=chat, ending=ending)
    questions = harness.local_tasks(folder, [_name("questions", side) for side in sheet.chosen])
    texts = harness.local_tasks(folder, [_name("text", side) for side in sheet.texts])
    return _Answers(
        chat,
        ending,
        harness.evaluate(model, questions, chat),
        harness.evaluate(model, texts, False),
        {side: _write(model, rows, settings, chat=chat, counter=counter) for side, rows in sheet.written.items()},
    )


def _records(sheet: _Sheet, answers: _Answers) -> list[dict[str, Any]]:
    """Return one record per question, in the order of the paper."""
    check = LanguageCheck(row for rows in sheet.questions.values() for row in rows)
    records = []
    for side, rows in sheet.questions.items():
        samples = {sample["doc"]["id"]: sample for sample in answers.asked["samples"].get(_name("questions", side), ())}
        ids = (row["id"] for row in sheet.written.get(side, ()))
        wrote = dict(zip(ids, answers.wrote.get(side, ()), strict=True))
        records += [_record(side, row, samples.get(row["id"]), wrote.get(row["id"]), check) for row in rows]
    return records


def _select(paper: ExamQuestions, settings: EvaluateSettings) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Return the questions and texts that the settings ask for, sides without any left out.

    Of too many, evenly spaced ones are taken, so that every source and language has its share.
    """
    questions = {
        side: _spread(list(paper.questions[side]), settings.limit) for side in SIDES if paper.questions.get(side)
    }
    documents = {side: [row for row in paper.texts.get(side, ()) if row["text"].strip()] for side in SIDES}
    texts = {side: _spread(kept, settings.text_documents) for side, kept in documents.items() if kept}
    if not (questions or texts or settings.tasks):
        raise DataError(
            "The exam has no questions, no held-out texts and no tasks; give the data sources of role eval, "
            "or set `tasks` of the evaluate stage."
        )
    return questions, texts


def _languages(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the languages of the domain's rows; none where there is only one."""
    found = sorted({str(row["language"]) for row in rows if row.get("language")})
    return tuple(found) if len(found) > 1 else ()


def _spread(rows: list[Row], most: int | None) -> list[Row]:
    return rows if most is None or len(rows) <= most else [rows[place * len(rows) // most] for place in range(most)]


def _to_write(side: str, rows: Sequence[Row], settings: EvaluateSettings) -> list[Row]:
    """Questions without choices must be written; those of the domain may be, to see what the choices hide."""
    return [row for row in rows if "choices" not in row or (settings.written and side == "domain")]


def _write(
    model: Any, rows: Sequence[Row], settings: EvaluateSettings, *, chat: bool, counter: _Counter
) -> list[Written]:
    answers = write_answers(
        model.model, model.tokenizer, [str(row["question"]) for row in rows], chat=chat,
        most_tokens=settings.answer_tokens, batch_size=settings.batch_size,
    )  # fmt: skip
    counter.add(len(rows))
    return answers


class _Counter:
    """Counts the sequences that went through the model and reports them."""

    def __init__(self, sheet: _Sheet, progress: harness.Progress | None) -> None:
        self.total = sheet.num_sequences()
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
    questions: Mapping[str, Sequence[Row]],
    texts: Mapping[str, Sequence[Row]],
    *,
    chat: bool,
    ending: str,
) -> None:
    for side, rows in questions.items():
        write_question_task(folder, _name("questions", side), rows, chat=chat, ending=ending)
    for side, documents in texts.items():
        write_text_task(folder, _name("text", side), documents)


def _record(
    side: str, row: Row, sample: Mapping[str, Any] | None, wrote: Written | None, check: LanguageCheck
) -> dict[str, Any]:
    """Put down one question: what was chosen or written, and whether it is right."""
    record = {
        "id": row["id"],
        "side": PROBE if "probe" in row else side,
        "task": _name("questions" if sample is not None else "written", side),
        **{key: row[key] for key in ("source", "language", "probe") if key in row},
    }
    if sample is not None:
        scores = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
        record |= {
            "answer": row["answer"],
            "predicted": max(range(len(scores)), key=scores.__getitem__),  # the first of equals, as the harness does
            "correct": bool(sample["acc"]),
            "scores": [round(score, SCORE_DIGITS) for score in scores],
        }
    if wrote is None:
        return record
    reference = row if sample is None else {"answers": [row["choices"][row["answer"]]], "match": "text", "final": None}
    exact, f1 = mark(reference, wrote.text)
    record |= {"written": wrote.text, "stopped": wrote.stopped, "exact": exact, "f1": round(f1, SCORE_DIGITS)}
    if sample is None:
        record |= {"answers": list(row["answers"]), "correct": exact}
    if check.languages and "language" in row:
        record["in_language"] = check.is_in(wrote.text, str(row["language"]))
    return record


def _describe(results: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"version": version, **form} for name, version in results["versions"].items()}
