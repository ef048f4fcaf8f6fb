"""Whether cleaning pays: bits per byte of the tiny model, trained on dirty text as it is and behind each block.

Usage: `just bench cleaning-pays data_root=<folder>`; `seeds=0` and `arms=dirty,exact` take fewer,
`tokens=` and `documents=` another budget and corpus.

Novels of the data root (without one, the embedded general text) are soiled in known ways, see `tests.bench.dirt`. All
arms train on the same number of tokens, so that dirt takes the place of text. What is left of it differs: a smaller
corpus is read more often. Held-out text is clean. `clean` trains on the text before it was soiled: nothing should beat
it. It says nothing of larger models, or of dirt of other kinds and shares.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.bench.dirt import KINDS, soiled
from tests.bench.paired import interval
from tests.conftest import REPOSITORY

HELD, BASE, DOCUMENTS = 60, 200, 400  # documents: for bits per byte, for the base, of each seed's corpus
CHARACTERS = 700  # of a document, about
BASE_TOKENS, TOKENS = 49_152, 204_800  # the latter is two fifths of the dirty text, and all of the clean and a third
DIRTY, CLEAN, ALL = "dirty", "clean", "all-blocks"
ARMS: dict[str, list[Any]] = {
    DIRTY: [],
    "unicode": ["unicode"],
    "boilerplate": ["boilerplate"],
    "repeated_lines": ["repeated_lines"],
    "language": ["language"],
    "length": [{"length": {"words": [20, None]}}],
    "gopher_quality": ["gopher_quality"],
    "gopher_repetition": ["gopher_repetition"],
    "exact": ["exact"],
    "minhash": ["minhash"],
    "pii": ["pii"],
    CLEAN: [],
}
BLOCKS = [name for name, blocks in ARMS.items() if blocks]
ARMS[ALL] = [block for name in BLOCKS for block in ARMS[name]]
_TEXT = {"columns": {"text": "text"}, "licence": "public domain", "language": "en"}


def documents_of(root: Path | None) -> tuple[list[str], list[str]]:
    """Return clean English documents, and some in other languages."""
    if root is None:
        return list(_joined(_embedded("medical", "pretrain"))), list(_joined(_embedded("multilingual", "cpt")))
    books = sorted((root / "general" / "gutenberg_en").glob("*_*.txt"))
    english = [text for book in books for text in _joined(book.read_text("utf-8").split("\n\n"))]
    verses = sorted((root / "multilingual" / "bible_nt").glob("*.jsonl"))
    return english, [text for book in verses for text in _joined(_texts(book))]


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _embedded(domain: str, role: str) -> Iterator[str]:
    """The embedded text of a role; of a domain of several languages not the English one."""
    from common.config.schema import EmbeddedSettings
    from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus

    folder = REPOSITORY / "domains" / domain
    corpus = EmbeddedCorpus(folder / "knowledge.yaml", GENERAL_KNOWLEDGE, EmbeddedSettings(), 0)
    for row in corpus.rows(role):
        if "text" in row and (role == "pretrain" or row.get("language") not in (None, "en")):
            yield row["text"]


def _joined(paragraphs: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """Put whole paragraphs together, to documents of a length."""
    held: list[str] = []
    for paragraph in paragraphs:
        held.append(paragraph.strip())
        if sum(map(len, held)) >= CHARACTERS:
            yield "\n".join(held)
            held = []


def write_corpora(folder: Path, root: Path | None, seed: int, documents: int) -> None:
    """Write what a seed trains on and is measured by. Held-out text and the base's are the same for all seeds."""
    english, foreign = documents_of(root)
    english = list(dict.fromkeys(english))
    assert len(english) >= HELD + BASE + 10, f"{len(english)} documents are too few"
    random.Random(0).shuffle(english)
    held, base, rest = english[:HELD], english[HELD : HELD + BASE], english[HELD + BASE :]
    clean = random.Random(seed).sample(rest, min(documents, len(rest)))
    parts = {
        "held": [text[:CHARACTERS] for text in held],
        "base": base,
        CLEAN: clean,
        DIRTY: soiled(clean, foreign, seed),
    }
    for name, texts in parts.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def manifest(folder: Path, arm: str) -> Path:
    """Write the manifest of one arm."""
    sources = [
        {"id": "base", "role": "pretrain", "path": "base.jsonl", **_TEXT},
        {"id": "text", "role": "cpt", "path": f"{CLEAN if arm == CLEAN else DIRTY}.jsonl", **_TEXT},
        {"id": "held", "role": "eval", "side": "domain", "path": "held.jsonl", **_TEXT},
    ]
    path = folder / f"{arm}.yaml"
    path.write_text(yaml.safe_dump({"title": "Novels", "blocks": ARMS[arm], "sources": sources}), encoding="utf-8")
    return path


