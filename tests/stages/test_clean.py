"""Cleaning as a stage of a run: cached, explained, killed and continued; what it leaves is what others train on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.base import Limits
from common.config.resolve import nodes_of
from common.console import Console
from common.data.accounting import check_limits
from common.data.cleaned import Cleaned, CleanedRows
from common.engine.plan import make_plan
from common.engine.preflight.trial import try_rows
from common.errors import ConfigError, ContractError, DataError
from common.store.manifest import read_mapping
from tests.bench.documents import documents
from tests.conftest import REPOSITORY
from tests.data.manifest.manifests import write_rows
from tests.stages.cleaning import BOOK, CHAT, EXAM, LENGTH, QUESTION, cleaned, made, resolved, state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path)


def test_only_a_manifest_with_blocks_has_stages_that_clean_and_they_come_first(folder: Path) -> None:
    names = [node.name for node in resolved(folder).nodes]
    assert names[:3] == ["data-cpt", "data-sft", "base"]
    assert not any(node.name.startswith("data-") for node in resolved(folder, None).nodes)
    asked = resolved(folder, None, **{"clean.blocks": "[]"})
    assert [node.name for node in asked.nodes][:2] == ["data-cpt", "data-sft"]
    inputs = {node.name: node.inputs for node in asked.nodes}
    assert inputs["cpt"] == ("data-cpt", "base")
    assert inputs["card"][:2] == ("data-cpt", "data-sft")


def test_what_is_left_is_counted_and_read(folder: Path) -> None:
    run = resolved(folder)
    artifact = cleaned(run)
    rows = list(CleanedRows(artifact.path).rows())
    assert [row["text"].split()[5] for row in rows] == [str(i) for i in range(20) if i % 5]
    (count,) = CleanedRows(artifact.path).counts().values()
    assert (count.rows_in, count.rows_out) == (21, 16)
    assert count.dropped == {"block length: too short": 4, "exam overlap": 1}
    rejects = [json.loads(line) for line in (artifact.path / "rejects.jsonl").open(encoding="utf-8")]
    assert [reject["reason"] for reject in rejects] == ["too short"] * 4 + ["exam overlap"]
    assert QUESTION in rejects[-1]["detail"]
    assert artifact.manifest["rows"][0]["rows_out"] == 16


@pytest.mark.parametrize(("weight", "number"), [(2, 32), (1.5, 24), (0.5, 8)])
def test_a_weight_repeats_rows_after_cleaning(folder: Path, weight: float, number: int) -> None:
    artifact = cleaned(resolved(folder, LENGTH, {**BOOK, "weight": weight}, CHAT, EXAM))
    found = CleanedRows(artifact.path)
    assert abs(len(list(found.rows())) - number) <= 1
    assert abs(found.counts()["book"].rows_out - number) <= 1


def test_a_second_run_does_nothing_and_a_changed_block_is_explained(folder: Path) -> None:
    run = resolved(folder)
    first = cleaned(run)
    assert state(make_plan(run), "data-cpt") == "cached"
    changed = make_plan(resolved(folder, [{"length": {"words": [5, None]}}]))
    assert state(changed, "data-cpt") == "stale"
    again = cleaned(resolved(folder, [{"length": {"words": [4, None]}}, {"length": {"characters": [1, None]}}]))
    assert again.digest == first.digest  # so that what trains on them is not made again
    assert again.fingerprint != first.fingerprint


def test_another_role_and_other_workers_leave_a_result_alone(folder: Path) -> None:
    cleaned(resolved(folder))
    write_rows(folder / "chat.jsonl", [{"question": "New?", "answer": "Yes, it is."}])
    plan = make_plan(resolved(folder, **{"run.data_workers": "4"}))
    assert (state(plan, "data-cpt"), state(plan, "data-sft")) == ("cached", "missing")
    write_rows(folder / "exam.jsonl", [{"question": f"Is it so? {QUESTION}", "answer": "yes"}])
    assert state(make_plan(resolved(folder)), "data-cpt") == "stale"  # another exam keeps other rows out


def test_replay_that_is_not_used_is_not_cleaned(folder: Path) -> None:
    replay = {**BOOK, "id": "old", "role": "replay"}
    with_replay = resolved(folder, LENGTH, BOOK, replay, CHAT, EXAM, **{"cpt.replay": "0.3", "sft.replay": "0"})
    assert {node.name: node.inputs for node in with_replay.nodes}["cpt"] == ("data-cpt", "data-replay", "base")
    assert {node.name: node.inputs for node in with_replay.nodes}["sft"] == ("data-sft", "cpt")
    without = resolved(folder, LENGTH, BOOK, replay, CHAT, EXAM, **{"cpt.replay": "0", "sft.replay": "0"})
    assert "data-replay" not in [node.name for node in nodes_of(without.pipeline, without.config)]


def test_a_source_without_a_row_left_names_the_block(folder: Path) -> None:
    with pytest.raises(
        ContractError, match=r"source 'book' has no row left\. Most were dropped by the block length, for"
    ):
        cleaned(resolved(folder, [{"length": {"words": [100, None]}}]))
    with pytest.raises(ContractError, match=r"block length drops 4 of 21 rows \(19.0%\); its limit `most` is 10.0%"):
        cleaned(resolved(folder, [{"length": {"words": [4, None], "most": 0.1}}]))
    write_rows(folder / "book.jsonl", [{"text": ""}])
    with pytest.raises(DataError, match="Source 'book' gives no usable row for cpt: 1 read, dropped: empty text 1"):
        cleaned(resolved(folder))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["lenght"], r"item 1: no block 'lenght'\. Did you mean 'length'\?$"),
        ([{"length": {"word": [1, 2]}}], "length.word: unknown key. Did you mean 'words'?"),
        ("length", "expected a list of blocks, got 'length'"),
        ([{"length": {"words": [9, 2]}}], r"words is \[9, 2\]; expected \[least, most\]"),
        (["length"], "length needs characters or words"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_read(folder: Path, blocks: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(folder, blocks)


def test_a_source_that_is_not_there_is_named_by_the_plan(folder: Path) -> None:
    named = resolved(folder, [{"length": {"words": [1, None], "sources": ["bok"]}}])
    with pytest.raises(
        DataError, match=r"data-cpt\.blocks: length names the source 'bok', and there is none\. Did you mean"
    ):
        make_plan(named).check()
    mixed = resolved(folder, **{"cpt.mixture": "{shares: {chat: 0.5}}"})
    with pytest.raises(DataError, match=r"cpt\.mixture names 'chat', which is no source of the role cpt\. "):
        make_plan(mixed).check()


@pytest.mark.slow
def test_a_run_after_its_data_were_cleaned_tries_rows_with_the_tokenizer_of_its_base(folder: Path) -> None:
    run = resolved(folder, **{"base.tokens": "16384", "embedded.general_documents_per_entity": "4"})
    for name in ("data-cpt", "data-sft"):
        cleaned(run, name)
    assert state(make_plan(run), "data-cpt") == "cached"
    assert not any("tokenizer" in line for line in try_rows(make_plan(run), Console("quiet")))


def test_a_plan_tells_the_order_of_rows_and_refuses_a_score_that_no_block_gives(folder: Path) -> None:
    plan = make_plan(resolved(folder, **{"cpt.mixture": "{curriculum: {direction: descending}}"}))
    plan.check()
    sentence = "cpt: every pass over a source goes roughly from the rows that are longest to those that are shortest."
    assert sentence in plan.notes
    wrong = make_plan(resolved(folder, **{"cpt.mixture": "{curriculum: {by: lenght}}"}))
    with pytest.raises(
        DataError,
        match=r"cpt\.mixture\.curriculum\.by=lenght: no block of the role cpt gives this score\. Did you mean",
    ):
        wrong.check()


def test_a_role_that_no_stage_cleans_is_refused_in_against(folder: Path) -> None:
    plan = make_plan(resolved(folder, **{"data-cpt.blocks": "[{exact: {against: [sft]}}]"}))
    with pytest.raises(
        DataError,
        match=r"data-cpt\.blocks: exact names 'sft' in against, whose rows no stage before this one cleans",
    ):
        plan.check()


def test_what_a_block_drops_is_no_loss_of_the_stage_that_trains(folder: Path) -> None:
    (count,) = CleanedRows(cleaned(resolved(folder)).path).counts().values()
    assert (count.num_dropped, count.num_lost) == (5, 1)
    check_limits([count], Limits(dropped=0.05), "cpt")
    with pytest.raises(ContractError, match="reason 'exam overlap'"):
        check_limits([count], Limits(dropped=0.01), "cpt")


def test_cleaned_rows_are_what_training_reads(folder: Path) -> None:
    run = resolved(folder)
    corpus = Cleaned(make_plan(run).corpus, {"cpt": cleaned(run).path})
    assert corpus.is_clean("cpt")
    assert not corpus.is_clean("sft")
    assert len(list(corpus.rows("cpt"))) == 16
    assert len(list(corpus.rows("sft"))) == 9
    assert {source["id"]: source["rows"] for source in corpus.sources()}["book"] == 21


def test_a_pdf_a_page_and_a_book_become_tokens(tmp_path: Path) -> None:
    """Documents made here, of which one page of the PDF is a picture and one stands in the book too."""
    for package in ("trafilatura", "pypdf"):
        pytest.importorskip(package)
    from common.models.tokenizer import train_tokenizer
    from common.training.rows.reader import Reader
    from tests.data.manifest.documents import makers

    page = [f"{text} We hear it on a page." for text in makers.PROSE]
    (tmp_path / "page.html").write_text(makers.article(page), encoding="utf-8")
    (tmp_path / "report.pdf").write_bytes(makers.pdf([*makers.PROSE[:2], None]))
    chapters = {f"{n}.xhtml": makers.page(f"<p>{text}</p>") for n, text in enumerate(makers.PROSE[1:])}
    (tmp_path / "book.epub").write_bytes(makers.epub(chapters))
    paths = {"report": "report.pdf", "page": "page.html", "book": "book.epub"}
    sources = [{"id": name, "role": "cpt", "path": path, "licence": "mit"} for name, path in paths.items()]
    run = resolved(tmp_path, ["unicode", "boilerplate", "exact", *LENGTH], *sources, pipeline="cpt-only")
    corpus = Cleaned(make_plan(run).corpus, {"cpt": cleaned(run).path})
    tokenizer = train_tokenizer(makers.PROSE, 300, 1024)
    context: Any = SimpleNamespace(corpus=corpus, config=run.config, stage="cpt", inputs={})
    reader = Reader(context, tokenizer, "cpt", chat_only=False)
    rows = list(reader.tokens(assistant_only=False, sequence_length=1024, budget=None))
    texts = sorted(tokenizer.decode(row.input_ids, skip_special_tokens=True).strip() for row in rows)
    assert texts == sorted([*makers.PROSE, "\n\n".join(("Murmurs", *page))])
    counts = {count.source: count for count in reader.finish(1.0)}
    assert counts["report"].before == {"a page without text": 1}
    assert counts["book"].before == {"block exact: duplicate": 1}
    assert {name: (count.rows_in, count.rows_out) for name, count in counts.items()} == {
        "report": (2, 2), "page": (1, 1), "book": (1, 1),
    }  # fmt: skip
    assert sum(count.tokens for count in counts.values()) == sum(len(row.input_ids) for row in rows)


@pytest.mark.slow
def test_a_killed_cleaning_ends_with_the_same_result(folder: Path) -> None:
    write_rows(
        folder / "book.jsonl", [{"text": f"This is the text number {i} of the book. " * 40} for i in range(9000)]
    )
    run = resolved(folder, [{"length": {"words": [4, None]}}, {"length": {"characters": [1, None]}}])
    from common.engine.frozen_plan import freeze

    command = [sys.executable, "-m", "common", "stage", str(freeze(run)), "data-cpt"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    work = folder / "out" / "artifacts" / ".work"
    until = time.monotonic() + 600
    while time.monotonic() < until and not list(work.glob("data-cpt-*/cleaning/raw/*.zst")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((folder / "out" / "artifacts").glob("data-cpt-*"))
    killed = cleaned(run)
    whole = cleaned(resolved(folder, [{"length": {"words": [4, None]}}, {"length": {"characters": [1, None]}}],
                             out=str(folder / "other")))  # fmt: skip
    assert killed.digest == whole.digest
    assert read_mapping(killed.path / "manifest.json")["digest"] == whole.digest


@pytest.mark.long
def test_two_workers_that_are_killed_again_and_again_end_with_what_one_makes(folder: Path) -> None:
    write_rows(folder / "book.jsonl", [{"text": text} for text in documents(6)])
    blocks = ["gopher_quality", "gopher_repetition", "minhash"]
    run = resolved(folder, blocks, **{"run.data_workers": "2"})
    from common.engine.frozen_plan import freeze

    command = [sys.executable, "-m", "common", "stage", str(freeze(run)), "data-cpt"]
    work = folder / "out" / "artifacts" / ".work"
    for number, done in ((0, 2), (0, 6), (1, 2), (1, 4)):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 600
        while time.monotonic() < until and process.poll() is None:
            if len(list(work.glob(f"data-cpt-*/cleaning/pass-{number}/?????.json"))) >= done:
                break
            time.sleep(0.005)
        assert process.poll() is None, f"it ended before {done} tasks of pass {number} were done"
        process.kill()
        process.wait()
    killed = cleaned(run)
    whole = cleaned(resolved(folder, blocks, out=str(folder / "other")))
    assert killed.digest == whole.digest


@pytest.mark.slow
def test_a_scorer_of_a_domain_needs_consent_and_its_file_is_part_of_the_result(folder: Path) -> None:
    home = folder / "own"
    home.mkdir()
    for name in ("stages.yaml", "knowledge.yaml", "data.yaml"):
        (home / name).write_text((REPOSITORY / "domains" / "medical" / name).read_text("utf-8"), encoding="utf-8")
    code = "def length(row: dict, *, of: str = 'text') -> float:\n    return float(len(row[of]))\n"
    (home / "blocks.py").write_text(code, encoding="utf-8")
    block = [{"score": {"function": "length", "at_least": 20}}]
    run = resolved(folder, block, domain=str(home))
    with pytest.raises(ConfigError, match=r"run\.allow_code=own"):
        cleaned(run)
    allowed = resolved(folder, block, domain=str(home), **{"run.allow_code": "own"})
    artifact = cleaned(allowed)
    assert CleanedRows(artifact.path).counts()["book"].rows_out == 16
    (home / "blocks.py").write_text(code.replace("len(row[of])", "len(row[of]) - 100"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.allow_code=own"):
        cleaned(run)
    changed = resolved(folder, block, domain=str(home), **{"run.allow_code": "own"})
    assert state(make_plan(changed), "data-cpt") == "stale"
