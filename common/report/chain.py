"""Read a finished chain: every checkpoint with its manifest, its exam and its answers, in pipeline order.

Usage: `chain = load_chain(context.inputs)`; then `chain.checkpoints`, `chain["sft"].exam`, `chain.ancestors("dpo")`.

What is read is cleaned of local paths at once. It only reads: numbers are compared in `common.report.comparisons`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.kinds import Part, kind_of
from common.errors import ContractError
from common.report.privacy import clean
from common.store.artifacts import Artifact

SIDES = ("general", "domain")
EXAM_KIND = "evaluate"


@dataclass(frozen=True)
class LossCurve:
    """Training loss by tokens seen, in the order of training."""

    tokens: list[float]
    loss: list[float]


@dataclass(frozen=True)
class Checkpoint:
    """One model of the chain with everything that is known of it."""

    name: str
    kind: str
    parent: str | None
    manifest: Mapping[str, Any]
    exam: Mapping[str, Any]  # exam.json, or {} where the checkpoint sat no exam
    records: Mapping[tuple[str, str, str], Mapping[str, Any]]  # (side, task, question id) -> record
    curve: LossCurve
    rewards: Mapping[int, float] = field(default_factory=dict)  # step -> mean reward, where rewards were learned from

    @property
    def part(self) -> Part | None:
        """The part that it plays in comparisons, by its kind."""
        return kind_of(self.kind).part

    def score(self, side: str) -> dict[str, Any] | None:
        """Return {"score", "n", "low", "high"} of one side of the exam, or None."""
        result: dict[str, Any] | None = (self.exam.get("exam") or {}).get(side)
        return result

    def bits(self, side: str) -> float | None:
        """Return the bits per byte of one side's held-out text, or None."""
        value: float | None = (self.exam.get("bits_per_byte") or {}).get(side)
        return value


@dataclass(frozen=True)
class Chain:
    """All checkpoints in pipeline order, and the one that the card is about."""

    checkpoints: tuple[Checkpoint, ...]
    published: str
    manifests: Mapping[str, Mapping[str, Any]]  # of every input, the exams included

    def __getitem__(self, name: str) -> Checkpoint:
        return next(c for c in self.checkpoints if c.name == name)

    def __contains__(self, name: object) -> bool:
        return any(c.name == name for c in self.checkpoints)

    def ancestors(self, name: str) -> list[Checkpoint]:
        """Return the checkpoints that `name` continues from, itself first, the start of the chain last."""
        line: list[Checkpoint] = []
        current: str | None = name
        while current is not None and current in self and all(c.name != current for c in line):
            line.append(self[current])
            current = line[-1].parent
        return line


def load_chain(inputs: Mapping[str, Artifact], published: str | None = None) -> Chain:
    """Read every artifact of a chain. `published` is the card's model; without it, the last of the pipeline.

    Raises ContractError when there is no checkpoint, or an exam lacks a file.
    """
    manifests = {name: clean(dict(artifact.manifest)) for name, artifact in inputs.items()}
    models = [name for name in inputs if kind_of(manifests[name]["kind"]).makes == "language model"]
    if not models:
        raise ContractError(
            f"The card got no checkpoint, only {', '.join(inputs) or 'nothing'}. "
            "A pipeline must have a model stage before its card."
        )
    exams = {_examined(artifact.path): artifact for name, artifact in inputs.items() if _is_exam(manifests[name])}
    checkpoints = tuple(_checkpoint(name, inputs[name], manifests[name], exams.get(name)) for name in models)
    chosen = published if published in models else models[-1]
    return Chain(checkpoints, str(chosen), manifests)


def _is_exam(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["kind"] == EXAM_KIND)


def _examined(folder: Path) -> str:
    """Return the name of the checkpoint that an exam is about."""
    return str(_read_exam(folder)["checkpoint"])


def _checkpoint(name: str, artifact: Artifact, manifest: dict[str, Any], exam: Artifact | None) -> Checkpoint:
    return Checkpoint(
        name=name,
        kind=str(manifest["kind"]),
        parent=_parent_of(manifest),
        manifest=manifest,
        exam=clean(_read_exam(exam.path)) if exam else {},
        records=_read_records(exam.path / "records.jsonl") if exam else {},
        curve=read_curve(artifact.path / "log.jsonl"),
        rewards={
            int(line["step"]): float(line["reward"])
            for line in _read_lines(artifact.path / "log.jsonl")
            if line.get("reward") is not None
        },
    )


def _parent_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the stage it continues from; a merge that names none is compared with its last ingredient."""
    parent = manifest.get("parent")
    if parent is None and kind_of(manifest["kind"]).part == "merge" and manifest.get("inputs"):
        parent = list(manifest["inputs"])[-1]
    return str(parent) if parent is not None else None


def _read_exam(folder: Path) -> dict[str, Any]:
    try:
        exam = json.loads((folder / "exam.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(
            f"The exam in {folder.name} has no readable exam.json ({error.__class__.__name__}). "
            "Run that exam again with `just rerun stage=<exam>`."
        ) from error
    if not isinstance(exam, dict) or "checkpoint" not in exam:
        raise ContractError(f"exam.json in {folder.name} does not say which checkpoint it is about (key `checkpoint`).")
    return exam


def _read_records(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    records = {}
    for record in _read_lines(path):
        records[(str(record["side"]), str(record["task"]), str(record["id"]))] = record
    return records


def read_curve(path: Path) -> LossCurve:
    """Return the training loss of a log; a step that was logged twice, after a resume, counts once."""
    points: dict[float, float] = {}
    for line in _read_lines(path):
        if line.get("loss") is not None and line.get("tokens") is not None:
            points[float(line["tokens"])] = float(line["loss"])
    tokens = sorted(points)
    return LossCurve(tokens, [points[t] for t in tokens])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file; a missing file has none, a torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break  # the run was cut while it wrote this line
            raise ContractError(
                f"{path.name} of {path.parent.name}, line {number} is not JSON. Run that stage again with `just rerun`."
            ) from error
    return rows


def settings_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    manifest = checkpoint.manifest
    settings: Mapping[str, Any] = manifest.get("settings") or (manifest.get("recipe") or {}).get("settings") or {}
    return settings


def is_adapted(checkpoint: Checkpoint) -> bool:
    return bool(settings_of(checkpoint).get("peft", "full") != "full")


def counterpart(chain: Chain, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint of the same kind that trained all weights from the same place, or from its counterpart."""
    if not is_adapted(checkpoint):
        return None
    parent = chain[checkpoint.parent] if checkpoint.parent and checkpoint.parent in chain else None
    twin = counterpart(chain, parent) if parent is not None else None
    places = {checkpoint.parent, twin.name if twin else checkpoint.parent}
    return next(
        (c for c in chain.checkpoints if c.kind == checkpoint.kind and c.parent in places and not is_adapted(c)), None
    )
