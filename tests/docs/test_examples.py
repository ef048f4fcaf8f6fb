"""Every example of the documents: commands are planned, files are resolved, Python runs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from common.config.resolve import resolve
from common.config.yaml import read_yaml
from common.data.corpus import CORPUS_ROLES
from common.data.manifest.manifest import load_manifest
from common.data.manifest.schema import Source
from common.engine.ordering import resolve_run
from common.engine.preflight.settings import check_settings
from tests.docs.checks import Workplace, recipes
from tests.docs.reading import DOCUMENTS, Block, blocks, commands, inline, name_of

BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
RUN = [block for block in BLOCKS if not block.reason]
NOT_RUN = 1  # blocks with the comment `<!-- not run: reason -->` above them


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("documents"))


@pytest.mark.parametrize("block", [b for b in RUN if b.language in ("sh", "console")], ids=str)
def test_commands_of_a_block(block: Block, workplace: Workplace) -> None:
    found = list(commands(block.text))
    assert found, "the block has no command"
    for arguments in found:
        workplace.check(arguments)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_the_text(path: Path, workplace: Workplace) -> None:
    for code in inline(path):
        if re.match(r"(just|domain-recipes) [\w<]", code) and "<plan>" not in code:
            for arguments in commands(code):
                if len(arguments) == 2:  # `just run` in a sentence: the name of a command
                    assert arguments[1] in recipes(), code
                else:
                    workplace.check(arguments)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "yaml"], ids=str)
def test_yaml(block: Block, workplace: Workplace) -> None:
    root = workplace.root
    if block.kind == "pipeline":
        check_settings(resolve({"domain": "medical", "pipeline": block.name}, root))
    elif block.kind == "sequence":
        for member in resolve_run({"domains": "medical,legal", "pipeline": block.name}, root).members.values():
            check_settings(member)
    elif block.kind == "profile":
        check_settings(resolve({"domain": "medical", "profile": block.name}, root))
    elif block.kind == "stages":
        workplace.check_stages(block.text)
    elif block.kind == "manifest":
        corpus = load_manifest(root / block.name, root)
        corpus.check_rows([role for role in CORPUS_ROLES if role != "prompts"])
        assert read_yaml(root / block.name)
    else:
        assert block.kind == "sources", (
            "say what the block is: pipeline, sequence, profile, stages, manifest or sources"
        )
        sources = yaml.safe_load(block.text)
        assert isinstance(sources, list)
        for source in sources:
            Source.model_validate(source)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "python"], ids=str)
def test_python(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "example"})


def test_every_block_is_of_a_language_that_is_checked() -> None:
    for block in BLOCKS:
        assert block.language in ("", "sh", "console", "yaml", "python"), str(block)
        assert block.language or not re.search(r"^(just|domain-recipes|pip) ", block.text, re.M), f"{block}: say sh"


def test_what_is_not_run_says_why_and_is_counted() -> None:
    reasons = [block.reason for block in BLOCKS if block.reason]
    assert all(len(reason) > 20 for reason in reasons), reasons
    assert len(reasons) == NOT_RUN, Counter(reasons)
