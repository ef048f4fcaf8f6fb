"""The kinds of hostile input, each a strategy of cases: what is edited, and the command that reads it.

Usage: `KINDS["manifest"]` is a strategy; `drawn("manifest", 20)` are its first 20 cases, the same in every process.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from common.config.overrides import flatten
from common.config.resolve import resolve
from tests.conftest import REPOSITORY
from tests.fuzz import documents
from tests.fuzz.sandbox import FIFO, LINK, Case
from tests.fuzz.values import TEXTS, edits_of, edits_of_text, like

COMMANDS = ("config", "config", "config", "plan", "plan", "plan", "plan", "run", "run", "run", "run", "why", "chat",
    "publish",
            "status", "gc", "verify", "stage")  # fmt: skip
NO_DOMAIN = ("status", "gc", "verify", "stage")
ALIKE = 3
OUT = "out=../out"
PLAN_PATH = "out/runs/medical/tiny/demonstration/plan.json"
SPECIAL = (FIFO, f"{LINK}/dev/zero", f"{LINK}/etc/passwd", f"{LINK}loop", f"{LINK}.", f"{LINK}/")
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Strategy = st.SearchStrategy[Case]


def _yaml(value: Any) -> bytes:
    """Write a document. What YAML cannot hold, such as half of a surrogate pair, is escaped in JSON."""
    try:
        return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6).encode(
            "utf-8", "surrogatepass"
        )
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError):
        return json.dumps(value, default=str).encode()


def _json(value: Any) -> bytes:
    return json.dumps({str(k): v for k, v in value.items()} if isinstance(value, dict) else value).encode()


@functools.cache
def known_keys() -> dict[str, Any]:
    """Return every key that a run's configuration has, as the command line names it, with a value that it takes."""
    keys: dict[str, Any] = dict.fromkeys(
        ("domain", "profile", "pipeline", "name", "data", "data_root", "stage", "freeze", "describe", "dry", "force"),
        "",
    )
    for name in ("demonstration", "rlhf", "sec"):
        config = resolve({"domain": "medical", "pipeline": name}, REPOSITORY).config
        keys |= flatten(config.model_dump(exclude={"stages"}))
        keys |= flatten({stage: settings.model_dump() for stage, settings in config.stages.items()})
    return keys


def _argument(text: str) -> str:
    """Return a text that a shell can pass: without NUL; half a surrogate stands for a byte that is not UTF-8."""
    return text.replace("\x00", "")[:120_000]


@st.composite
def overrides(draw: st.DrawFn) -> Case:
    known = known_keys()
    command = draw(st.sampled_from(COMMANDS))
    arguments = {"out": "../out"} if command in NO_DOMAIN else {"domain": "medical", "out": "../out"}
    takes_settings = command not in NO_DOMAIN
    if command == "why":
        arguments["stage"] = "sft"
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3))) if takes_settings else 1):
        key = draw(st.sampled_from(list(known))) if takes_settings else draw(st.sampled_from(("stage", "dry", "x")))
        if not draw(st.integers(0, 9)):
            key = draw(st.sampled_from((f"{key}.x", f"{key}.", f".{key}", key.upper(), draw(st.sampled_from(TEXTS)))))
        value = draw(like(known.get(key)))
        arguments[key] = value if isinstance(value, str) else json.dumps(value)
    more = (
        draw(st.sampled_from(("-v", "--version", "-h", "x", "=", "a=", "=a"))) if not draw(st.integers(0, 19)) else ""
    )
    given = [_argument(f"{key}={value}") for key, value in arguments.items()]
    return Case("overrides", (command, *given, *([more] if more else [])))


def _with_manifest(kind: str, text: bytes | str, command: str, *more: str, **files: bytes | str) -> Case:
    # Rows that are not read take no time to be laid.
    laid = (
        {f"data/{name}": content for name, content in documents.rows().items() if name.encode() in bytes(text)}
        if isinstance(text, bytes)
        else {}
    )
    arguments = (command, "domain=medical", "data=../data/data.yaml", OUT, *more)
    return Case(kind, arguments, {**laid, "data/data.yaml": text, **files})