def train(folder: Path, arm: str, seed: int, tokens: int) -> dict[str, float]:
    """Clean, train and measure one arm with the product's own stages; return what was found."""
    from common.config.resolve import resolve
    from common.console import Console
    from common.engine.run import run_stage

    words = {
        "domain": "medical", "pipeline": "cpt-only", "data": str(manifest(folder, arm)), "out": str(folder / "out"),
        "seed": str(seed), "run.verbosity": "quiet", "base.tokens": str(min(BASE_TOKENS, tokens)),
        "data-pretrain.blocks": "[]", "cpt.tokens": str(tokens), "cpt.batch_tokens": "1024", "cpt.replay": "0",
        "evaluate.text_documents": str(HELD), "evaluate.written": "false",
    }  # fmt: skip
    resolved, started, made = resolve(words, REPOSITORY), 0.0, {}
    for stage in ("data-pretrain", "base", "data-cpt", "cpt", "exam-cpt"):
        if stage == "data-cpt":  # all arms share the base
            started = time.monotonic()
        made[stage] = run_stage(resolved, stage, Console("quiet")).manifest
    cleaned = made["data-cpt"]["metrics"]
    return {
        "bits": made["exam-cpt"]["metrics"]["domain_bits_per_byte"], "rows": cleaned["rows_out"],
        "characters": cleaned["characters"], "seconds": time.monotonic() - started,
    }  # fmt: skip


def verdict(mean: float, half: float) -> str:
    """Say in words what a difference of bits per byte against the dirty text shows."""
    if mean + half < 0:
        return "pays"
    return "costs" if mean - half > 0 else "no difference shown"


def show(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Print the table: each arm over its seeds, and its difference against the dirty text, paired by seed."""

    def with_half(values: Sequence[float], sign: str = "") -> str:
        mean, half = interval(values)
        return f"{mean:{sign}.4f}" + (f" ± {half:.4f}" if len(values) > 1 else "")

    print(f"  {'arm':<18} {'rows':>6} {'characters':>11} {'bits/byte':>17} {'against dirty':>18}", end="")
    print(f"  {'':<20} {'seconds':>7}")
    for arm, runs in found.items():
        mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
        differences = [one["bits"] - other["bits"] for one, other in zip(runs, found[DIRTY], strict=True)]
        shown = "" if arm == DIRTY else with_half(differences, "+")
        words = verdict(*interval(differences)) if shown and len(runs) > 1 else ""
        print(
            f"  {arm:<18} {mean['rows']:>6,.0f} {mean['characters']:>11,.0f} "
            f"{with_half([run['bits'] for run in runs]):>17} {shown:>18}  {words:<20} {mean['seconds']:>7.0f}"
        )


def main(
    data_root: str = "", seeds: str = "0,1,2", arms: str = "", tokens: str = str(TOKENS),
    documents: str = str(DOCUMENTS),
) -> int:  # fmt: skip
    """Train all arms and print the table. Returns 1 where all blocks together do not beat the dirty text."""
    asked = [arm for arm in arms.split(",") if arm] or list(ARMS)
    if unknown := sorted(set(asked) - set(ARMS)):
        print(f"error: arms={unknown[0]}: there is no such arm. Known: {', '.join(ARMS)}.", file=sys.stderr)
        return 1
    names = [arm for arm in ARMS if arm in {DIRTY, *asked}]
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in names}
    print("  dirt, in documents to 100 clean ones: " + ", ".join(f"{n} {k.share:.0%}"[:-1] for n, k in KINDS.items()))
    for seed in map(int, seeds.split(",")):
        with tempfile.TemporaryDirectory() as place:
            write_corpora(Path(place), Path(data_root) if data_root else None, seed, int(documents))
            for arm in names:
                found[arm].append(train(Path(place), arm, seed, int(tokens)))
                print(f"    seed {seed}, {arm}: {json.dumps(found[arm][-1])}", flush=True)
        show(found)
    if ALL not in found or len(found[ALL]) < 2:
        return 0
    differences = [one["bits"] - other["bits"] for one, other in zip(found[ALL], found[DIRTY], strict=True)]
    return int(verdict(*interval(differences)) != "pays")
