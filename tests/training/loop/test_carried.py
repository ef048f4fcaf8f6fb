"""An optimizer's state goes on in a later stage: trunk and decay are one run, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.pipeline import Pipeline
from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.run import run_stage
from common.errors import ConfigError
from common.store.artifacts import Artifact
from common.training.loop.carried import OPTIMIZER
from common.training.rows.prepared import ROWS
from common.training.rows.rows import TrainingRows
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow

PIPELINE = """
description: A trunk at a constant rate, and decays that branch off it.
stages:
  base: {kind: base}
  trunk: {kind: cpt, from: base}
  decay: {kind: cpt, from: trunk}
  later: {kind: cpt, from: trunk}
  whole: {kind: cpt, from: base}
exam: [decay]
publish: decay
"""
TRUNK, DECAY = 6, 4  # steps
WORDS = {
    **{key: value for key, value in QUICK.items() if key.partition(".")[0] in ("embedded", "evaluate", "run")},
    "domain": "medical", "pipeline": "branches", "precision": "float32", "run.threads": "1",
    "base.tokens": "4096", "cpt.batch_tokens": "512", "cpt.sequence_length": "128", "cpt.train.learning_rate": "1e-3",
    "trunk.tokens": str(512 * TRUNK), "decay.tokens": str(512 * DECAY), "later.tokens": str(512 * DECAY),
    "whole.tokens": str(512 * (TRUNK + DECAY)), "trunk.schedule.kind": "constant", "trunk.schedule.warmup": "2",
    **{f"{name}.schedule.kind": "wsd" for name in ("decay", "later", "whole")},
    **{f"{name}.schedule.floor": "0" for name in ("decay", "later", "whole")},
    **{f"{name}.schedule.warmup": "0" for name in ("decay", "later")},
    **{f"{name}.schedule.decay": "1" for name in ("decay", "later")},
    "whole.schedule.warmup": "2", "whole.schedule.decay": str(DECAY / (TRUNK + DECAY)),
    "decay.optimizer": "carry", "later.optimizer": "fresh",
    "decay.continue_data": "true", "later.continue_data": "true",
}  # fmt: skip
Resolve = Callable[..., Resolved]


@pytest.fixture
def branches(tmp_path: Path) -> Resolve:
    """Resolve a run of the pipeline above, with further words, in a store of its own."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for folder in ("common", "domains"):
        (repository / folder).symlink_to(REPOSITORY / folder)
    shutil.copytree(REPOSITORY / "pipelines", repository / "pipelines")
    (repository / "pipelines" / "branches.yaml").write_text(PIPELINE, encoding="utf-8")

    def run(**words: str) -> Resolved:
        return resolve({**WORDS, "out": str(tmp_path / "store"), **words}, repository)

    return run


def made(resolved: Resolved, *names: str) -> dict[str, Artifact]:
    return {name: run_stage(resolved, name, Console("quiet")) for name in names}


def weights(artifact: Artifact) -> str:
    return str(artifact.manifest["files"]["model.safetensors"]["sha256"])


def documents(store: Path, artifact: Artifact) -> Counter[tuple[int, ...]]:
    """Return the documents, or the parts of long ones, that were prepared for a stage."""
    from datasets import Dataset

    found: Counter[tuple[int, ...]] = Counter()
    for name in artifact.manifest["lineage"][-1]["read"]:
        for row in Dataset.from_file(str(store / "artifacts" / name / ROWS)):
            ids, start = row["input_ids"], 0
            for length in row["seq_lengths"]:
                found[tuple(ids[start : start + length])] += 1
                start += length
    return found


def kept(store: Path) -> list[Path]:
    return sorted((store / "artifacts").glob(f"{OPTIMIZER}-*"))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, TrainingRows]:
    """The rows of each stage; those of `whole` are the trunk's, and then the decay's, each in its own order."""
    from datasets import concatenate_datasets

    seen: dict[str, TrainingRows] = {}
    from common.training.rows.rows import build_rows as build

    def noting(context: Any, *args: Any, **options: Any) -> TrainingRows:
        found = seen[context.stage] = build(context, *args, **options)
        if context.stage == "whole":
            both = concatenate_datasets([seen["trunk"].dataset, seen["decay"].dataset])
            found = replace(found, dataset=both)
        return found

    monkeypatch.setattr("common.stages.cpt.build_rows", noting)
    return seen


