"""Paths mean files below the data folder, and links of the Hub's cache within one repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.data.manifest.files.locate import Left, locate


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot of a data set as the Hub's cache lays it out: names link to blobs."""
    repository = tmp_path / "hub" / "datasets--owner--name"
    folder = repository / "snapshots" / "0123abcd" / "data"
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "5ca1ab1e").write_text('{"q": "x"}\n')
    (folder / "faq.jsonl").symlink_to("../../../blobs/5ca1ab1e")
    return folder


def test_links_within_a_repository_of_the_hubs_cache(snapshot: Path) -> None:
    for root, pattern in ((snapshot, "faq.jsonl"), (snapshot.parent, "data/*.jsonl")):
        files, problems = locate([pattern], None, root)
        assert problems == []
        assert (files[0].format, files[0].size) == (".jsonl", 11)  # the suffix is the link's, the bytes are the blob's


def test_a_link_to_nothing_is_told_with_its_target(snapshot: Path) -> None:
    (snapshot.parents[2] / "blobs" / "5ca1ab1e").unlink()
    _, problems = locate(["faq.jsonl"], None, snapshot)
    assert problems == [
        "faq.jsonl is a link to ../../../blobs/5ca1ab1e, which is no file there. Copy or download the file again"
    ]


def test_links_that_leave_it(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    other = tmp_path / "hub" / "datasets--other--name" / "blobs"
    other.mkdir(parents=True)
    (other / "1").write_text("{}")
    repository = snapshot.parents[2]
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("{}")
    for number, target in enumerate((tmp_path / "secret.jsonl", other / "1", repository / "refs" / "main")):
        (snapshot / f"{number}.jsonl").symlink_to(target)
        files, problems = locate([f"{number}.jsonl"], None, snapshot)
        assert (files, len(problems)) == ([], 1)
        assert "is a link that leaves the data folder" in problems[0]


def test_saved_data_sets_and_splits(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"q": ["x"]})
    data.save_to_disk(str(tmp_path / "faq"))
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "both"))
    (tmp_path / "plain.jsonl").write_text("{}")
    assert locate(["faq"], None, tmp_path)[0][0].shards[0].parent == tmp_path / "faq"
    assert locate(["both"], "test", tmp_path)[0][0].shards[0].parent == tmp_path / "both" / "test"
    for pattern, split, message in (
        ("both", None, "both holds the splits train, test. Name one of them with split:"),
        ("plain.jsonl", "test", "plain.jsonl is a file, and split only makes sense with a folder of save_to_disk"),
        ("plain.zip", None, "no file plain.zip below"),
    ):
        assert locate([pattern], split, tmp_path)[1][0].startswith(message)
    (tmp_path / "both" / "test" / "data-00000-of-00001.arrow").unlink()
    (tmp_path / "both" / "test" / "data-00000-of-00001.arrow").symlink_to(tmp_path.parent)
    assert "lacks data-00000-of-00001.arrow" in locate(["both"], "test", tmp_path)[1][0]


@pytest.mark.parametrize("name", ["a.jsonl.rar", "a.parquet.gz", "a.gz"])
def test_formats_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert "cannot be read. Expected .jsonl, .ndjson, .json" in locate([name], None, tmp_path)[1][0]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.xlsx", "Save the sheet as .csv"),
        ("a.zip", "Unpack it"),
        ("a.odt", "Save it as .docx"),
        ("a.abc", "Expected"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    _, (problem,) = locate([name], None, tmp_path)
    assert f"{name}: format '{Path(name).suffix}' cannot be read. {advice}" in problem


def test_hidden_files_are_not_meant_by_a_pattern(tmp_path: Path) -> None:
    for name in ("a.jsonl", "._a.jsonl"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in locate(["*.jsonl"], None, tmp_path)[0]] == ["a.jsonl"]
    assert [file.name for file in locate(["._a.jsonl"], None, tmp_path)[0]] == ["._a.jsonl"]


def test_a_path_that_no_system_can_have_is_a_problem(tmp_path: Path) -> None:
    files, problems = locate(["x" * 5000 + "\n"], None, tmp_path)
    assert files == []
    assert len(problems[0]) < 200
    assert problems[0].endswith("cannot be looked up: File name too long. Correct it")


def test_files_of_all_sources_are_counted_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text("text")
    left = Left(files=4)
    assert locate(["*.txt"], None, tmp_path, left)[1] == []
    (problem,) = locate(["*.txt"], None, tmp_path, left)[1]
    assert "path *.txt: the files of all sources are more than 100,000" in problem
    assert locate(["*.txt"], None, tmp_path, left)[1] == []  # said once


def test_a_pattern_that_walks_too_long_or_too_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(self: Path, pattern: str) -> Iterator[Path]:
        if pattern == "deep/*":
            raise RecursionError
        while True:
            yield from ()

    monkeypatch.setattr(Path, "glob", walk)
    problems = locate(["deep/*", "**/*"], None, tmp_path, Left(seconds=0.1))[1]
    assert "lead too deep. Name the folder" in problems[0]
    assert "took more than 30 seconds. Name the folder" in problems[1]
