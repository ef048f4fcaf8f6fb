"""Every folder of a root of public files through cleaning and the embedded tokenizer, in one table.

Usage: `just bench real-data data_root=<folder>`; `folders=medical/medquad,documents` takes only these.

Sources are those of the manifests of tests/real, with one list of blocks. Rows are cleaned by the product's own stages
(`data-cpt` and so on), which also keep the manifest's exam out, and tokenised as those that train would. A PDF, an HTML
page and an epub are made here, as the folder `documents`. It returns 1 where a file is read by no source.
"""

from __future__ import annotations

import fnmatch
import itertools
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from common.config.yaml import read_yaml
from tests.conftest import REPOSITORY

MANIFESTS = REPOSITORY / "tests" / "real"
PROSE = {"gutenberg-text", "annual-reports", "medquad-cpt"}  # that rules made for pages of prose fit
MOST_REASONS = 5  # that are shown of a source
LENGTH = 1024  # tokens of a sequence; longer conversations and pairs are left out, as training does
NO_DATA = ("LICENSE*", "README*", "SOURCE.txt", "test_ground_truth.json")  # the last are answers of an exam
DOCUMENTS = "documents"
ROLES = ("cpt", "sft", "preference")
HEADER = ["folder", "source", "role", "rows", "left", "characters", "tokens", "seconds", "dropped", "changed"]
Source = dict[str, Any]


def blocks_for(sources: list[Source]) -> list[Any]:
    """Return the blocks for some sources: all of them, but for what would drop chats that share a passage, or verses.

    Near copies are looked for among documents: many questions about one passage are as alike as copies are.
    """
    texts = [one["id"] for one in sources if one["role"] == "cpt"]
    prose = [name for name in texts if name in PROSE]
    return [
        "unicode", "language", "boilerplate", {"repeated_lines": {"documents": 20}},
        *([{"gopher_repetition": {"sources": prose}}] if prose else []), "exact",
        *([{"minhash": {"sources": texts}}] if texts else []), "pii", {"length": {"words": [3, None]}},
    ]  # fmt: skip


def paths_of(source: Source) -> list[str]:
    path = source["path"]
    return [path] if isinstance(path, str) else list(path)


def folder_of(source: Source) -> str:
    return "/".join(paths_of(source)[0].split("/")[:2])


def groups() -> tuple[dict[str, list[list[Source]]], list[str]]:
    """Return by folder the sources that are cleaned together, with the exams of their manifest; and all paths read.

    Each manifest gives the sources of the folder of its own name; that of unused files gives all.
    """
    found: dict[str, list[list[Source]]] = defaultdict(list)
    read: list[str] = []
    for manifest in sorted(MANIFESTS.glob("*.yaml")):
        sources = [one for one in read_yaml(manifest)["sources"] if "path" in one]
        exams = [one for one in sources if one["role"] == "eval"]
        own: dict[str, list[Source]] = defaultdict(list)
        for one in sources:
            folder = folder_of(one)
            if one["role"] in ROLES and manifest.stem in (folder.split("/")[0], "unused"):
                own[folder].append(one)
        read += [path for one in itertools.chain(exams, *own.values()) for path in paths_of(one)]
        for folder, listed in own.items():
            found[folder].append([*listed, *exams])
    return dict(sorted(found.items())), read


def unread(root: Path, read: list[str]) -> list[str]:
    """Return the files below a root that no source reads."""
    files = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    return [
        name
        for name in files
        if not any(fnmatch.fnmatch(name, path) for path in read)
        and not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in NO_DATA)
    ]


def make_documents(root: Path) -> list[Source]:
    """Write a page, a report and a book below a root, and return their sources."""
    from tests.data.manifest.documents import makers

    folder = root / DOCUMENTS
    folder.mkdir()
    chapters = {
        f"{number}.xhtml": makers.page(f"<h1>Chapter {number}</h1><p>{text}</p>")
        for number, text in enumerate(makers.PROSE, start=1)
    }
    (folder / "page.html").write_text(makers.article([f"{text} So says a page." for text in makers.PROSE]), "utf-8")
    (folder / "book.epub").write_bytes(makers.epub(chapters))
    report = [f"Report. {text} See page {number}." for number, text in enumerate(makers.PROSE, start=2)]
    (folder / "report.pdf").write_bytes(makers.pdf([*report, None]))
    return [
        {"id": name.partition(".")[0], "role": "cpt", "path": f"{DOCUMENTS}/{name}", "licence": "mit", "language": "en"}
        for name in ("page.html", "book.epub", "report.pdf")
    ]


