"""What the documents name exists: links, anchors, files, settings, and the messages of the code."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.config.schema import SECTIONS
from tests.conftest import REPOSITORY
from tests.docs.keys import check_key, is_section, pipeline_with
from tests.docs.reading import DOCUMENTS, anchors, inline, name_of, prose

TROUBLESHOOTING = REPOSITORY / "docs" / "troubleshooting.md"
OF_A_RUN = ("runs/", "artifacts/", "models/", "/")  # folders that a run makes, or that are not of this repository
PLACEHOLDERS = {"<domain>": "medical", "<profile>": "tiny", "<pipeline>": "full", "<stage>": "cpt"}
KEY = re.compile(r"[a-z][\w-]*(\.[\w-]+)+(=.*)?")
FILE = re.compile(r"[\w<>.-]+(/[\w<>.-]+)*(/|\.(py|yaml|md|jsonl?|toml|txt|jinja|safetensors))")


@cache
def sources() -> str:
    """Return the text of all modules: names of files that a run leaves are in it."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "common").rglob("*.py"))


@cache
def messages() -> tuple[str, ...]:
    """Return every text of the code, with `…` for what is filled in, and the Justfile."""
    found = [(REPOSITORY / "Justfile").read_text(encoding="utf-8")]
    for path in (REPOSITORY / "common").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def filled(text: str) -> str:
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_and_anchors_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_exist(path: Path) -> None:
    for code in inline(path):
        name = filled(code)
        if not FILE.fullmatch(name) or name.startswith(OF_A_RUN):
            continue
        name = name.removeprefix("adapter/")  # a folder of a stage result
        beside = (REPOSITORY / name).exists() or (path.parent / name).exists()
        named = "/" not in name.rstrip("/") and (name in sources() or any(REPOSITORY.glob(f"[!.]*/**/{name}")))
        assert beside or named, code


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_settings_exist(path: Path) -> None:
    for code in inline(path):
        overrides = shlex.split(filled(code)) if "'" not in code else []
        if not overrides or not all(KEY.fullmatch(word) for word in overrides) or FILE.fullmatch(overrides[0]):
            continue
        for key, equals, value in (word.partition("=") for word in overrides):
            if not is_section(key.split(".")[0]):
                continue
            check_key(key)
            section = key.split(".")[0]
            if equals and "<" not in value and section != "train":
                words = {} if section in SECTIONS else {"pipeline": str(pipeline_with(section))}
                words |= {f"{section}.peft": "lora"} if ".lora." in key else {}
                resolve({"domain": "medical", **words, key: value}, REPOSITORY)


def test_a_setting_that_does_not_exist_is_found() -> None:
    for key in ("cpt.no_such_key", "run.no_such_key", "cpt.schedule.no_such_key", "cpt.train.no_such_option"):
        with pytest.raises(AssertionError):
            check_key(key)


def quotes() -> list[str]:
    """Return the messages that the troubleshooting page quotes: the first cells of its tables."""
    rows = re.findall(r"^\| (.+?) \| .+ \|$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.M)
    return [code for cell in rows for code in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("quote", quotes())
def test_a_quoted_message_is_one_of_the_code(quote: str) -> None:
    pattern = re.compile(".*".join(re.escape(part) for part in quote.split("…")), re.DOTALL)
    assert any(pattern.search(message) for message in messages()), quote
