"""The chain as JSON: `card.json` for everything, and the small `summary.json` for scripts and for `status`.

Usage: `write_json(out / "summary.json", build_summary(chain, choice, domain=…, profile=…, pipeline=…).model_dump())`;
`Summary.model_validate_json(text)` reads it back; `build_record(chain, comparisons, texts, facts)` returns card.json.

card.json copies only the fields named here from manifests, so that a field added later, such as a path, does not leak.
It is a record, not a recipe: the settings in it cannot be run as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator

from common.config.base import Frozen
from common.evaluation.comparison import Comparison, TextComparison
from common.report.chain import SIDES, Chain, Checkpoint
from common.report.sequence import sequence_record
from common.report.tables import merged_sources

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
SCHEMA = 1
MANIFEST_FIELDS = (
    "stage", "kind", "fingerprint", "parent", "inputs", "digest", "recipe", "settings", "metrics", "tokens", "seconds",
    "train_seconds", "tokens_per_second", "rows", "versions", "git", "seed", "created", "code", "files",
)  # fmt: skip
HARDWARE_FIELDS = ("cpu", "cores", "memory_gb", "gpu")
EXAM_FIELDS = ("precision", "exam", "bits_per_byte", "texts", "tasks", "extra")


class Result(Frozen):
    """One side of the exam: share of right answers with its 95% interval."""

    score: Share
    n: int = Field(gt=0)
    low: Share
    high: Share

    @model_validator(mode="after")
    def _ordered(self) -> Result:
        if not self.low - 1e-9 <= self.score <= self.high + 1e-9:
            raise ValueError(f"score {self.score} is outside its interval [{self.low}, {self.high}]")
        return self


class CheckpointSummary(Frozen):
    """One checkpoint: where it comes from, what it scores, what it cost."""

    name: str
    stage: str  # the same as `name`
    fingerprint: str
    parent: str | None
    exam: dict[str, Result | None]  # by side; None where the side was not part of it
    bits_per_byte: dict[str, Amount | None]  # by side, of held-out text; lower is better
    tokens: int = Field(ge=0)
    seconds: Amount
    tokens_per_second: Amount


class Summary(Frozen):
    """The whole chain, checkpoints in pipeline order."""

    domain: str
    profile: str
    pipeline: str
    published: str | None = None  # name of the checkpoint that is published; older summaries do not say it
    choice: str = ""  # why it is that one, and what it costs against the best before it
    total_seconds: Amount  # wall time of every model stage and exam
    checkpoints: tuple[CheckpointSummary, ...] = Field(min_length=1)


def build_summary(chain: Chain, choice: str, *, domain: str, profile: str, pipeline: str) -> Summary:
    """Return the summary of a chain. Raises pydantic's ValidationError where an exam has wrong values."""
    return Summary(
        domain=domain,
        profile=profile,
        pipeline=pipeline,
        published=chain.published,
        choice=choice,
        total_seconds=sum(float(m.get("seconds", 0.0)) for m in chain.manifests.values()),
        checkpoints=tuple(_summarise(checkpoint) for checkpoint in chain.checkpoints),
    )


def _summarise(checkpoint: Checkpoint) -> CheckpointSummary:
    facts = checkpoint.manifest
    return CheckpointSummary(
        name=checkpoint.name,
        stage=checkpoint.name,
        fingerprint=str(facts["fingerprint"]),
        parent=facts.get("parent"),
        exam={side: _result(checkpoint.score(side)) for side in SIDES},
        bits_per_byte={side: checkpoint.bits(side) for side in SIDES},
        tokens=int(facts.get("tokens") or 0),
        seconds=float(facts.get("seconds") or 0.0),
        tokens_per_second=float(facts.get("tokens_per_second") or 0.0),
    )


def _result(facts: dict[str, Any] | None) -> Result | None:
    """Take the four numbers of a score; a summary has no further keys of an exam."""
    return None if facts is None else Result(**{key: facts[key] for key in ("score", "n", "low", "high")})


def build_record(
    chain: Chain, comparisons: Sequence[Comparison], texts: Sequence[TextComparison], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record; `facts` are those of the run (domain, profile, pipeline, licence, …) and come first."""
    return {
        "schema": SCHEMA,
        **facts,
        "published": chain.published,
        "stages": {name: _stage(manifest) for name, manifest in chain.manifests.items()},
        "exams": {c.name: _exam(c.exam) for c in chain.checkpoints if c.exam},
        "comparisons": [{**asdict(c), "proven": c.proven} for c in comparisons],
        "text_comparisons": [{**asdict(c), "proven": c.proven} for c in texts],
        "sources": merged_sources(chain),
        **sequence_record(chain),
    }


def _exam(exam: Mapping[str, Any]) -> dict[str, Any]:
    missing = {"left_out": exam["left_out"]} if exam.get("left_out") else {}
    return {key: exam.get(key) for key in EXAM_FIELDS} | missing


def _stage(manifest: Mapping[str, Any]) -> dict[str, Any]:
    hardware = manifest.get("hardware") or {}
    return {
        **{key: manifest.get(key) for key in MANIFEST_FIELDS},
        "hardware": {key: hardware.get(key) for key in HARDWARE_FIELDS},
    }
