"""Several domains in one chain, made by the real trainer: shared with runs of single domains, and safe from kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.ordering import resolve_run
from common.engine.run import Outcome, execute
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.long

WORDS = {key: value for key, value in QUICK.items() if not key.startswith(("sft", "dpo"))}
BOTH = {"domains": "medical,legal", **WORDS, "cpt.batch_tokens": "512"}


def run(root: Path, **words: str) -> Outcome:
    return execute(resolve_run({**BOTH, "out": str(root), **words}, REPOSITORY), Console("quiet"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    root: Path = tmp_path_factory.mktemp("sequence")
    return root, run(root)


def manifest(outcome: Outcome, stage: str) -> Any:
    return outcome.artifacts[stage].manifest


def test_a_chain_of_two_domains_has_a_card_with_its_matrix(made: tuple[Path, Outcome]) -> None:
    root, outcome = made
    folder = root / "runs" / "medical_legal" / "tiny" / "sequence"
    card = json.loads((folder / "card" / "card.json").read_text(encoding="utf-8"))
    found = card["sequence"]
    assert found["checkpoints"] == ["base", "cpt-medical", "cpt-legal"]
    base, medical, legal = found["bits_per_byte"]["matrix"]
    assert medical[0] < base[0], "CPT on a domain lowers the bits of its text"
    assert legal[1] < base[1]
    text = (folder / "card" / "README.md").read_text(encoding="utf-8")
    assert "Forgetting of `medical`" in text
    assert "![Every checkpoint on every domain](domains.png)" in text
    assert (root / "models" / "medical_legal" / "v1" / "domains.png").is_file()
    lineage = manifest(outcome, "cpt-legal")["lineage"]
    assert [entry["domain"] for entry in lineage] == ["", "medical", "legal"]
    assert outcome.artifacts["cpt-legal"].path.name.startswith("cpt-")


def test_a_second_run_makes_nothing_and_a_run_of_one_domain_shares_its_stages(made: tuple[Path, Outcome]) -> None:
    root, _ = made
    assert run(root).made == []
    alone = resolve(
        {"domain": "medical", "pipeline": "cpt-only", "out": str(root), **WORDS, "cpt.batch_tokens": "512"}, REPOSITORY
    )
    assert execute(alone, Console("quiet")).made == ["card", "publish"]


def test_specialists_share_the_first_stage_and_are_merged(made: tuple[Path, Outcome]) -> None:
    root, _ = made
    outcome = run(root, pipeline="specialists")
    assert "specialist-medical" not in outcome.made, "it is the first stage of the chain"
    assert "specialist-legal" in outcome.made
    text = (root / "runs" / "medical_legal" / "tiny" / "specialists" / "card" / "README.md").read_text(encoding="utf-8")
    for name in ("specialist-medical", "specialist-legal", "linear", "ties"):
        assert f"| `{name}`" in text
    assert re.search(r"\| `linear` +\| `cpt-legal` +\| domain", text), "compared with the chain on the same questions"


def test_replay_of_the_lineage_reads_every_domain_before(made: tuple[Path, Outcome]) -> None:
    root, _ = made
    outcome = run(root, **{"cpt.replay_from": "lineage", "name": "lineage"})
    rows = {row["source"] for row in manifest(outcome, "cpt-legal")["rows"] if row["role"] == "replay"}
    assert rows == {"read by base", "read by cpt (medical)"}
    assert run(root, **{"cpt.replay_from": "lineage", "name": "lineage"}).made == []


def test_a_killed_chain_ends_with_the_same_weights(made: tuple[Path, Outcome], tmp_path: Path) -> None:
    _, whole = made
    words = [f"{key}={value}" for key, value in BOTH.items()]
    command = [sys.executable, "-m", "common", "run", *words, f"out={tmp_path}", "run.checkpoint_minutes=0.003"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    second = tmp_path / "runs" / "medical_legal" / "tiny" / "sequence" / "cpt-medical"
    while not (second.exists() and any(tmp_path.glob("artifacts/.work/cpt-*/trainer/checkpoint-*/done.json"))):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    outcome = run(tmp_path)
    assert "cpt-medical" not in outcome.made
    for stage in ("cpt-medical", "cpt-legal"):
        assert outcome.artifacts[stage].digest == whole.artifacts[stage].digest
