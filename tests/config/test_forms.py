"""The registry of forms: what is declared, in which ways a manifest names one, and a form from another folder."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from common.config.forms import FORMS, ROLES, Form, checked, chosen, described, forms
from common.config.pages import forms_page
from tests.data.manifest.shaping import shape
from tests.imports import imported

LANGUAGES = {"languages": ["en", "sw"]}


@pytest.mark.parametrize("form", forms().values(), ids=lambda form: form.name)
def test_it_is_declared_in_its_own_module_with_its_paper(form: Form) -> None:
    module = importlib.import_module(f"{FORMS}.{form.name}")
    assert module.FORM is form
    assert "Usage: `" in str(module.__doc__)
    assert form.name in str(module.__doc__)
    assert "arXiv" in form.paper
    assert form.makes in ROLES
    assert all(field.description for field in form.settings.model_fields.values())


def test_importing_all_of_them_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "datatrove", "datasets")
    assert imported("from common.config.forms import forms; forms()", *heavy) == []


@pytest.mark.parametrize("given", ["qa", {"qa": {}}, {"qa": None}, {"qa": {"between": "\n\n"}}])
def test_all_ways_to_name_one_are_the_same(given: Any) -> None:
    assert checked(given) == {"qa": {}}
    form, own = chosen({"qa": {}})
    assert (form.name, own.model_dump()["between"]) == ("qa", "\n\n")


def test_what_results_say_of_one() -> None:
    choice = checked({"interlinear": {**LANGUAGES, "rows": 2}})
    assert choice == {"interlinear": {**LANGUAGES, "rows": 2}}
    told = described(choice)
    assert (told["name"], told["settings"]["rows"], told["settings"]["unit"]) == ("interlinear", 2, "row")
    assert told["ours"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "expected the name of a form, such as qa"),
        ({"qa": {}, "interlinear": {}}, "expected the name of a form, such as qa"),
        ("interliner", "there is no form 'interliner'. Did you mean 'interlinear'?"),
        ({"qa": {"betwen": ""}}, "qa.betwen: unknown key. Did you mean 'between'?"),
        ("interlinear", "interlinear.languages is missing."),
        ({"interlinear": {**LANGUAGES, "rows": 0}}, "interlinear.rows: expected"),
    ],
)
def test_what_is_wrong_is_said(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        checked(given)


def test_the_page_has_every_form_with_every_setting() -> None:
    page = forms_page()
    parts = dict(re.findall(r"\n## (\w+)\n(.*?)(?=\n## |\Z)", page, re.DOTALL))
    assert parts.keys() == forms().keys() == set(re.findall(r"\(#(\w+)\)", page))
    for name, form in forms().items():
        assert form.paper in parts[name]
        assert form.phrase in page
        assert set(re.findall(rf"`{name}\.(\w+)`", parts[name])) == form.settings.model_fields.keys()


OWN = """
from common.config.forms import Form, FormSettings
from common.data.manifest.values import UnusableRow

class HeadlineSettings(FormSettings):
    pass

def write(row, own):
    if len(row["messages"]) > 2:
        raise UnusableRow("more than one question")
    asked, answer = (turn["content"] for turn in row["messages"])
    return {"text": f"# {asked}\\n{answer}"}

FORM = Form(name="headline", settings=HeadlineSettings, takes=("chat",), write=write, phrase="a headline", paper="ours")
"""


def test_a_folder_outside_common_brings_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.data import forms as package

    (tmp_path / "headline.py").write_text(OWN)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    row = shape("cpt", {"q": "Why?", "a": "So."}, {"question": "q", "answer": "a"}, form="headline")
    assert row == {"text": "# Why?\nSo."}