@pytest.mark.long
def test_trunk_and_decay_are_one_uninterrupted_run_to_the_last_bit(
    branches: Resolve, rows: dict[str, TrainingRows], tmp_path: Path
) -> None:
    resolved = branches()
    done = made(resolved, "base", "trunk")
    assert len(kept(tmp_path / "store")) == 1  # since a later stage of the run asks for it
    done |= made(resolved, "decay", "whole", "later")
    assert weights(done["decay"]) == weights(done["whole"])
    first, then, whole = (documents(tmp_path / "store", done[name]) for name in ("trunk", "decay", "whole"))
    assert not first & then
    assert not whole - (first + then)  # an uninterrupted run reads the trunk's documents and the decay's
    assert (first + then - whole).total() <= 1  # each of the two ends with the document that fills its budget
    assert weights(done["later"]) != weights(done["decay"])  # the same, but for a fresh state
    assert len(kept(tmp_path / "store")) == 1
    # A second branch makes the trunk again only where its state is gone, and then it is the same trunk.
    assert {s.node.name: s.state for s in make_plan(branches(**{"later.optimizer": "carry"})).steps}[
        "trunk"
    ] == "cached"
    shutil.rmtree(kept(tmp_path / "store")[0])
    plan = make_plan(branches(**{"later.optimizer": "carry"}))
    (trunk,) = (step for step in plan.steps if step.node.name == "trunk")
    assert trunk.reasons == ("a later stage goes on with the state of its optimizer, which was not kept",)
    assert any(note.startswith("trunk: the state of its optimizer is kept beside its result (") for note in plan.notes)
    again = made(branches(**{"later.optimizer": "carry"}), "trunk", "later")
    assert weights(again["trunk"]) == weights(done["trunk"])
    assert weights(again["later"]) == weights(done["decay"])
    states = {step.node.name: step.state for step in make_plan(branches(**{"later.optimizer": "carry"})).steps}
    assert {states[name] for name in ("trunk", "decay", "later")} == {"cached"}


@pytest.mark.long
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_shards_leave_and_take_the_same_state(
    parallelism: str, branches: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "end_to_end" / "fsdp_on_cpu"))
    alone = made(branches(), "base", "trunk", "decay")
    expected = [json.loads(line) for line in (alone["decay"].path / "log.jsonl").open(encoding="utf-8")]
    for path in [*kept(tmp_path / "store"), alone["trunk"].path, alone["decay"].path]:
        shutil.rmtree(path)
    resolved = branches(**{"run.processes": "2", "run.parallelism": parallelism})
    freeze(resolved)
    shared = made(resolved, "trunk", "decay")
    found = [json.loads(line) for line in (shared["decay"].path / "log.jsonl").open(encoding="utf-8")]
    assert shared["decay"].manifest["processes"] == 2
    assert len(expected) == len(found) == DECAY
    for one, other in zip(expected, found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-2)


def test_without_one_that_asks_no_state_is_kept(branches: Resolve, tmp_path: Path) -> None:
    made(branches(**{"decay.optimizer": "fresh"}), "base", "trunk")
    assert kept(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"trunk.peft": "lora"}, r"^decay\.optimizer=carry: state is carried between stages that train all weights"),
        (
            {"trunk.train.optim": "sgd"},
            r"^decay\.optimizer=carry: trunk trains with sgd, and decay with adamw_torch_fused",
        ),
        (
            {"trunk.train.optim": "adafactor", "decay.train.optim": "adafactor"},
            r"^decay\.optimizer=carry: the state of adafactor is not carried, only that of adamw_torch, .* sgd\. Use",
        ),
        (
            {"trunk.validation.share": "0.1", "trunk.validation.keep": "best"},
            r"^decay\.optimizer=carry: trunk saves its best weights \(trunk\.validation\.keep\), and its optim",
        ),
        ({"base.optimizer": "carry"}, r"^base\.optimizer=carry: base begins the chain"),
        (
            {"trunk.optimizer": "carry", "model.path": "owner/name", "model.revision": "0" * 40},
            r"^trunk\.optimizer=carry: base, the stage before it, takes a finished checkpoint, and leaves no state",
        ),
    ],
)
def test_where_there_is_no_state_to_go_on_with_it_is_refused(
    words: dict[str, str], message: str, branches: Resolve
) -> None:
    with pytest.raises(ConfigError, match=message):
        branches(**words)


def test_a_pipeline_file_is_one() -> None:
    import yaml

    assert Pipeline.model_validate({"name": "branches", **yaml.safe_load(PIPELINE)}).nodes()
