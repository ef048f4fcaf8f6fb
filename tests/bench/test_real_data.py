"""The bench over real files: which sources it takes, and that files that nobody reads are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import real_data


def test_each_source_is_taken_once_with_the_exams_of_its_manifest() -> None:
    found, read = real_data.groups()
    sources = [one for listed in found.values() for group in listed for one in group if one["role"] != "eval"]
    assert len({one["id"] for one in sources}) == len(sources)
    assert {name.split("/")[0] for name in found} == {
        "cybersecurity", "finance", "general", "legal", "math", "medical", "multilingual",
    }  # fmt: skip
    ((medquad, *_), *_) = found["medical/medquad"]
    assert medquad["id"] == "medquad-cpt"
    assert any(one["id"] == "pubmedqa" for one in found["medical/medquad"][0])
    assert "medical/pubmedqa/pqal_test.jsonl" in read


def test_files_that_no_source_reads_are_found(tmp_path: Path) -> None:
    for name in ("a/b/one.jsonl", "a/b/two.jsonl", "a/b/LICENSE.md", "a/b/SOURCE.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert real_data.unread(tmp_path, ["a/b/on*.jsonl"]) == ["a/b/two.jsonl"]


def test_reasons_are_listed_by_their_rows() -> None:
    assert (
        real_data._listed({"a": 1, "b": 1200, **{f"c{n}": 2 for n in range(6)}})
        == "b 1,200, c0 2, c1 2, c2 2, c3 2, others 5"
    )
    assert real_data._listed({}) == "-"


def test_an_unknown_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert real_data.main(folders="medical") == 1
    assert "folders=medical: no source reads it. Known: documents." in capsys.readouterr().err


@pytest.mark.slow
def test_the_documents_made_here_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert real_data.main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1:5] for line in lines[1:4]] == [
        ["report", "cpt", "4", "2"], ["book", "cpt", "3", "3"], ["page", "cpt", "1", "1"],
    ]  # fmt: skip
