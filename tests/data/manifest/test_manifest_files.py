"""Files of every kind as sources of a manifest: counted, told, and known by what they hold."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.data.manifest.manifests import CPT, EXAM, load, problems

FAQ = {"id": "faq", "role": "sft", "path": "faq.csv", "columns": {"question": "q", "answer": "a"}, "licence": "mit"}


def test_rows_that_cannot_be_read_are_counted_and_the_first_of_each_kind_is_told(folder: Path) -> None:
    (folder / "faq.csv").write_bytes("q;a\n1;one\n2;two;too\n3;dr\xfcben\n4\n".encode("cp1252"))
    corpus = load(folder, FAQ)
    assert len(list(corpus.rows("sft"))) == 2
    assert corpus.counts("sft")["faq"].dropped == {"wrong number of fields": 2}
    list(corpus.rows("sft"))
    first, second, third = corpus.findings()["faq"]  # each once, however often the rows are read
    assert first.startswith("faq.csv is read with semicolons")
    assert second.startswith("faq.csv, line 4: byte 5 of the line (0xfc) is not UTF-8, so the file is read as")
    assert third.startswith("dropped first for 'wrong number of fields': faq.csv, line 3: has 3 fields")


def test_a_file_without_one_row_that_fits(folder: Path) -> None:
    (folder / "faq.csv").write_text("q,a\n1,2,3\n1,2,3,4\n")
    assert "source 'faq': faq.csv, line 2: has 3 fields, the header has 2" in problems(folder, FAQ)


def test_packed_files_and_saved_folders_are_known_by_what_they_hold(folder: Path) -> None:
    import datasets

    rows = [{"text": f"Text {number}."} for number in range(4)]
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "saved"), num_shards=2)
    (folder / "texts.jsonl.gz").write_bytes(gzip.compress((folder / "texts.jsonl").read_bytes()))
    saved, packed = CPT | {"id": "saved", "path": "saved"}, CPT | {"path": "texts.jsonl.gz"}
    corpus = load(folder, saved, packed)
    assert len(list(corpus.rows("cpt"))) == 24
    first, second = corpus.identity(["cpt"])
    assert [file[0] for file in first["files"] + second["files"]] == [".arrow", ".jsonl.gz"]
    shard = sorted((folder / "saved").glob("*.arrow"))[0]
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert load(folder, saved, packed).identity(["cpt"])[0] != first


def test_an_exam_in_a_saved_folder_is_numbered_over_its_shards(folder: Path) -> None:
    import datasets

    rows = [{"question": f"Is it {number}?", "answer": "no"} for number in range(4)]
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(
        str(folder / "saved"), num_shards={"test": 2}
    )
    corpus = load(folder, CPT, EXAM | {"path": "saved", "split": "test"})
    assert [row["id"] for row in corpus.rows("questions_domain")] == [f"exam:{number}" for number in range(1, 5)]
    assert "saved holds the splits test. Name one of them with split:" in problems(
        folder, CPT, EXAM | {"path": "saved"}
    )
