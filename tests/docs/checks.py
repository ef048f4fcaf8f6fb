"""Check a command or a file of the documents as far as this machine allows: read, resolved, and planned.

Usage: `workplace = Workplace(folder)`; `workplace.check(["just", "plan", "domain=medical"])`.

A workplace is a copy of what a run reads, with the files that the documents show in their blocks. Nothing is trained. A
command on data or a package that are not here is resolved and its settings are checked; all others are planned.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.cli.catalogue import COMMANDS
from common.cli.new_domain import new_domain
from common.config.overrides import parse
from common.config.resolve import Resolved, resolve
from common.engine.frozen_plan import freeze, thaw
from common.engine.ordering import resolve_run
from common.engine.plan import make_plan
from common.engine.preflight.settings import check_settings
from common.errors import DataError
from common.store.artifacts import Store
from common.store.collection import collect
from tests.conftest import REPOSITORY
from tests.docs.keys import check_key
from tests.docs.reading import DOCUMENTS, blocks
from tests.models.test_gguf_file import write_gguf

OTHER_PROGRAMS = ("pip",)
OWN = {  # what a command takes beside the settings of a run
    "data": ("role", "rejects"), "preview": ("stage", "rows", "at", "html", "full"),
    "plan": ("freeze",), "why": ("stage",), "rerun": ("stage",), "chat": ("stage", "prompt"), "publish": ("to",),
    "config": ("describe",),
}  # fmt: skip
NEW_DOMAINS = ("chemistry", "mine")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = {  # the files of the manifest in docs/your-own-data.md
    "reports/a.txt": "A report on trees.\n\nIt says that oaks grow slowly and live long.\n" * 30,
    "novels/a.txt": "Once upon a time there was a small house.\n\nNobody lived in it for years.\n" * 30,
    "general/a.md": "The sun rises in the east and sets in the west.\n",
    "chats.jsonl": json.dumps(
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No."}]}
    ),
    "faq.jsonl": json.dumps({"q": "What is an oak?", "a": "A tree."}),
    "pages.jsonl": json.dumps({"body": "An oak is a tree that grows old.", "published": "2021-05-03"}),
    "pages-zh.jsonl": json.dumps({"text": "橡树长得很慢。"}),
    "problems.jsonl": json.dumps({"problem": "What is two and two?", "solution": "4"}),
    "verses.jsonl": json.dumps({"en": "An oak is a tree.", "sw": "Mwaloni ni mti.", "chapter": "1"}),
    "pairs.jsonl": json.dumps({"p": "What is an oak?", "c": "A tree.", "r": "A fish."}),
    "exam.csv": "q,a,b,c,d,key\nWhich of these grows slowly?,oak,grass,moss,reed,A\n",
    "sums.jsonl": json.dumps({"q": "What is two and two?", "a": "4"}),
}


@cache
def recipes() -> dict[str, bool]:
    """Return the recipes of the Justfile, each with whether it takes arguments."""
    text = (REPOSITORY / "Justfile").read_text(encoding="utf-8")
    return {name: bool(more) for name, more in re.findall(r"^(\w[\w-]*)( [*+]\w+)?:(?!=)", text, re.M)}


class Workplace:
    """A folder with domains, pipelines, profiles, and the files that the documents show."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        for name in ("pipelines", "domains", "common/evaluation/benchmarks", "tests/real"):
            shutil.copytree(REPOSITORY / name, root / name)
        for name in NEW_DOMAINS:
            new_domain(name, root / "domains", root)
        for name, text in ROWS.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        folders = {
            "pipeline": "pipelines/{}.yaml", "sequence": "pipelines/sequences/{}.yaml",
            "profile": "pipelines/profiles/{}.yaml", "manifest": "{}",
        }  # fmt: skip
        for block in (block for path in DOCUMENTS for block in blocks(path) if block.kind in folders):
            (root / folders[block.kind].format(block.name)).write_text(block.text, encoding="utf-8")
        self.planned: dict[tuple[tuple[str, str], ...], Resolved] = {}

    def check(self, arguments: Sequence[str]) -> None:
        """Check one command line of a document. Raises AssertionError, or the error that a user would see."""
        program, *rest = arguments
        if program == "just":
            assert rest == [] or rest[0] in recipes(), f"no recipe {rest[0]}"
            if not rest or rest[0] not in COMMANDS:
                assert rest[1:] == [] or recipes()[rest[0]], f"{rest[0]} takes no arguments"
                paths = [word for word in rest[1:] if word.startswith("tests/")]
                assert all((REPOSITORY / path).exists() for path in paths), paths
                return
        elif "common" in rest:
            rest = rest[rest.index("common") + 1 :]
        elif rest[:1] == ["-m"]:
            module = REPOSITORY.joinpath(*rest[1].split("."))
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), rest[1]
            return
        elif program != "domain-recipes":
            assert program in OTHER_PROGRAMS, program
            return
        if rest[1:] == ["--help"]:
            assert rest[0] in COMMANDS, rest[0]
            return
        self.check_command(*parse([self.filled(word) for word in rest], COMMANDS))

    def filled(self, word: str) -> str:
        """Return a word with something real in the place of `<…>`."""
        key, equals, value = word.partition("=")
        value = value.replace("<owner>/<name>", "owner/name").replace("<owner/name>", "owner/name")
        value = value.replace("<commit>", COMMIT).replace("<folder>", str(self.root)).replace("<name>", "none-such")
        if "<file.gguf>" in value:
            value = value.replace("<file.gguf>", str(self.gguf()))
        assert "<" not in value, f"{word}: nothing is known to fill this in with"
        return f"{key}{equals}{value}" if equals else word

    def gguf(self) -> Path:
        """Return a tiny GGUF file; it is written once."""
        path = self.root / "tiny.gguf"
        if not path.is_file():
            write_gguf(path, context=4096)
        return path

    def check_command(self, command: str, words: dict[str, str]) -> None:
        if command == "new-domain":
            (self.out / "new").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.out / "new" / "domains", ignore_errors=True)
            new_domain(words["name"], self.out / "new" / "domains", self.out / "new")
        elif command == "gc":
            assert set(words) <= {"out", "dry"}, words
            collect(Store(self.out), dry=True)
        elif command in ("status", "verify"):
            assert set(words) <= {"out"}, words
        elif command == "stage":
            self.check_stage(Path(words["plan"]), words["stage"])
        elif "describe" in words:
            check_key(words["describe"])
        else:
            self.check_run(command, words)

    def check_stage(self, plan: Path, stage: str) -> None:
        """Freeze the run that a plan's path names, read the plan back, and look for the stage."""
        _, domain, profile, pipeline, _ = plan.parts
        resolved = resolve(
            {"domain": domain, "profile": profile, "pipeline": pipeline, "out": str(self.out)}, self.root
        )
        thawed = thaw(freeze(resolved), {}, self.root)
        assert stage in [node.name for node in thawed.nodes], stage

    def check_run(self, command: str, words: dict[str, str]) -> None:
        stage = words.get("stage") if "stage" in OWN.get(command, ()) else None
        if words.get("to"):
            words["publish.to"] = json.dumps(words["to"])
        settings = {key: value for key, value in words.items() if key not in OWN.get(command, ())}
        if "domains" not in settings:
            if settings["domain"] == "all":
                assert command in ("run", "rerun", "plan"), command
                settings["domain"] = "medical"
            settings["domain"] = settings["domain"].removeprefix("./")
        settings["out"] = str(self.out)
        resolved = self.plan(settings)
        assert stage is None or stage in [node.name for node in resolved.nodes], stage

    def plan(self, words: dict[str, str]) -> Resolved:
        """Resolve and plan a run; without its data, check its settings."""
        key = tuple(sorted(words.items()))
        if key not in self.planned:
            data = words.get("data", "")
            if data.endswith(".yaml"):
                words = {**words, "data": str(self.root / data)}
            resolved = resolve_run(words, self.root)
            try:
                if not resolved.members:
                    check_settings(resolved)
                if not data.startswith("tests/real/"):
                    make_plan(resolved)
            except DataError as error:
                if "no such package is installed. Run: pip install" not in str(error):
                    raise
            self.planned[key] = resolved
        return self.planned[key]

    def check_stages(self, text: str) -> None:
        """Check the text of a domain's stages.yaml, for the tiny model and for a checkpoint."""
        folder = self.root / "domains" / "documented"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root / "domains" / "mine", folder)
        (folder / "stages.yaml").write_text(text, encoding="utf-8")
        checkpoint = {"data": "hub", "model.path": "owner/name", "model.revision": COMMIT, "pipeline": "full"}
        for words in ({}, checkpoint):
            say = {"card.limits_of_use": "None."} if "limits_of_use" not in text else {}
            check_settings(resolve({"domain": "documented", **say, **words}, self.root))
