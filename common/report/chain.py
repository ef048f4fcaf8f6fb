"""Reads a finished chain: every checkpoint with its manifest, its exam and its answers, in pipeline order.

Usage: `chain = load_chain(context.inputs)`; then `chain.checkpoints`, `chain["sft"].exam`, `chain.ancestors("dpo")`.

Local paths are removed from everything that is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.config.cleaning import PREFIX
from common.config.json import parse_json
from common.config.kinds import Part, kind_of
from common.config.node import Node
from common.data.cleaned import SAMPLES
from common.data.tokens import TokenCounter, tokens_of_sources
from common.errors import ContractError
from common.evaluation.joint import Sat, join
from common.evaluation.scores import SIDES as SIDES
from common.report.privacy import clean
from common.store.artifacts import Artifact

EXAM_KIND = "evaluate"
LANGUAGE_MODEL, TOKENIZER = "language model", "tokenizer.json"


@dataclass(frozen=True)
class LossCurve:
    """Training loss by tokens seen, in the order of training."""

    tokens: list[float]
    loss: list[float]


@dataclass(frozen=True)
class Checkpoint:
    """One model of the chain with everything that is known about it."""

    name: str
    kind: str
    parent: str | None
    manifest: Mapping[str, Any]
    exam: Mapping[str, Any]  # exam.json, or {} for a checkpoint without an exam
    records: Sequence[Mapping[str, Any]]  # of the exam, one per question
    curve: LossCurve
    rewards: Mapping[int, float] = field(default_factory=dict)  # step -> mean reward, of a stage that trains on rewards
    texts: Sequence[Mapping[str, Any]] = ()  # of the exam, one per held-out text
    control: bool = False  # whether the pipeline marks it as a control arm
    domain: str = ""  # of a sequence: the one whose text it read last; "": none by itself
    exams: Mapping[str, Sat] = field(default_factory=dict)  # of a sequence: what `exam` sums up, by domain

    @property
    def part(self) -> Part | None:
        """The part that it plays in comparisons, by its kind."""
        return kind_of(self.kind).part

    def score(self, side: str) -> dict[str, Any] | None:
        """Return {"score", "n", "low", "high"} of one side of the exam, or None."""
        result: dict[str, Any] | None = (self.exam.get("exam") or {}).get(side)
        return result

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.manifest.get("metrics") or {}

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest.get("settings") or (self.manifest.get("recipe") or {}).get("settings") or {}

    @property
    def is_adapted(self) -> bool:
        return bool(self.settings.get("peft", "full") != "full")

    def bits(self, side: str) -> float | None:
        """Return the bits per byte of one side's held-out text, or None."""
        value: float | None = (self.exam.get("bits_per_byte") or {}).get(side)
        return value

    def text_score(self, side: str) -> dict[str, Any] | None:
        """Return {"bits_per_byte", "n", "bytes", "low", "high"} of one side's held-out text, or None."""
        result: dict[str, Any] | None = (self.exam.get("texts") or {}).get(side)
        return result


@dataclass(frozen=True)
class Chain:
    """All checkpoints in pipeline order, and the name of the one that the card describes."""

    checkpoints: tuple[Checkpoint, ...]
    published: str
    manifests: Mapping[str, Mapping[str, Any]]  # of every input, the exams included
    domains: tuple[str, ...] = ()  # of a sequence, in the order of training
    # What was computed of it and several parts of a card show, by its name; a changed chain begins without.
    computed: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __getitem__(self, name: str) -> Checkpoint:
        return next(c for c in self.checkpoints if c.name == name)

    def __contains__(self, name: object) -> bool:
        return any(c.name == name for c in self.checkpoints)

    def choices(self, side: str) -> list[Mapping[str, Any]]:
        """Return the records of a side's questions with choices, of the first checkpoint that was asked some."""
        asked = ([r for r in c.records if r["side"] == side and r.get("scores")] for c in self.checkpoints)
        return next(filter(None, asked), [])

    def chance(self, side: str) -> float | None:
        """Return the mean of 1 / number of choices over a side's questions, or None without any."""
        choices = self.choices(side)
        return sum(1.0 / len(r["scores"]) for r in choices) / len(choices) if choices else None

    def ancestors(self, name: str) -> list[Checkpoint]:
        """Return the checkpoints that `name` continues from, itself first, the start of the chain last."""
        line: list[Checkpoint] = []
        current: str | None = name
        while current is not None and current in self and all(c.name != current for c in line):
            line.append(self[current])
            current = line[-1].parent
        return line


