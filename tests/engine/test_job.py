"""A stage's manifest: figures that are no numbers are not saved, and what was read before is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from common.config.node import Node
from common.config.resolve import resolve
from common.engine.job import Job, manifest_of
from common.errors import ContractError
from common.stage import StageReport
from common.store.artifacts import Artifact, fingerprint_of
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"final_loss": math.nan}, "metric.final_loss"),
        ({"looks": [{"loss": 1.0}, {"loss": math.inf}]}, "metric.looks.1"),
    ],
)
def test_a_metric_that_is_no_number_is_named(metrics: dict[str, Any], name: str, tmp_path: Path) -> None:
    resolved = resolve({"domain": "medical"}, REPOSITORY)
    job = Job(resolved.nodes[0], {}, {"settings": {}}, "0" * 16, forced=False)
    with pytest.raises(ContractError, match=rf"^Stage base: {name}.* is (nan|inf); expected finite numbers"):
        manifest_of(job, StageReport(metrics=metrics), 1.0, resolved, tmp_path)


def test_a_model_knows_what_it_has_read_and_what_was_read_before(tmp_path: Path) -> None:
    resolved = resolve({"domain": "medical"}, REPOSITORY)
    base, cpt = (next(node for node in resolved.nodes if node.name == name) for name in ("base", "cpt"))
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")

    def made(node: Node, inputs: dict[str, Artifact], role: str) -> Artifact:
        rows = [{"source": role, "role": role, "rows_out": 2, "tokens": 50, "epochs": 3.0}]
        report = StageReport(rows=rows, read={f"tokens-{node.name}": 128})
        recipe = {"kind": node.kind, "settings": {}}
        job = Job(node, inputs, recipe, fingerprint_of({"of": node.name}), forced=False)
        return Artifact(tmp_path, {**manifest_of(job, report, 1.0, resolved, tmp_path), "digest": node.name})

    first = made(base, {}, "pretrain")
    second = made(cpt, {"base": first}, "cpt")
    found = second.manifest["lineage"]
    assert [(entry["stage"], entry["domain"]) for entry in found] == [("base", ""), ("cpt", "medical")]
    assert found[0] == first.manifest["lineage"][0]
    assert found[1]["sources"] == [{"id": "cpt", "role": "cpt", "tokens": 150}]  # three passes over 50 tokens
    assert found[1]["read"] == {"tokens-cpt": 128}
    judged = Artifact(tmp_path, {**second.manifest, "kind": "reward", "lineage": [{**found[1], "fingerprint": "r"}]})
    tuned = made(next(node for node in resolved.nodes if node.name == "sft"), {"cpt": second, "r": judged}, "sft")
    assert [entry["stage"] for entry in tuned.manifest["lineage"]] == ["base", "cpt", "sft"], (
        "not what a judge has read"
    )
    exam = next(node for node in resolved.nodes if node.name == "exam-cpt")
    assert "lineage" not in made(exam, {"cpt": second}, "questions_domain").manifest
