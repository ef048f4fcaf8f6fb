"""The chain in one small JSON file, `summary.json`, for scripts and for `status`.

Usage: `write_json(out / "summary.json", build_summary(chain, domain=…, profile=…, pipeline=…).model_dump())`;
`Summary.model_validate_json(text)` reads it back. Its keys:

    {"domain", "profile", "pipeline", "total_seconds",
     "checkpoints": [{"name", "stage", "fingerprint", "parent",
                      "exam": {"general": {"score", "n", "low", "high"} | null, "domain": …},
                      "bits_per_byte": {"general": float | null, "domain": …},
                      "tokens", "seconds", "tokens_per_second"}]}

Checkpoints are in pipeline order; `name` and `stage` are the stage's name; `total_seconds` adds the wall time of
every model stage and exam. It is a summary: recipes, data and lineage are in `card.json`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from common.config.base import Frozen
from common.report.chain import SIDES, Chain, Checkpoint

Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Result(Frozen):
    """One side of the exam: share of right answers with its 95% interval."""

    score: Score
    n: int = Field(gt=0)
    low: Score
    high: Score

    @model_validator(mode="after")
    def _ordered(self) -> Result:
        if not self.low - 1e-9 <= self.score <= self.high + 1e-9:
            raise ValueError(f"score {self.score} lies outside its interval [{self.low}, {self.high}]")
        return self


class Exam(Frozen):
    """Both sides of the exam; None where a side was not sat."""

    general: Result | None
    domain: Result | None


class BitsPerByte(Frozen):
    """How well held-out text of both sides is predicted; lower is better."""

    general: Amount | None
    domain: Amount | None


class CheckpointSummary(Frozen):
    """One checkpoint: where it comes from, what it scores, what it cost."""

    name: str
    stage: str
    fingerprint: str
    parent: str | None
    exam: Exam
    bits_per_byte: BitsPerByte
    tokens: int = Field(ge=0)
    seconds: Amount
    tokens_per_second: Amount


class Summary(Frozen):
    """The whole chain."""

    domain: str
    profile: str
    pipeline: str
    total_seconds: Amount
    checkpoints: tuple[CheckpointSummary, ...] = Field(min_length=1)


def build_summary(chain: Chain, *, domain: str, profile: str, pipeline: str) -> Summary:
    """Return the summary of a chain. Raises pydantic's ValidationError where an exam is not what it should be."""
    return Summary(
        domain=domain,
        profile=profile,
        pipeline=pipeline,
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
        exam=Exam(**{side: _result(checkpoint.score(side)) for side in SIDES}),
        bits_per_byte=BitsPerByte(**{side: checkpoint.bits(side) for side in SIDES}),
        tokens=int(facts.get("tokens") or 0),
        seconds=float(facts.get("seconds") or 0.0),
        tokens_per_second=float(facts.get("tokens_per_second") or 0.0),
    )


def _result(facts: dict[str, Any] | None) -> Result | None:
    """Take the four numbers of a score; further keys of an exam are none of the summary's."""
    return None if facts is None else Result(**{key: facts[key] for key in ("score", "n", "low", "high")})