def clean(root: Path, sources: list[Source], out: Path, tokenizer: Any) -> Iterator[list[str]]:
    """Clean and tokenise some sources of a root; yield a line of the table for each."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.data.cleaned import Cleaned, CleanedRows
    from common.data.cleaning.accounts import LEFT
    from common.engine.corpora import open_corpus, pipeline_for
    from common.engine.run import run_stage

    manifest = out / "data.yaml"
    top = {"title": "Real data", "blocks": blocks_for(sources), "sources": sources}
    manifest.write_text(yaml.safe_dump(top, allow_unicode=True), encoding="utf-8")
    words = {
        "domain": "medical", "data": str(manifest), "data_root": str(root), "out": str(out), "run.verbosity": "quiet",
    }  # fmt: skip
    pipeline = pipeline_for(resolve({**words, "pipeline": "cpt-only"}, REPOSITORY))
    assert pipeline is not None, "a shipped pipeline trains on each of the roles"
    resolved = resolve({**words, "pipeline": pipeline}, REPOSITORY)
    for role in (role for role in ROLES if any(one["role"] == role for one in sources)):
        started = time.monotonic()
        artifact = run_stage(resolved, f"data-{role}", Console("quiet"))
        corpus = Cleaned(open_corpus(resolved), {role: artifact.path})
        counts, seconds = tokenised(corpus, role, tokenizer), f"{time.monotonic() - started:.0f}"
        for count in counts:
            size = CleanedRows(artifact.path).facts["amounts"][LEFT][count.source]["characters"]
            changed = Counter(corpus.counts(role)[count.source].changed) + Counter(count.changed)
            yield [
                count.source, role, f"{count.num_read:,}", f"{count.rows_out:,}", f"{size:,}", f"{count.tokens:,}",
                seconds, _listed(count.gone), _listed(changed),
            ]  # fmt: skip
            seconds = ""


def tokenised(corpus: Any, role: str, tokenizer: Any) -> list[Any]:
    """Return the accounts of a role's rows from the files to tokens, as a stage that trains closes them."""
    from common.training.rows.preferences import read_preferences
    from common.training.rows.reader import Reader

    settings = SimpleNamespace(sequence_length=LENGTH, epochs=1.0, steps=None, batch_pairs=16)
    context: Any = SimpleNamespace(
        corpus=corpus, config=SimpleNamespace(seed=0), stage=role, inputs={}, settings=settings
    )
    if role == "preference":
        return read_preferences(context, tokenizer, role)[1]
    reader = Reader(context, tokenizer, role, chat_only=False)
    for _ in reader.tokens(assistant_only=role == "sft", sequence_length=LENGTH, budget=None):
        pass
    return reader.finish(1.0)


def _listed(counts: Mapping[str, int]) -> str:
    """Return the reasons with most rows, and how many rows there are besides."""
    listed = sorted(counts.items(), key=lambda one: -one[1])
    shown, rest = listed[:MOST_REASONS], sum(number for _, number in listed[MOST_REASONS:])
    return ", ".join(f"{what} {number:,}" for what, number in [*shown, *([("others", rest)] if rest else [])]) or "-"


def _total(lines: list[list[str]]) -> list[str]:
    """Return the sums of the columns of numbers."""
    sums = [sum(int(line[place].replace(",", "") or 0) for line in lines) for place in range(3, 8)]
    return ["all", "", "", *(f"{number:,}" for number in sums), "", ""]


def embedded_tokenizer() -> Any:
    """Return the tokenizer that the base of the tiny profile makes of the embedded general world."""
    from common.config.resolve import resolve
    from common.engine.corpora import open_corpus
    from common.models.tokenizer import common_words, train_tokenizer

    resolved = resolve({"domain": "medical"}, REPOSITORY)
    texts = (row["text"] for row in open_corpus(resolved).rows("pretrain") if "text" in row)
    return train_tokenizer(itertools.chain(texts, common_words()), resolved.config.model.vocabulary_size, LENGTH)


def main(data_root: str = "", folders: str = "") -> int:
    """Clean all folders, print the table, and return how many files no source reads."""
    from common.cli.output import table
    from common.console import Console

    found, read = groups() if data_root else ({}, [])
    root, asked = Path(data_root), [name for name in folders.split(",") if name]
    if unknown := sorted(set(asked) - {*found, DOCUMENTS}):
        known = ", ".join([*found, DOCUMENTS])
        print(f"error: folders={unknown[0]}: no source reads it. Known: {known}.", file=sys.stderr)
        return 1
    tokenizer, lines = embedded_tokenizer(), []
    with tempfile.TemporaryDirectory() as place:
        work = [(folder, root, listed) for folder, all_listed in found.items() for listed in all_listed]
        work.append((DOCUMENTS, Path(place), make_documents(Path(place))))
        for number, (folder, start, sources) in enumerate(work):
            if not asked or folder in asked:
                out = Path(place) / f"out-{number}"
                out.mkdir()
                for line in clean(start, sources, out, tokenizer):
                    lines.append([folder, *line])
    table(Console(), HEADER, [*lines, _total(lines)], numeric=range(3, 8))
    left = unread(root, read) if data_root else []
    for name in left:
        print(f"  MISS no source reads {name}")
    if not data_root:
        print("  Only the documents made here: give data_root=<folder> for the folders of tests/real.")
    return len(left)
