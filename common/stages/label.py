"""Let a checkpoint choose the likeliest label of each prompt, and write prompt and label down as texts for CPT.

Usage: named by a pipeline as `label: {kind: label, from: few}`; then `prompted: {kind: cpt, from: cpt, with: [label]}`
learns from its texts.

Prompt-based continued pre-training (PCP, arXiv 2305.01711): a model that was fine-tuned on a few labels labels the
task's other texts, and continues pre-training on each text in its template with that label. There the model is masked
and only some tokens are learned; the version here is for causal models and learns every token, which is ours. The label
is the one with the highest log-likelihood as the answer to the prompt, through the chat template and with the stop
token: exams choose in the same way (`common.evaluation.exam`). No right answer is read for that; where prompts have
some, the share of labels that are right is measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from common.config.answering import LabelSettings
from common.config.kinds import Kind
from common.config.stages import EvaluateSettings
from common.data.accounting import check_limits
from common.data.manifest.questions import LETTERS
from common.errors import DataError
from common.models import checkpoint
from common.stage import StageContext, StageReport
from common.store.artifacts import write_rows
from common.training.loop import memory
from common.training.rows.prompts import read_prompts
from common.training.rows.reader import SAMPLED_FILES

Row = dict[str, Any]
LABELS = "labels.jsonl"  # every prompt with its label and the log-likelihoods, for people
MOST_WORDS = 100  # different answers of all prompts that are taken for the labels of a task
SHOWN = 20  # labels whose number is among the metrics
SEVERAL, SYSTEM, NARROW = "more than one turn", "a system text", "below margin"  # why a prompt gives no text


def run(context: StageContext) -> StageReport:
    """Write the texts. Raises DataError where no label is known, or no prompt is left."""
    from common.evaluation.exam import ExamQuestions
    from common.evaluation.scores import share_of
    from common.evaluation.sitting import examine

    settings = cast(LabelSettings, context.settings)
    tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    rows, counts = read_prompts(context, tokenizer)
    check_limits(counts, settings.limits, context.stage)
    asked, left_out = questions_of(rows, settings, context.stage)
    require_left(asked, left_out, context.stage)
    exam = ExamQuestions({"domain": asked})
    with memory.phase(memory.EVALUATING):
        result = examine(context, exam, EvaluateSettings(batch_size=settings.batch_size), "labels")
    found = labelled(asked, [record["scores"] for record in result.records])
    kept = [one for one in found if one["lead"] >= settings.margin]
    left_out[NARROW] += len(found) - len(kept)
    require_left(kept, left_out, context.stage)
    write_rows(context.out / LABELS, found)
    write_rows(context.out / SAMPLED_FILES["cpt"], (text_row(one, settings.template) for one in kept))
    known = [{"right": one["label"] == one["known"]} for one in kept if one["known"] is not None]
    metrics: dict[str, Any] = {
        "prompts": len(found), "texts": len(kept), "left_out": {name: n for name, n in left_out.items() if n},
        "labels": dict(Counter(one["label"] for one in kept).most_common(SHOWN)),
    }  # fmt: skip
    if known:
        metrics["right"] = share_of(known, "right")
    return StageReport(metrics=metrics, rows=[one.as_dict() for one in counts], sources=context.corpus.sources())


def questions_of(rows: Sequence[Row], settings: LabelSettings, stage: str) -> tuple[list[Row], Counter[str]]:
    """Return prompts as questions of an exam whose choices are the labels, and how many were left out and why.

    Raises DataError where neither settings nor prompts say what the labels are.
    """
    roles = [[turn["role"] for turn in row["prompt"]] for row in rows]
    single = [row for row, own in zip(rows, roles, strict=True) if own == ["user"]]
    left_out = Counter(SYSTEM if own == ["system", "user"] else SEVERAL for own in roles if own != ["user"])
    answers = list(dict.fromkeys(str(row["answer"]) for row in single if row.get("answer") is not None))
    asked: list[Row] = []
    for number, row in enumerate(single[: settings.prompts]):
        labels = list(settings.words) or _lettered(row.get("choices") or ()) or answers
        if len(labels) < 2 or (labels is answers and len(labels) > MOST_WORDS):
            raise DataError(
                f"Stage {stage}: the prompts of source '{row['source']}' have no choices, and {len(answers)} different "
                f"answers, which say what the labels of a task are where they are 2 to {MOST_WORDS}. Name them: "
                f"{stage}.words=[…]."
            )
        found: Row = {key: row[key] for key in ("source", "language") if key in row}
        found |= {"known": str(row["answer"]) if row.get("answer") is not None else None}
        question = row["prompt"][0]["content"]
        asked.append({"id": str(number), "question": question, "choices": labels, "answer": 0, **found})
    return asked, left_out


def require_left(prompts: Sequence[Row], left_out: Mapping[str, int], stage: str) -> None:
    """Raise DataError that says why no prompt is left."""
    if prompts:
        return
    ways = {
        NARROW: f"lower {stage}.margin",
        SYSTEM: "set system_turns: fold in the sources of these prompts",
        SEVERAL: "add sources with role: prompts whose prompts are one question",
    }
    reasons = [reason for reason in ways if left_out.get(reason)] or [SEVERAL]
    counted = ", ".join(f"{reason}: {left_out[reason]:,}" for reason in reasons if left_out.get(reason)) or "none came"
    way = ", or ".join(ways[reason] for reason in reasons)
    raise DataError(f"Stage {stage}: no prompt is left to label ({counted}). {way[0].upper()}{way[1:]}.")


def _lettered(choices: Sequence[str]) -> list[str]:
    """Return choices as prompts list them and conversations answer: "B. moss"."""
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]


def labelled(asked: Sequence[Row], scores: Sequence[Sequence[float]]) -> list[Row]:
    """Return each question with its likeliest label, the first of equals, and its lead over the second in nats."""
    found: list[Row] = []
    for question, own in zip(asked, scores, strict=True):
        best, second = sorted(own, reverse=True)[:2]
        label = question["choices"][max(range(len(own)), key=own.__getitem__)]
        facts: Row = {key: question[key] for key in ("question", "known", "source", "language") if key in question}
        found.append({**facts, "label": label, "lead": round(best - second, 4), "scores": list(own)})
    return found


def text_row(one: Mapping[str, Any], template: str) -> Row:
    """Return the text that CPT reads: the prompt and its label in their template."""
    parts: dict[str, str] = {"{text}": one["question"], "{label}": one["label"]}
    text = "".join(parts.get(piece, piece) for piece in re.split(r"(\{text\}|\{label\})", template))
    kept = {"language": one["language"]} if "language" in one else {}
    return {"text": text, "source": f"{one['source']} (labelled)", **kept}


KIND = Kind(
    name="label", settings=LabelSettings, run=run, makes="labelled text", roles=("prompts",), seconds=20.0,
    phrase="labels for the task's texts by their likelihood",
)  # fmt: skip
