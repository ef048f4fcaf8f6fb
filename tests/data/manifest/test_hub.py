"""Every Hub source that a run needs is asked for one record before anything is spent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest import hub
from common.data.manifest.hub import WORKERS, probe, read_hub
from common.data.manifest.readers import Record
from common.data.manifest.revisions import Revisions
from common.data.manifest.schema import Source
from common.errors import DataError
from common.models.source import HubUnreachable
from tests.data.manifest.manifests import CPT, EXAM, HUB, load, write_rows

COMMIT = "c" * 40


def source(name: str, **facts: Any) -> Source:
    return Source.model_validate(
        {"id": name, "role": "cpt", "hub": f"o/{name}", "split": "train", "licence": "mit", **facts}
    )


def answers(**values: Any) -> Any:
    """A reader that gives each source its one value, or raises it."""

    def read(source: Source) -> Iterator[Record]:
        value = values[source.id]
        if isinstance(value, Exception):
            raise value
        if value is not None:
            yield Record("row 1", value)
            raise AssertionError("the probe reads one record only")

    return read


def ask(sources: list[Source], reader: Any = read_hub) -> list[str]:
    return probe(sources, Revisions(None, resolver=lambda source: COMMIT).pin, reader)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_nothing_to_say() -> None:
    assert ask([source("a")], answers(a={"text": "x"})) == []


def test_only_enabled_sources_of_the_hub_are_asked(tmp_path: Path) -> None:
    local = Source.model_validate(CPT)
    assert ask([local, source("off", enabled=False)], answers()) == []


def test_columns_are_compared() -> None:
    message = "source 'a': o/a[train] has no column 'text' (for text). It has: txt. Did you mean 'txt'?"
    assert ask([source("a")], answers(a={"txt": "x"})) == [message]
    assert ask([source("a")], answers(a=None)) == ["source 'a': o/a[train] has no row"]


@pytest.mark.usefixtures("offline")
def test_a_gated_source_without_a_token() -> None:
    (problem,) = ask([source("a", gated=True)], answers())
    assert problem.startswith("source 'a': is gated and there is no token. Accept its terms on ")
    assert "https://huggingface.co/datasets/o/a, then run `hf auth login` or set HF_TOKEN; or set enabled" in problem


def test_a_gated_source_with_a_token_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    assert ask([source("a", gated=True)], answers(a={"text": "x"})) == []


def test_all_problems_at_once_and_one_line_for_what_is_out_of_reach() -> None:
    away = HubUnreachable("Source 'b': the Hub ...", "ConnectionError: no route")
    wrong = DataError("Source 'c': o/c[train] cannot be read.")
    found = ask(
        [source(name) for name in "abcd"], answers(a={"txt": ""}, b=away, c=wrong, d=HubUnreachable("", "Timeout: 5 s"))
    )
    assert [problem.split(":")[0] for problem in found[:2]] == ["source 'a'", "source 'c'"]
    assert found[2] == (
        "the Hub could not be reached for 2 sources: 'b' (o/b), 'd' (o/d). It said: ConnectionError: no route, "
        "Timeout: 5 s. Check the network and try again; data=embedded needs none"
    )


def test_sources_are_asked_in_parallel() -> None:
    together = threading.Barrier(WORKERS, timeout=20)

    def read(source: Source) -> Iterator[Record]:
        together.wait()
        yield Record("row 1", {"text": "x"})

    assert ask([source(f"a{number}") for number in range(WORKERS)], read) == []


@pytest.mark.usefixtures("offline")
def test_check_rows_probes_and_reads_local_rows_in_one_go(folder: Path) -> None:
    write_rows(folder / "exam.jsonl", [{"question": "Is it?", "answer": "no"}, {"question": "So?", "answer": "never"}])
    sources = [HUB | {"id": name, "hub": f"some-owner/{name}"} for name in ("one", "two")]
    corpus = load(folder, CPT, EXAM, *sources)
    with pytest.raises(DataError) as caught:
        corpus.check_rows(["cpt", "sft", "questions_domain"])
    first, hub, local = str(caught.value).splitlines()
    assert first == "The data of 'T' has 2 problems:"
    assert "the Hub could not be reached for 2 sources: 'one' (some-owner/one), 'two' (some-owner/two)." in hub
    assert "data=embedded needs none" in hub
    assert "Source 'exam', exam.jsonl, line 2: the answer 'never' is none of the choices" in local
    corpus.check_rows(["cpt"])  # asks for nothing that these rows do not need


@pytest.mark.usefixtures("offline")
def test_check_rows_asks_for_prompts_whatever_the_run_trains(folder: Path) -> None:
    prompts = HUB | {"id": "asked", "role": "prompts", "columns": {"question": "q", "answer": "a"}}
    with pytest.raises(DataError, match=r"could not be reached for 1 source: 'asked' \(o/n\)"):
        load(folder, CPT, prompts).check_rows(["cpt"])
    load(folder, CPT, prompts | {"enabled": False}).check_rows(["cpt"])


@pytest.mark.usefixtures("offline")
def test_check_rows_names_a_source_that_gives_nothing(folder: Path) -> None:
    write_rows(folder / "texts.jsonl", [{"text": ""}])
    with pytest.raises(DataError, match=r"Source 'texts' gives no usable row for cpt: 1 read, dropped: empty text 1"):
        load(folder, CPT).check_rows(["cpt"])


@pytest.mark.usefixtures("offline")
def test_the_reader_of_the_library_is_asked_for_one_record(tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    repository.mkdir()
    write_rows(repository / "train.jsonl", [{"text": "x"}])
    assert ask([source("a", hub=str(repository))]) == []


@pytest.mark.parametrize("error", ["Dataset 'o/a' is a gated dataset on the Hub. Visit the page to ask for access."])
def test_a_source_that_is_gated_and_not_marked_so(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError(error)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"o/a\[train\] is gated, and this account may not read it. Accept its terms on"
    ):
        next(read_hub(source("a")))
    (problem,) = ask([source("a")])
    assert problem.startswith("source 'a': o/a[train] is gated")


def test_a_stream_whose_next_row_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows(*given: Any, **more: Any) -> Iterator[dict[str, str]]:
        yield {"text": "a row"}
        time.sleep(3)

    monkeypatch.setattr(datasets, "load_dataset", rows)
    monkeypatch.setattr(hub, "ROW_SECONDS", 0.2)
    stream = read_hub(source("a"))
    assert next(stream).value == {"text": "a row"}
    with pytest.raises(HubUnreachable, match=r"after row 1 \(nothing came within 0 seconds\)\. Check the network"):
        next(stream)
