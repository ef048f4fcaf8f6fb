"""The registry of methods: what is declared, in which forms users switch methods on, and which errors they see."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from common.config.defaults import differing
from common.config.methods import FOLDERS, Method, chosen, described, method_of, methods, teaches
from common.config.resolve import resolve
from common.config.stages import CptSettings
from common.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.imports import imported


@pytest.mark.parametrize("method", methods().values(), ids=lambda method: method.name)
def test_it_is_declared_in_its_own_module_with_its_paper(method: Method) -> None:
    module = importlib.import_module(f"{FOLDERS[method.place]}.{method.name}")
    assert module.METHOD is method
    assert "Usage: `" in str(module.__doc__)
    assert method.name in str(module.__doc__)
    assert "arXiv" in method.paper or "ours" in method.paper
    assert method.phrase
    assert not method.phrase.endswith(".")
    assert differing(method.settings()) == {}  # it needs no setting
    assert described(method, method.settings())["settings"].keys() == method.settings.model_fields.keys()


def test_importing_all_of_them_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "transformers", "trl", "datasets")
    assert imported("from common.config.methods import methods; methods()", *heavy) == []


@pytest.mark.parametrize(
    "given",
    [
        {"reptile": {}}, {"reptile": None}, {"reptile": True}, {"reptile": {"every": 500}}, "reptile", ["reptile"],
        {"reptile": {}, "infinite": False},
    ],
)  # fmt: skip
def test_all_forms_that_mean_the_same_are_the_same(given: Any) -> None:
    settings = CptSettings(tokens=2048, methods=given)
    assert settings.methods == {"reptile": {}}
    assert [method.name for method, _ in chosen(settings)] == ["reptile"]


def test_without_methods_nothing_is_different_and_none_is_imported() -> None:
    assert CptSettings(tokens=2048) == CptSettings(tokens=2048, methods={}) == CptSettings(tokens=2048, methods=[])
    assert differing(CptSettings(tokens=2048)) == {"tokens": 2048}
    assert chosen(CptSettings(tokens=2048)) == []


def test_their_order_does_not_depend_on_how_they_are_listed() -> None:
    names = ["reptile", "self_distillation", "infinite"]
    one, other = (CptSettings(tokens=2048, methods=given) for given in (names, names[::-1]))
    assert [method.name for method, _ in chosen(one)] == [method.name for method, _ in chosen(other)]
    assert teaches(one)
    assert not teaches(CptSettings(tokens=2048, methods=["reptile"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cpt.methods.reptil": "true"}, r"^cpt\.methods\.reptil \(command line\): there is no such method\. Did you"),
        ({"cpt.methods": "[zzz]"}, r"^cpt\.methods\.zzz.*: there is no such method\. Known: .*reptile"),
        (
            {"cpt.methods.reptile.evry": "3"},
            r"^cpt\.methods\.reptile\.evry \(command line\): .* Did you mean 'every'\?$",
        ),
        ({"cpt.methods.reptile.zzz": "3"}, r"unknown key\. Known: every, step\.$"),
        ({"cpt.methods.reptile.every": "0"}, r"^cpt\.methods\.reptile\.every .*: expected at least 1; got 0\.$"),
        (
            {"cpt.methods.reptile": "5"},
            r"^cpt\.methods\.reptile .*: expected settings below it, or true or false; got 5",
        ),
        ({"cpt.methods": "3"}, r"^cpt\.methods \(command line\): expected names of methods .* got 3\.$"),
        ({"dpo.methods.reptile": "true"}, r"^dpo\.methods.*: unknown key\."),
    ],
)
def test_what_is_wrong_is_said_with_its_key(words: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"domain": "medical", **words}, REPOSITORY)


def test_the_pages_name_each_of_them() -> None:
    page = (REPOSITORY / "docs" / "recipes-and-pipelines.md").read_text("utf-8").partition("## Methods from papers")[2]
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("\n## ")[0], re.MULTILINE)
    assert sorted(listed) == sorted(methods())
    settings = (REPOSITORY / "docs" / "settings.md").read_text("utf-8").partition("## Methods")[2]
    for name, method in methods().items():
        part = settings.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert method.paper in part
        assert set(re.findall(rf"`methods\.{name}\.(\w+)", part)) == method.settings.model_fields.keys()


def test_layers_add_up_and_the_command_line_switches_off() -> None:
    words = {"domain": "medical", "sft.methods.reptile.every": "20", "cpt.methods.reptile": "false"}
    resolved = resolve({**words, "sft-only.methods.reptile.step": "0.5"}, REPOSITORY)
    stages: dict[str, Any] = dict(resolved.config.stages)
    assert stages["sft-only"].methods == {"reptile": {"every": 20, "step": 0.5}}
    assert stages["sft"].methods == {"reptile": {"every": 20}}
    assert stages["cpt"].methods == {}
    assert resolved.origins["sft.methods.reptile.every"] == "command line"
    assert method_of("reptile").place == "optimizer"