MANIFEST_COMMANDS = st.sampled_from(("config", "plan", "plan", "run", "run"))


@st.composite
def manifest(draw: st.DrawFn) -> Case:
    """A manifest with some of its values replaced: our small one, or a shipped one."""
    own = draw(st.integers(0, 3)) > 0
    document = documents.manifest() if own else draw(st.sampled_from(documents.shipped()))
    return _with_manifest("manifest", _yaml(draw(edits_of(document))), draw(MANIFEST_COMMANDS), "pipeline=cpt-sft")


@st.composite
def manifest_text(draw: st.DrawFn) -> Case:
    """The text of a manifest with pieces put in; seldom something that is no file."""
    if not draw(st.integers(0, 12)):
        return _with_manifest("manifest text", draw(st.sampled_from(SPECIAL)), "plan")
    text = draw(st.sampled_from((_yaml(documents.manifest()), documents.SHIPPED[0].read_bytes()[:3000])))
    return _with_manifest("manifest text", draw(edits_of_text(text)), draw(MANIFEST_COMMANDS))


@st.composite
def frozen(draw: st.DrawFn) -> Case:
    plan = documents.frozen_plan()
    text = draw(st.one_of(edits_of(plan).map(_json), edits_of(plan).map(_json), edits_of_text(_json(plan))))
    stage = draw(st.sampled_from(("base", "base", "cpt", "card", "no", "..")))
    if not draw(st.integers(0, 15)):
        return Case(
            "plan", ("stage", f"plan=../{PLAN_PATH}", f"stage={stage}"), {PLAN_PATH: draw(st.sampled_from(SPECIAL))}
        )
    arguments = draw(st.sampled_from((
        ("stage", f"plan=../{PLAN_PATH}", f"stage={stage}"), ("stage", f"../{PLAN_PATH}", stage, "run.device=cpu"),
        ("publish", "domain=medical", "name=demonstration", OUT), ("status", OUT),
        ("plan", "domain=medical", "freeze=true", OUT),
    )))  # fmt: skip
    return Case("plan", arguments, {PLAN_PATH: text})


@st.composite
def pipeline(draw: st.DrawFn) -> Case:
    """A pipeline or a profile of the repository is edited, and a run that uses it, or another, is looked at."""
    paths = ("pipelines/full.yaml", "pipelines/demonstration.yaml", "pipelines/kto.yaml",
    "pipelines/profiles/tiny.yaml",
             "pipelines/profiles/smollm2-135m.yaml")  # fmt: skip
    path = draw(st.sampled_from(paths))
    text = documents.pipelines()[path]
    edited = draw(st.one_of(edits_of(yaml.safe_load(text)).map(_yaml), edits_of_text(text)))
    content = draw(st.sampled_from(SPECIAL)) if not draw(st.integers(0, 20)) else edited
    name = path.rpartition("/")[2].removesuffix(".yaml")
    which = f"profile={name}" if "profiles" in path else f"pipeline={name}"
    command = draw(st.sampled_from(("config", "plan", "plan", "run", "status")))
    used = () if command == "status" else ("domain=medical", which)
    return Case("pipeline", (command, *used, OUT), {f"repository/{path}": content}, own_repository=True)


@st.composite
def domain(draw: st.DrawFn) -> Case:
    """A file of a domain folder from elsewhere is edited."""
    files: dict[str, bytes | str] = {f"{documents.FOLDER}/{name}": text for name, text in documents.domain().items()}
    name = draw(st.sampled_from(("stages.yaml", "stages.yaml", "knowledge.yaml", "knowledge.yaml", "data.yaml",
                                 "eval/benchmarks.yaml", "eval/own.yaml")))  # fmt: skip
    path = f"{documents.FOLDER}/{name}"
    text = documents.domain()[name]
    if name == "knowledge.yaml" and not draw(st.integers(0, 3)):  # problems instead of facts
        text = (REPOSITORY / "domains" / "math" / name).read_bytes()
    if draw(st.booleans()) or name == "eval/own.yaml":
        files[path] = draw(edits_of_text(text))
    else:
        files[path] = _yaml(draw(edits_of(yaml.safe_load(text))))
    if not draw(st.integers(0, 20)):
        files[path] = draw(st.sampled_from(SPECIAL))
    more = draw(
        st.sampled_from(
            (
                (),
                (),
                ("evaluate.tasks=[own]",),
                ("data=hub",),
                ("run.allow_code=medical",),
                (f"run.allow_code={documents.FOLDER}@{'0' * 64}",),
            )
        )
    )
    command = draw(st.sampled_from(("config", "plan", "plan", "run", "run")))
    return Case("domain", (command, f"domain=../{documents.FOLDER}", OUT, *more), files)


