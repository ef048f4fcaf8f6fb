"""What licences ask for, which of several is the strictest, and what a checkpoint's own files state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.config.schema import ModelSettings
from common.models.licence import Strictness, licence_of, read_licence, roll_up, stated

BASE = ("the base", "apache-2.0")


@pytest.mark.parametrize(
    ("text", "id", "strictness"),
    [
        ("cc0-1.0", "cc0-1.0", Strictness.PUBLIC),
        ("public domain", "cc0-1.0", Strictness.PUBLIC),
        ("Apache-2.0", "apache-2.0", Strictness.PERMISSIVE),
        ("Apache License, Version 2.0", "apache-2.0", Strictness.PERMISSIVE),
        ("apache-2.0 (of the collection; the rest is theirs)", "apache-2.0", Strictness.PERMISSIVE),
        ("cc-by-4.0 and others, each openly licensed", "cc-by-4.0", Strictness.ATTRIBUTION),
        ("cc-by-sa-4.0 and earlier versions, post by post", "cc-by-sa-4.0", Strictness.SHARE_ALIKE),
        ("cc-by-sa-3.0 and GFDL", "cc-by-sa-3.0", Strictness.SHARE_ALIKE),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0", Strictness.NON_COMMERCIAL),
        ("odc-by, with non-commercial parts", "other", Strictness.NON_COMMERCIAL),
        ("cc-by-nd-4.0", "cc-by-nd-4.0", Strictness.RESTRICTED),
        ("cc-by-4.0, research use only", "other", Strictness.RESTRICTED),
        ("llama3.1", "llama3.1", Strictness.CUSTOM),
        ("apache-2.0, and the terms of each source", "other", Strictness.CUSTOM),
        ("their own words", "other", Strictness.CUSTOM),
        ("none stated", "unknown", Strictness.UNKNOWN),
        (None, "unknown", Strictness.UNKNOWN),
    ],
)  # fmt: skip
def test_a_text_is_read_as_the_strictest_licence_in_it(text: str | None, id: str, strictness: Strictness) -> None:
    found = read_licence(text)
    assert (found.id, found.strictness) == (id, strictness)


def test_the_strictest_wins_and_all_duties_hold() -> None:
    found = roll_up(BASE, [("web", "odc-by"), ("dolly", "cc-by-sa-3.0"), ("wiki", "cc-by-sa-4.0")])
    assert found.id == "cc-by-sa-4.0"  # share-alike of 3.0 allows later versions
    assert [name for name, _ in found.strictest] == ["dolly", "wiki"]
    assert found.duties == (
        "keep the licence's text and notices", "credit the authors",
        "publish what is made from it under the same licence",
    )  # fmt: skip
    assert found.warnings == found.unknown == ()
    assert found.sentence == (
        "cc-by-sa-4.0, the strictest of what it is made from: dolly (cc-by-sa-3.0), wiki (cc-by-sa-4.0)."
    )


def test_of_equally_strict_ones_the_base_s_is_kept() -> None:
    assert roll_up(BASE, [("a", "mit")]).id == "apache-2.0"
    assert roll_up(None, [("a", "mit"), ("b", "apache-2.0")]).id == "mit"


@pytest.mark.parametrize(
    ("base", "data", "words"),
    [
        ("apache-2.0", [("a", "gpl-3.0"), ("b", "cc-by-sa-4.0")], r"b \(cc-by-sa-4\.0\) and a \(gpl-3\.0\) each ask"),
        ("apache-2.0", [("a", "cc-by-nc-sa-4.0"), ("b", "cc-by-sa-4.0")], r"each ask that what is made from them"),
        ("apache-2.0", [("a", "cc-by-sa-4.0"), ("b", "cc-by-nc-4.0")], r"a \(cc-by-sa-4\.0\) forbids further restr"),
        (
            "llama3",
            [("a", "gemma"), ("b", "LLAMA3")],
            r"the base \(llama3\) and a \(gemma\) each have terms of their own",
        ),
        ("llama3", [("a", "cc-by-sa-4.0")], r"forbids further restrictions .* the base \(llama3\) brings some"),
    ],
)
def test_licences_that_exclude_each_other_are_named(base: str, data: list[tuple[str, str]], words: str) -> None:
    import re

    found = roll_up(("the base", base), data)
    assert (found.id, found.name) == ("other", "conflicting-licences")
    assert len(found.conflicts) == 1
    assert found.sentence.endswith("is under licences that may not go together.")
    assert re.search(words, found.conflicts[0])


def test_one_share_alike_family_is_no_conflict() -> None:
    assert roll_up(BASE, [("a", "cc-by-sa-3.0"), ("b", "cc-by-sa-4.0"), ("c", "mit")]).conflicts == ()
    assert roll_up(BASE, [("a", "gpl-3.0"), ("b", "mit")]).conflicts == ()


def test_data_that_forbid_more_than_the_base_are_named() -> None:
    found = roll_up(BASE, [("a", "cc-by-nc-4.0"), ("b", "mit")])
    assert found.id == "cc-by-nc-4.0"
    assert found.limits == ("a (cc-by-nc-4.0) may not be used commercially; the base (apache-2.0) asks for less.",)
    assert roll_up(("the base", "cc-by-nc-4.0"), [("a", "cc-by-nc-4.0")]).limits == ()


def test_an_unknown_licence_wins_over_all() -> None:
    found = roll_up(("the base", None), [("a", "cc-by-nc-4.0"), ("b", "unknown")])
    assert (found.id, found.unknown) == ("unknown", ("the base", "b"))
    assert found.sentence == "unknown, as that of the base, b is."


def test_a_folder_says_its_licence_in_its_card_or_config(tmp_path: Path) -> None:
    model = ModelSettings.model_validate({"path": str(tmp_path)})
    assert stated(str(tmp_path)) == {}
    assert licence_of(model) is None
    (tmp_path / "config.json").write_text(json.dumps({"license": "mit"}))
    assert licence_of(model) == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: acme\nbase_model: [a/b]\n---\n# Model\n")
    assert stated(str(tmp_path)) == {"licence": "acme", "base_model": "a/b"}
    assert licence_of(model.model_copy(update={"licence": "llama3"})) == "llama3"
    (tmp_path / "README.md").write_text("---\nlicense: [mit, cc-by-nc-4.0]\n---\n")
    assert read_licence(licence_of(model)).id == "cc-by-nc-4.0"
    for broken in ("---\n- a list\n---\n", "---\n{\n---\n", "no head"):
        (tmp_path / "README.md").write_text(broken)
        assert licence_of(model) == "mit"
    assert licence_of(ModelSettings.model_validate({"architecture": {"hidden_size": 8}})) is None


def test_what_strangers_wrote_is_cut_to_a_line_without_markup(tmp_path: Path) -> None:
    head = {
        "license": "MIT License. " + "Permission is granted to nobody. " * 20, "base_model": "../../home/me/model",
        "model_name": "A `name`](https://example.org)\n\n# " + "x" * 500,
    }  # fmt: skip
    (tmp_path / "README.md").write_text(f"---\n{json.dumps(head)}\n---\n", encoding="utf-8")
    found = stated(str(tmp_path))
    assert found.keys() == {"licence", "title"}
    assert read_licence(found["licence"]).strictness == Strictness.CUSTOM
    assert found["title"].startswith("A name(https://example.org) # xxx")
    assert len(found["title"]) == 200
