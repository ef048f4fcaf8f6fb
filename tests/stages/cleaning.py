"""Small manifests with blocks, and the stages that clean their rows, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.plan import Plan
from common.engine.run import run_stage
from common.store.artifacts import Artifact
from tests.conftest import REPOSITORY
from tests.data.manifest.manifests import write_rows

EXAM = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit",
        "columns": {"question": "question", "answer": "answer"}, "choices": ["yes", "no"]}  # fmt: skip
BOOK = {"id": "book", "role": "cpt", "path": "book.jsonl", "licence": "mit"}
CHAT = {"id": "chat", "role": "sft", "path": "chat.jsonl", "licence": "mit"}
LENGTH = [{"length": {"words": [4, None]}}]
QUESTION = "Which of the two medicines is given first to patients of this kind?"


def made(tmp_path: Path) -> Path:
    """Write texts of which every fifth is too short and one repeats the exam, conversations, and an exam."""
    texts = ["Too short." if i % 5 == 0 else f"This is the text number {i} of the book." for i in range(20)]
    write_rows(tmp_path / "book.jsonl", [{"text": text} for text in [*texts, f"Once more: {QUESTION} Yes."]])
    write_rows(tmp_path / "chat.jsonl", [{"question": f"What is {i} and one?", "answer": str(i + 1)} for i in range(9)])
    write_rows(tmp_path / "exam.jsonl", [{"question": QUESTION, "answer": "yes"}])
    return tmp_path


def resolved(folder: Path, blocks: Any = LENGTH, *sources: dict[str, Any], **words: str) -> Resolved:
    top = {"title": "T", "sources": list(sources or (BOOK, CHAT, EXAM))}
    top |= {} if blocks is None else {"blocks": blocks}
    (folder / "data.yaml").write_text(yaml.safe_dump(top), encoding="utf-8")
    given = {"domain": "medical", "data": str(folder / "data.yaml"), "out": str(folder / "out"), **words}
    return resolve({"pipeline": "cpt-sft", **given}, REPOSITORY)


def cleaned(run: Resolved, name: str = "data-cpt") -> Artifact:
    return run_stage(run, name, Console("quiet"))


def state(plan: Plan, name: str) -> str:
    return next(step.state for step in plan.steps if step.node.name == name)