def load_chain(
    inputs: Mapping[str, Artifact], published: str | None = None, controls: Collection[str] = (),
    nodes: Sequence[Node] = (),
) -> Chain:  # fmt: skip
    """Read every artifact of a chain. `published` is the card's model; without it, the last of the pipeline.

    `controls` names the pipeline's control arms. `nodes` say of a sequence of domains which exam is whose; the exam of
    a checkpoint is then that of all domains together.

    Raises ContractError when there is no checkpoint, or an exam lacks a file.
    """
    manifests = {name: clean(dict(artifact.manifest)) for name, artifact in inputs.items()}
    manifests |= {name: _with_tokens(inputs, manifests[name], name) for name in inputs if name.startswith(PREFIX)}
    models = [name for name in inputs if kind_of(manifests[name]["kind"]).makes == LANGUAGE_MODEL]
    if not models:
        raise ContractError(
            f"The card has no model to describe; its inputs are {', '.join(inputs) or 'none'}. "
            "A pipeline needs a model stage before its card."
        )
    found = {name: _read_sat(a.path) for name, a in inputs.items() if manifests[name]["kind"] == EXAM_KIND}
    sets: dict[str, dict[str, Sat]] = {}  # checkpoint -> domain -> exam
    for node in nodes:
        if node.name in found and node.domain:
            sets.setdefault(str(node.parent), {})[node.domain] = found[node.name]
    exams = {str(sat.scores["checkpoint"]): sat for sat in found.values()}
    exams |= {name: join(name, by_domain) for name, by_domain in sets.items()}
    domains = tuple(dict.fromkeys(domain for by_domain in sets.values() for domain in by_domain))
    if domains:
        manifests |= {node.name: _as_called(manifests[node.name], node) for node in nodes if node.name in manifests}
    owners = {n.name: n.domain for n in nodes if kind_of(n.kind).roles and not kind_of(n.kind).starts}
    checkpoints = tuple(
        replace(
            _checkpoint(name, inputs[name], manifests[name], exams.get(name), control=name in controls),
            domain=owners.get(name, ""), exams=sets.get(name, {}),
        )
        for name in models
    )  # fmt: skip
    return Chain(checkpoints, str(published if published in models else models[-1]), manifests, domains)


def _as_called(manifest: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Return a manifest with the names that a sequence gives stages, where a run of one domain calls them otherwise."""
    names = {node.called(name): name for name in node.inputs}
    inputs = {names.get(name, name): facts for name, facts in manifest.get("inputs", {}).items()}
    return {**manifest, "stage": node.name, "parent": node.parent, "inputs": inputs}


def _with_tokens(inputs: Mapping[str, Artifact], manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest of a stage that cleans, with the tokens of each source by the chain's first tokenizer."""
    models = (one.path / TOKENIZER for one in inputs.values() if kind_of(one.manifest["kind"]).makes == LANGUAGE_MODEL)
    tokenizer = next((path for path in models if path.is_file()), None)
    if tokenizer is None or not (inputs[name].path / SAMPLES).is_file():  # of one made before results held samples
        return manifest
    found = tokens_of_sources(inputs[name].path, TokenCounter(tokenizer))
    return {
        **manifest,
        "rows": [
            {**row, "tokens_in": str(one.before), "tokens_left": str(one.left)}
            for row in manifest["rows"]
            if (one := found.get(row["source"])) is not None
        ],
    }


def _checkpoint(
    name: str, artifact: Artifact, manifest: Mapping[str, Any], sat: Sat | None, *, control: bool
) -> Checkpoint:
    log = read_lines(artifact.path / "log.jsonl")
    return Checkpoint(
        name=name,
        kind=str(manifest["kind"]),
        parent=_parent_of(manifest),
        manifest=manifest,
        exam=sat.scores if sat else {},
        records=sat.records if sat else [],
        curve=read_curve(log),
        rewards={int(line["step"]): float(line[name]) for line in log if (name := _rewarding(line))},
        texts=sat.texts if sat else [],
        control=control,
    )


def _rewarding(line: Mapping[str, Any]) -> str:
    """Return which number of a line of the log is the mean reward; of RL pre-training it is that of predictions."""
    return next((name for name in ("predicted", "reward") if line.get(name) is not None), "")


def _parent_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the stage it continues from; a merge that names none is compared with its last ingredient."""
    parent = manifest.get("parent")
    if parent is None and kind_of(manifest["kind"]).part == "merge" and manifest.get("inputs"):
        parent = list(manifest["inputs"])[-1]
    return str(parent) if parent is not None else None


def _read_sat(folder: Path) -> Sat:
    scores = clean(_read_exam(folder))
    return Sat(scores, read_lines(folder / "records.jsonl"), read_lines(folder / "texts.jsonl"))


def _read_exam(folder: Path) -> dict[str, Any]:
    try:
        exam = parse_json((folder / "exam.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(
            f"The exam in {folder.name} has no readable exam.json ({error.__class__.__name__}). "
            "Run it again with `just rerun stage=<exam>`."
        ) from error
    if not isinstance(exam, dict) or "checkpoint" not in exam:
        raise ContractError(f"exam.json in {folder.name} does not say which checkpoint it is about (key `checkpoint`).")
    return exam


def read_curve(log: Iterable[Mapping[str, Any]]) -> LossCurve:
    """Return the training loss of a log; a step that was logged twice, after a resume, counts once."""
    points = {
        float(line["tokens"]): float(line["loss"])
        for line in log
        if line.get("loss") is not None and line.get("tokens") is not None
    }
    return LossCurve(sorted(points), [points[t] for t in sorted(points)])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file; a missing file has none, an incomplete last line is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            if number == len(lines):
                break  # the run was killed while it wrote this line
            raise ContractError(
                f"{path.name} of {path.parent.name}, line {number} is not JSON. Run that stage again with `just rerun`."
            ) from error
    return rows


def counterpart(chain: Chain, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint of the same kind that trained all weights from the same parent, or from its counterpart."""
    if not checkpoint.is_adapted:
        return None
    parent = chain[checkpoint.parent] if checkpoint.parent and checkpoint.parent in chain else None
    twin = counterpart(chain, parent) if parent is not None else None
    parents = {checkpoint.parent, twin.name if twin else checkpoint.parent}
    return next(
        (c for c in chain.checkpoints if c.kind == checkpoint.kind and c.parent in parents and not c.is_adapted), None
    )