JSON_FILES = ("config.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "model.safetensors.index.json", "chat_template.jinja")  # fmt: skip
TEMPLATES = (
    b"{{ 1 / 0 }}", b"{% for x in range(10**9) %}a{% endfor %}", b"{{ messages.__class__ }}", b"{{ 'a' * 10**10 }}",
    b"{% raise %}",
    b"{{ ''.__class__.__mro__[1].__subclasses__() }}", b"", b"{{ raise_exception('no') }}",
    b"{% include '/etc/passwd' %}",
    b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", b"{{ messages }}",
    b"{{ cycler.__init__.__globals__.os.mkdir('owned') }}",
    b"{{ range(10**12) | list }}", b"{{ 9 ** 9 ** 9 }}", b"\xff\xfe", b"{{ '\x1b[2J' }}",
)  # fmt: skip


def _with_checkpoint(kind: str, files: dict[str, bytes | str], command: str, *more: str) -> Case:
    rows = documents.rows()
    sources = [source for source in documents.manifest()["sources"] if source["id"] in ("talks", "exam")]
    laid = {"data/data.yaml": _yaml({"title": "Towns", "sources": sources})}
    laid |= {f"data/{name}": rows[name] for name in ("rows/talks.jsonl", "rows/exam.jsonl")}
    arguments = (command, "domain=medical", "data=../data/data.yaml", "pipeline=sft-only", "model.path=../checkpoint",
                 "model.licence=mit", "run.device=cpu", OUT, *more)  # fmt: skip
    return Case(kind, arguments, {**laid, **{f"checkpoint/{name}": content for name, content in files.items()}})


def good_run() -> Case:
    """Return a case that is in order, of rows."""
    return _with_manifest("rows", _yaml(documents.manifest()), "run", "pipeline=cpt-sft")


def good_checkpoint() -> Case:
    """Return a case that is in order, of a checkpoint."""
    return _with_checkpoint("checkpoint", dict(documents.checkpoint()), "run")


@st.composite
def checkpoint(draw: st.DrawFn) -> Case:
    """A JSON file or the chat template of a checkpoint is edited, is gone, or is no file."""
    files: dict[str, bytes | str] = dict(documents.checkpoint())
    name = draw(st.sampled_from(JSON_FILES))
    text = documents.checkpoint()[name]
    kind = draw(st.integers(0, 15))
    if kind == 0:
        files[name] = draw(st.sampled_from(SPECIAL))
    elif kind == 1:
        del files[name]
    elif name.endswith(".jinja"):
        files[name] = draw(st.one_of(st.sampled_from(TEMPLATES), edits_of_text(text)))
    elif kind < 7:
        files[name] = draw(edits_of_text(text))
    else:
        document = json.loads(text)
        if name == "tokenizer.json" and draw(st.booleans()):
            document["added_tokens"] = draw(edits_of(document["added_tokens"][:3]))
        files[name] = _json(draw(edits_of(document)))
    return _with_checkpoint("checkpoint", files, draw(st.sampled_from(("plan", "run", "run"))))


@st.composite
def gguf_header(draw: st.DrawFn) -> Case:
    """The header of a GGUF file is edited, or a number in it is replaced."""
    data = documents.gguf_file()
    place = draw(st.integers(0, 1200))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == 1:
        data = draw(edits_of_text(data[:2000])) + data[2000:]
    else:
        number = struct.pack("<Q", draw(st.sampled_from((0, 1, 2**16, 2**31, 2**32, 2**40, 2**63, 2**64 - 1))))
        number = number[: draw(st.sampled_from((4, 8)))]
        data = data[:place] + number + data[place + len(number) :]
    return _with_checkpoint("header", {"model.gguf": data}, draw(st.sampled_from(("plan", "run"))))


@st.composite
def header(draw: st.DrawFn) -> Case:
    """The header of a safetensors file is edited, with or without its length, or its tensors are not numbers."""
    files: dict[str, bytes | str] = dict(documents.checkpoint())
    name = draw(st.sampled_from(sorted(name for name in files if name.endswith(".safetensors"))))
    data = documents.checkpoint()[name]
    (length,) = struct.unpack("<Q", data[:8])
    found, rest = data[8 : 8 + length], data[8 + length :]
    kind = draw(st.integers(0, 9))
    if kind == 0:
        files[name] = draw(st.sampled_from(SPECIAL))
    elif kind == 1:
        files[name] = data[: draw(st.integers(0, len(data)))]
    elif kind == 2:
        files[name] = struct.pack("<Q", draw(st.sampled_from((0, 1, 2**40, 2**63, 2**64 - 1, length + 1)))) + data[8:]
    elif kind == 3:
        place = draw(st.integers(0, max(0, len(rest) // 4 - 1))) * 4
        number = draw(st.sampled_from((float("nan"), float("inf"), -float("inf"), 1e38)))
        files[name] = data[: 8 + length] + rest[:place] + struct.pack("<f", number) + rest[place + 4 :]
    else:
        text = draw(edits_of_text(found)) if kind < 6 else _json(draw(edits_of(json.loads(found))))
        files[name] = struct.pack("<Q", len(text)) + text + rest
    return _with_checkpoint("header", files, draw(st.sampled_from(("plan", "run"))))


@st.composite
def row_file(draw: st.DrawFn) -> Case:
    """A file of rows is edited, is no file, or holds values of wrong types."""
    names = [name for name in documents.rows() if "talks" in name or name.endswith((".txt", "turns.jsonl"))]
    name = draw(st.sampled_from(names))
    text = documents.rows()[name]
    kind = draw(st.integers(0, 12))
    content: bytes | str
    if kind == 0:
        content = draw(st.sampled_from(SPECIAL))
    elif kind < 5 and name.endswith(".jsonl"):
        lines = text.splitlines(keepends=True)
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = json.dumps(draw(edits_of(json.loads(lines[place])))).encode() + b"\n"
        content = b"".join(lines)
    elif kind < 5 and name.endswith(".json"):
        content = json.dumps(draw(edits_of(json.loads(text)))).encode()
    else:
        content = draw(edits_of_text(text))
    document = documents.manifest(name if "talks" in name else "rows/talks.jsonl")
    case = _with_manifest("rows", _yaml(document), draw(st.sampled_from(("plan", "run", "run"))), "pipeline=cpt-sft")
    return Case(case.kind, case.arguments, {**case.files, f"data/{name}": content})


KINDS: dict[str, Callable[[], Strategy]] = {
    "overrides": overrides, "manifest": manifest, "manifest text": manifest_text, "plan": frozen, "pipeline": pipeline,
    "domain": domain, "checkpoint": checkpoint, "header": lambda: header() | header() | gguf_header(),
    "rows": row_file,
}  # fmt: skip


def drawn(kind: str, number: int, start: int | None = None) -> list[Case]:
    """Return the first cases of a kind: always the same ones for a number; others for each `start`.

    Hypothesis follows each example with up to five that are like it; of each such group one or two are taken.
    """
    found: list[Case] = []

    @settings(max_examples=ALIKE * number, derandomize=start is None, database=None, deadline=None,
              phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(KINDS[kind]())
    def collect(case: Case) -> None:
        found.append(case)

    (collect if start is None else seed(start)(collect))()
    return list({repr(case): case for case in found[::ALIKE]}.values())[:number]
