"""Records of one sentence each become documents, and a manifest counts them, holds them out and identifies them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.base import Limits
from common.data.accounting import check_limits
from common.data.manifest.files.texts import PARAGRAPH_CHARACTERS
from common.data.manifest.manifest import ManifestCorpus
from common.errors import ContractError
from common.training.rows.reader import Accounts
from tests.data.manifest.manifests import EXAM, load, problems, write_rows

WOVEN = {"interlinear": {"languages": ["en", "sw"], "source_tag": "", "rows": 3}}
BOTH = {"id": "both", "role": "cpt", "path": "both.jsonl", "licence": "mit", "form": WOVEN}


def sentences(number: int, **more: Any) -> list[dict[str, Any]]:
    return [{"en": f"E{place}", "sw": f"S{place}", **more} for place in range(number)]


def texts(corpus: ManifestCorpus) -> list[str]:
    return [row["text"].replace("\n", " ") for row in corpus.rows("cpt")]


def test_so_many_records_make_a_document(folder: Path) -> None:
    write_rows(folder / "both.jsonl", sentences(7))
    corpus = load(folder, BOTH, EXAM)
    assert texts(corpus) == ["E0 S0 E1 S1 E2 S2", "E3 S3 E4 S4 E5 S5", "E6 S6"]
    assert corpus.counts("cpt")["both"].rows_out == 3
    assert corpus.shapes()["both"].startswith(
        "texts with their translations (source: en, target: sw), written as inter"
    )


def test_a_document_ends_with_its_file_and_where_its_name_changes(folder: Path) -> None:
    write_rows(folder / "both-1.jsonl", [*sentences(2, book="a"), *sentences(1, book="b")])
    write_rows(folder / "both-2.jsonl", sentences(1, book="b"))
    source = BOTH | {"path": "both-*.jsonl", "columns": {"source": "en", "target": "sw", "document": "book"}}
    assert texts(load(folder, source, EXAM)) == ["E0 S0 E1 S1", "E0 S0", "E0 S0"]
    assert "has no column 'chapter' (for document)" in problems(
        folder, source | {"columns": {"source": "en", "target": "sw", "document": "chapter"}}, EXAM
    )


def test_a_sentence_without_a_translation_is_left_out_alone_and_counted(folder: Path) -> None:
    rows = sentences(4)
    rows[1]["sw"], rows[2]["en"] = None, " "
    write_rows(folder / "both.jsonl", rows)
    corpus = load(folder, BOTH, EXAM)
    assert texts(corpus) == ["E0 S0 E3 S3"]
    assert corpus.counts("cpt")["both"].dropped == {"empty target": 1, "empty source": 1}
    assert "dropped first for 'empty target': both.jsonl, line 2" in corpus.findings()["both"]


def test_what_is_dropped_is_a_share_of_the_records_and_not_of_the_documents(folder: Path) -> None:
    write_rows(folder / "both.jsonl", [*sentences(291), *({"en": "E", "sw": ""} for _ in range(9))])
    corpus = load(folder, BOTH, EXAM)
    accounts = Accounts("cpt")
    for row in corpus.rows("cpt"):
        accounts[row["source"]].rows_out += 1
    accounts["both"].rows_out -= 2
    accounts["both"].dropped = {"exam overlap": 2}  # documents, of three records each
    context: Any = SimpleNamespace(corpus=corpus, inputs={})
    (count,) = accounts.close(context)
    assert (count.rows_in, count.dropped) == (300, {"exam overlap": 6, "empty target": 9})
    assert (count.rows_out, count.num_kept, count.joined) == (95, 95, 190)
    check_limits([count], Limits(dropped=0.05), "cpt")
    with pytest.raises(ContractError, match=r"5\.0% of its rows .* 'both' \(15 of 300\)"):
        check_limits([count], Limits(dropped=0.049), "cpt")


def test_pieces_of_a_document_that_is_cut_are_counted_once_each(folder: Path) -> None:
    long = " word" * (PARAGRAPH_CHARACTERS // 5)  # a sentence alone fills a piece
    write_rows(folder / "both.jsonl", [{side: text + long for side, text in row.items()} for row in sentences(6)])
    corpus = load(folder, BOTH | {"cut": "line"}, EXAM)
    pieces = texts(corpus)
    count = corpus.counts("cpt")["both"]
    assert len(pieces) > 2  # documents
    assert (count.rows_in, count.rows_out, count.joined) == (len(pieces), len(pieces), 0)


def test_each_and_where_choose_sentences_before_they_are_joined(folder: Path) -> None:
    pairs = [
        {"en": "A", "sw": "a", "kind": "x"},
        {"en": "B", "sw": "b", "kind": "y"},
        {"en": "C", "sw": "c", "kind": "x"},
    ]
    write_rows(folder / "both.jsonl", [{"pairs": pairs}, {"pairs": None}, {"pairs": pairs[:1]}])
    columns = {"source": "pairs.en", "target": "pairs.sw"}
    corpus = load(folder, BOTH | {"each": "pairs", "where": {"pairs.kind": "x"}, "columns": columns}, EXAM)
    assert texts(corpus) == ["A a C c A a"]
    assert corpus.counts("cpt")["both"].dropped == {"no list in pairs": 1}


def test_documents_are_held_out_whole_and_the_form_is_part_of_their_identity(folder: Path) -> None:
    write_rows(folder / "both.jsonl", sentences(60))
    held = load(folder, BOTH | {"heldout": 0.3}, EXAM)
    trained, kept = texts(held), [row["text"].replace("\n", " ") for row in held.rows("text_domain")]
    assert 0 < len(kept) < 12
    assert len(trained) + len(kept) == 20
    one, other = (
        load(folder, BOTH | {"form": {"interlinear": {**WOVEN["interlinear"], "rows": n}}}, EXAM) for n in (2, 3)
    )
    assert one.identity(["cpt"]) != other.identity(["cpt"])
    again = {**BOTH, "id": "again", "form": {"interlinear": {**WOVEN["interlinear"], "rows": 2}}}
    assert "Give both the same columns, form, unit, skip, take, every, where and heldout: 0.3" in problems(
        folder, BOTH | {"heldout": 0.3}, again | {"heldout": 0.3}, EXAM
    )


@pytest.mark.parametrize("other", [{"skip": 1}, {"take": 40}, {"every": 2}, {"where": {"kind": "y"}}])
def test_two_sources_that_join_other_records_of_a_file_cannot_hold_the_same_documents_out(
    folder: Path, other: dict[str, Any]
) -> None:
    write_rows(folder / "both.jsonl", [one for kind in "xy" for one in sentences(30, kind=kind)])
    held = BOTH | {"heldout": 0.3, "where": {"kind": ["x", "y"]}}
    assert "both.jsonl, of which source 'both' holds rows out" in problems(
        folder, held, held | {"id": "again", **other}, EXAM
    )
    load(folder, held, held | {"id": "again", "where": {"kind": ["y", "x"]}}, EXAM)


def test_sources_say_their_form_and_others_do_not(folder: Path) -> None:
    write_rows(folder / "both.jsonl", sentences(3))
    plain = {"id": "texts", "role": "cpt", "path": "texts.jsonl", "licence": "mit"}
    found = {source["id"]: source for source in load(folder, BOTH, plain, EXAM).sources()}
    assert found["both"]["form"]["name"] == "interlinear"
    assert "form" not in found["texts"]


def test_both_directions_hold_the_same_documents_out(folder: Path) -> None:
    write_rows(folder / "both.jsonl", sentences(60))
    back = {"interlinear": {**WOVEN["interlinear"], "languages": ["sw", "en"]}}
    there, turned = BOTH | {"heldout": 0.3}, BOTH | {"id": "turned", "form": back, "heldout": 0.3}
    corpus = load(folder, there, turned, EXAM)
    trained, kept = ([row["unwoven"] for row in corpus.rows(role)] for role in ("cpt", "text_domain"))
    known = [{frozenset(sides) for sides in rows} for rows in (trained, kept)]
    assert not known[0] & known[1]
    assert len(trained) == 2 * len(known[0])
    assert len(kept) == len(known[1])  # each is examined in one direction
    assert len(known[0]) + len(known[1]) == 20
