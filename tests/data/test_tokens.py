"""Tokens of sources before and after cleaning: counted where the sample is whole, else estimated and marked so."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from common.cli.data import counter_of, show, show_training
from common.console import Console
from common.data.accounting import RowCount
from common.data.cleaned import SAMPLES, CleanedRows
from common.data.cleaning import amounts
from common.data.cleaning.accounts import LEFT, TaskAccounts
from common.data.cleaning.amounts import Amount
from common.data.tokens import TokenCounter, fertility, general_texts, measured, tokens_of_sources
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.report.chain import load_chain
from common.report.tables import rows_table
from common.store.artifacts import Artifact
from tests.stages.cleaning import cleaned, made, resolved

TEXTS = ["The book tells of medicines.", "This is the text number of the book."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 40, vocabulary_size=320, context_length=64).save_pretrained(place)
    return place / "tokenizer.json"


def amount(rows: list[dict[str, Any]], most: int = amounts.CHARACTERS) -> Amount:
    found = Amount(most)
    for number, row in enumerate(rows):
        found.add(str(number), row)
    return found


def test_a_sample_is_whole_or_as_large_as_it_may_be_and_the_same_in_any_order() -> None:
    rows = [{"text": f"row {number} " * 10} for number in range(200)]
    whole = amount(rows)
    assert len(list(whole.sampled())) == 200
    assert whole.bytes == whole.characters == sum(len(row["text"]) for row in rows)
    few = list(amount(rows, 1000).sampled())
    assert 1000 <= sum(len(text) for _, texts in few for text in texts) < 1000 + 80
    assert few == list(whole.sampled())[: len(few)]
    again = Amount(1000)
    for number, texts in reversed(list(whole.sampled())):
        again.keep(number, texts)
    assert list(again.sampled()) == few


def test_one_row_does_not_fill_a_sample_and_no_task_keeps_nothing() -> None:
    chat = [{"role": "user", "content": "é" * 15_000}, {"role": "assistant", "content": "b" * 15_000}]
    ((_, texts),) = (long := amount([{"messages": chat}])).sampled()
    assert [len(text) for text in texts] == [15_000, 5_000]
    assert (long.characters, long.bytes) == (30_000, 45_000)
    assert amounts.sample_of_task(0) == amounts.CHARACTERS
    assert amounts.sample_of_task(9_999) == amounts.LEAST


def test_tokens_are_counted_in_a_whole_sample_and_estimated_otherwise(tokenizer: Path) -> None:
    counter = TokenCounter(tokenizer)
    own = counter.count(TEXTS)
    size = sum(map(len, TEXTS))
    assert str(measured(size, TEXTS, own, counter)) == f"{own}"
    assert str(measured(100 * size, TEXTS, own, counter)) == f"~{100 * own:,}"
    without = TokenCounter(None, 512)
    assert str(measured(300, ["abc"], without.count(["abc"]), without)) == "~200"  # 2 bytes a token
    assert str(measured(0, [], 0, counter)) == "0"
    assert counter.count(["half \ud800 a pair"]) == counter.count(["half ? a pair"])
    assert sum(counter.count([text]) for text in TEXTS) == own


def test_fertility_is_of_words_characters_and_bytes(tokenizer: Path) -> None:
    tokens = TokenCounter(tokenizer).count(["être là"])
    assert fertility(["être là"], tokens) == pytest.approx((tokens / 2, tokens / 7, tokens / 9))
    assert fertility([], 0) is None


def test_a_result_says_what_its_tokens_are(folder: Path, tokenizer: Path) -> None:
    artifact, counter = cleaned(resolved(folder)), TokenCounter(tokenizer)
    (found,) = tokens_of_sources(artifact.path, counter).values()
    rows = [row["text"] for row in CleanedRows(artifact.path).rows()]
    assert found.left == (counter.count(rows), True)
    read = [line.split('"')[3] for line in (folder / "book.jsonl").read_text().splitlines()]
    assert found.before == (counter.count(read), True)
    assert found.fertility == fertility(rows, counter.count(rows))
    shown = io.StringIO()
    show(artifact, Console("quiet", shown), 0, counter, ["The general text."])
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert ["source", "tokens", "in", "left", "per", "word", "per", "character", "per", "byte"] in lines
    (line,) = (line for line in lines if line[:2] == ["book", f"{found.before.number:,}"])
    assert line[2:] == [f"{found.left.number:,}", *(f"{number:.2f}" for number in found.fertility or ())]
    assert any(line[:2] == ["general", "text"] for line in lines)
    assert "~:" not in shown.getvalue()  # lengths alone are rough
    show(artifact, Console("quiet", shown), 0, TokenCounter(None, 512), [])
    assert "~: estimated by 2.0 bytes a token, as there is no tokenizer.json here" in shown.getvalue()


def test_a_result_without_samples_says_how_to_make_it_again(folder: Path) -> None:
    artifact = cleaned(resolved(folder))
    (artifact.path / SAMPLES).unlink()
    with pytest.raises(DataError, match=r"has no samples of its texts\. Make it again: `just rerun stage=data-cpt`"):
        tokens_of_sources(artifact.path, TokenCounter(None))


def test_samples_of_tasks_together_are_an_estimate_that_says_so(
    folder: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(amounts, "CHARACTERS", 200)
    monkeypatch.setattr(amounts, "LEAST", 100)
    monkeypatch.setattr(TaskAccounts.__init__, "__defaults__", (200,))
    artifact, counter = cleaned(resolved(folder)), TokenCounter(tokenizer)
    (found,) = tokens_of_sources(artifact.path, counter).values()
    rows = [row["text"] for row in CleanedRows(artifact.path).rows()]
    assert not found.left.counted
    assert found.left.number == pytest.approx(counter.count(rows), rel=0.1)
    shown = io.StringIO()
    show(artifact, Console("quiet", shown), 0, counter, [])
    assert f"~{found.left.number:,}" in shown.getvalue()
    assert "~: estimated from a fixed sample of" in shown.getvalue()


def test_the_card_and_the_command_have_what_training_made_of_the_rows(folder: Path, tokenizer: Path) -> None:
    artifact = cleaned(resolved(folder))
    manifest = {
        "kind": "cpt", "stage": "cpt", "metrics": {},
        "rows": [RowCount("book", "cpt", 16, {}, {}, 3, 16, 400, masked_share=0.25, epochs=2.5).as_dict()],
    }  # fmt: skip
    model = Artifact(tokenizer.parent, manifest)
    chain = load_chain({"data-cpt": artifact, "cpt": model})
    (before, left, _) = tokens_of_sources(artifact.path, TokenCounter(tokenizer))["book"]
    first, second = (line.split("|") for line in rows_table(chain).splitlines()[2:])
    assert [first[5].strip(), first[10].strip()] == [str(before), str(left)]
    assert second[10].strip() == "400"
    step = {"state": "cached", "node": type("Node", (), {"name": "cpt", "kind": "cpt"}), "artifact": model}
    plan = type("Plan", (), {"steps": (type("Step", (), step),)})
    shown = io.StringIO()
    show_training(cast(Any, plan), ["cpt"], Console("quiet", shown))
    assert shown.getvalue().splitlines()[-1].split() == ["cpt", "book", "16", "0", "400", "3", "4", "2.5"]


def test_a_tokenizer_of_the_hub_counts_where_it_is_in_its_cache(
    folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef" * 2 + "01234567"
    found = resolved(folder)
    model = found.config.model.model_copy(update={"path": "owner/name", "revision": commit})
    run = replace(found, config=found.config.model_copy(update={"model": model}))
    sizes = type("Sizes", (), {"tokenizer": None, "vocabulary": 512})
    outlook = type("Outlook", (), {"sizes": sizes})
    plan = cast(Any, type("Plan", (), {"resolved": run, "outlook": outlook, "steps": ()}))
    assert counter_of(plan) == TokenCounter(None, 512)
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / commit
    shutil.copytree(tokenizer.parent, snapshot)
    (snapshot / "config.json").write_text("{}")
    assert counter_of(plan) == TokenCounter(snapshot / "tokenizer.json", 512)


def test_general_text_is_read_where_it_is_here() -> None:
    class Corpus:
        def conversations(self, role: str) -> dict[str, bool]:
            return {"world": False} if role == "pretrain" else {}

        def portions(self, role: str) -> list[Any]:
            return [type("Portion", (), {"rows": iter([{"text": "a" * 150_000}] * 5)})]

    assert len(general_texts(cast(Any, Corpus()))) == 2


def test_counts_are_added_side_by_side() -> None:
    one, two = TaskAccounts(5), TaskAccounts(5)
    one.written({"text": "abc", "source": "a"}, "0/0")
    two.written({"text": "de", "source": "a"}, "1/0")
    one.add(two.as_dict())
    for row in two.samples():
        one.add_sample(row)
    assert one.amounts[LEFT]["a"].as_dict() == {"characters": 5, "bytes": 5}
    assert sorted(texts for _, texts in one.amounts[LEFT]["a"].sampled()) == [["abc"], ["de"]]
