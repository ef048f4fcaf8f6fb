"""A hand-made chain: six checkpoints with logs, answers and manifests as the real stages leave them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.config.base import StageSettings
from common.config.forms import described
from common.config.schema import Config
from common.config.stages import CardSettings, PublishSettings
from common.stage import StageContext
from common.store.artifacts import Artifact, Store, fingerprint_of

# name -> (kind, parent, right answers of 60 general questions, of 60 domain questions, first and last loss)
CHAIN: dict[str, tuple[str, str | None, int, int, tuple[float, float] | None]] = {
    "base": ("base", None, 50, 16, (6.9, 1.9)),
    "sft-only": ("sft", "base", 44, 20, (2.4, 1.1)),
    "cpt": ("cpt", "base", 40, 38, (3.2, 1.2)),
    "sft": ("sft", "cpt", 33, 50, (1.9, 0.7)),
    "dpo": ("dpo", "sft", 33, 51, (0.69, 0.31)),
    "merge": ("merge", "dpo", 46, 49, None),
}
QUESTIONS = 60
DOCUMENTS = 40
BITS = {
    "base": 1.0,
    "sft-only": 1.0,
    "cpt": 0.8,
    "sft": 0.81,
    "dpo": 0.81,
    "merge": 0.84,
}  # of held-out text, times 1.5
TOKEN = "secret-" + "Zq7" * 8  # not of the Hub's usual form
RUN = {"domain": "medical", "profile": "tiny", "pipeline": "full", "model": {"architecture": {"hidden_size": 8}}}
SOURCE = {
    "id": "someone/notes", "role": "cpt", "title": "Ward notes", "licence": "cc-by-4.0", "revision": "a" * 40,
    "form": described({"qa": {}}),
}  # fmt: skip
HARDWARE = {"cpu": "Some CPU", "cores": 2, "memory_gb": 15.6, "gpu": None, "hostname": "secret-host"}
BuildChain = Callable[..., dict[str, Artifact]]
BuildContext = Callable[..., StageContext]


class Corpus:
    """The two things that the card asks a corpus for."""

    domain_title = "Medicine"

    def __init__(self, *sources: dict[str, Any]) -> None:
        self._sources = list(sources)

    def sources(self) -> list[dict[str, Any]]:
        return self._sources


def write_model(folder: Path, name: str, loss: tuple[float, float] | None) -> None:
    (folder / "config.json").write_text(json.dumps({"name": name}))
    (folder / "model.safetensors").write_bytes(name.encode() * 9)
    if loss is not None:
        first, last = loss
        noise = random.Random(name)
        lines = []
        for step in range(1, 61):
            value = last + (first - last) * math.exp(-step / 12) + noise.gauss(0, 0.04)
            lines.append({"step": step, "loss": value, "learning_rate": 1e-3, "tokens": step * 2048, "seconds": 1.0})
        lines.append({"step": 60, "train_runtime": 9.0})  # a line without a loss
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_exam(folder: Path, name: str, right: Mapping[str, int | None], choices: int = 4) -> None:
    from common.evaluation.statistics import wilson

    exam: dict[str, Any] = {"general": None, "domain": None}
    records = []
    for side, count in right.items():
        if count is None:
            continue
        low, high = wilson(count, QUESTIONS)
        exam[side] = {"score": count / QUESTIONS, "n": QUESTIONS, "low": low, "high": high}
        for number in range(QUESTIONS):
            record = {"id": f"q{number}", "side": side, "task": f"questions_{side}", "answer": number % choices}
            records.append({**record, "predicted": 0, "correct": number < count, "scores": [0.0] * choices})
    bits = {side: None if count is None else 1.5 for side, count in right.items()}
    documents = [
        {"id": f"d{number}", "side": side, "bits": 15.0 * number * BITS[name] + number % 3, "bytes": 10 * number}
        for side, count in right.items() if count is not None for number in range(1, DOCUMENTS + 1)
    ]  # fmt: skip
    (folder / "texts.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    facts = {"checkpoint": name, "exam": exam, "bits_per_byte": bits, "tasks": {}, "extra": {}}
    (folder / "exam.json").write_text(json.dumps(facts))
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def _manifest(stage: str, kind: str, parent: Artifact | None, place: Path, **more: Any) -> dict[str, Any]:
    inputs = {}
    if parent is not None:
        facts = {"stage": parent.stage, "fingerprint": parent.fingerprint, "digest": parent.digest}
        inputs[parent.stage] = facts
    recipe = {
        "kind": kind,
        "settings": {"batch_tokens": 2048, "data_at": str(place / "data" / "rows.jsonl"), "train": {"seed": 1}},
        "model": {"path": str(place / "weights")},
    }
    return {
        "stage": stage,
        "kind": kind,
        "fingerprint": fingerprint_of({"stage": stage}),
        "recipe": recipe,
        "inputs": inputs,
        "parent": parent.stage if parent else None,
        "metrics": {},
        "tokens": 0,
        "seconds": 2.0,
        "train_seconds": 0.0,
        "tokens_per_second": 0.0,
        "rows": [],
        "sources": [SOURCE],
        "versions": {"torch": "2.13.0", "trl": "1.16.0"},
        "git": {"commit": "c" * 40, "dirty": True},
        "seed": 7,
        "hardware": HARDWARE,
        "created": "2026-01-01T00:00:00+00:00",
        "code": {"digest": "d" * 64, "files": {"common/stages/sft.py": "e" * 64}},
        **more,
    }


def build(
    root: Path, right: Mapping[str, tuple[int | None, int | None]] | None = None, base: Mapping[str, Any] | None = None
) -> dict[str, Artifact]:
    """Commit the chain, or the part of it that `right` names with its own numbers of right answers.

    `base` is what a base stage notes of a checkpoint that it took.
    """
    store = Store(root / "store")
    store.artifacts.mkdir(parents=True)
    inputs: dict[str, Artifact] = {}
    names = list(right or CHAIN)
    for name in names:
        kind, parent, general, domain, loss = CHAIN[name]
        sides = (right or {}).get(name, (general, domain))
        out = root / "out" / name
        out.mkdir(parents=True)
        write_model(out, name, loss)
        more: dict[str, Any] = {}
        if loss is not None:
            accounting = {"source": SOURCE["id"], "role": "cpt", "rows_in": 1000, "dropped": {"empty": 3, "exam": 2}}
            accounting |= {"truncated": 4, "rows_out": 995, "tokens": 122880, "masked_share": 0.25, "epochs": 1.5}
            more = {"tokens": 122880, "train_seconds": 10.0, "tokens_per_second": 12288.0, "rows": [accounting]}
        if name == "base" and base is not None:
            more |= {"sources": [{**base, "role": "base model"}], "rows": []}
        if kind == "dpo":
            more["metrics"] = {"preference_accuracy": {"score": 0.9, "n": 40, "low": 0.77, "high": 0.96}}
        manifest = _manifest(name, kind, inputs.get(parent or ""), root, **more)
        inputs[name] = store.commit(name, manifest["fingerprint"], out, manifest)
        exam = root / "out" / f"exam-{name}"
        exam.mkdir()
        write_exam(exam, name, {"general": sides[0], "domain": sides[1]})
        manifest = _manifest(f"exam-{name}", "evaluate", inputs[name], root)
        inputs[f"exam-{name}"] = store.commit(f"exam-{name}", manifest["fingerprint"], exam, manifest)
    return inputs


@pytest.fixture
def build_chain(tmp_path: Path) -> BuildChain:
    return lambda right=None, base=None: build(tmp_path, right, base)


def make_context(root: Path, inputs: dict[str, Artifact], **settings: Any) -> StageContext:
    """Return the context of a card stage; keyword arguments are its settings."""
    given = {"limits_of_use": "It is not a doctor.", "intended_use": "Answering exam questions.", **settings}
    out, work = root / "card-out", root / "card-work"
    for folder in (out, work):
        folder.mkdir(exist_ok=True)
    publish = PublishSettings(**{key: given.pop(key) for key in ("licence", "choose") if key in given})
    stages: dict[str, StageSettings] = {"card": CardSettings(**given), "publish": publish}
    return StageContext(
        stage="card",
        kind="card",
        settings=stages["card"],
        config=Config.model_validate({**RUN, "stages": stages}),
        inputs=inputs,
        parent=None,
        corpus=Corpus(),  # type: ignore[arg-type]  # the card asks for the title alone
        out=out,
        work=work,
        models=root / "models",
        console=None,  # type: ignore[arg-type]  # the card shows no progress
    )


@pytest.fixture
def card_context(tmp_path: Path) -> BuildContext:
    return lambda inputs, **settings: make_context(tmp_path, inputs, **settings)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Artifact]]:
    """The card of the whole chain, made once with a token in the environment, and what it is about."""
    from common.stages import card

    root = tmp_path_factory.mktemp("card")
    inputs = build(root)
    context = make_context(root, inputs, intended_use=f"Exam questions. Never print {TOKEN}.", tags=["notes"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        card.run(context)
    return context.out, inputs


@pytest.fixture(scope="session")
def token() -> str:
    return TOKEN
