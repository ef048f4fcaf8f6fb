"""Finding copies of exam questions, on real text: what is found and lost per script, and documents per second.

Usage: `python -m tests.bench.decontamination <data_root>`; for datatrove's filter it must be installed.

Questions are sentences of the Universal Declaration of Human Rights and those of MGSM; clean rows are the declaration's
other sentences, and other text where there is some. Speed is that of one core on MedQuAD, processor seconds.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from common.data.decontaminate import Decontaminator
from common.data.words import count_words, words_of
from tests.data.planted import CHANGES
from tests.data.typos import KINDS, mistyped

SCRIPTS = {
    "latin": "en", "cyrillic": "ru", "arabic": "ar", "devanagari": "hi", "han": "zh", "thai": "th", "hangul": "ko",
}  # fmt: skip
AS_THEY_ARE = (
    "exact", "spaced", "hyphenated at line ends", "soft hyphens", "zero-width spaces", "upper case", "lower case",
)  # fmt: skip
_ENDS = re.compile(r"(?<=[.!?;,:\u060c\u061b\u0964\u061f\u3002\uff0c\uff1b\uff01\uff1f])\s*|\n")
_SENTENCES = re.compile(r"(?<=[.!?\u061f])\s+|(?<=[\u3002\uff01\uff1f])|\n")
Copy = Callable[[str, random.Random], str]


def read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def material(root: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return questions and clean rows by script."""
    parts: dict[str, list[str]] = defaultdict(list)
    for row in read(root / "multilingual" / "udhr" / "udhr.jsonl"):
        parts[row["lang"]] += [part.strip() for part in _ENDS.split(row["text"]) if part.strip()]
    found = {}
    for script, language in SCRIPTS.items():
        listed = list(dict.fromkeys(parts[language]))
        random.Random(0).shuffle(listed)
        long = [text for text in listed if count_words(text) >= 6]
        asked = long[: len(long) // 2]
        mgsm = root / "multilingual" / "mgsm" / f"mgsm_{language}.tsv"
        more = mgsm.read_text("utf-8").splitlines() if mgsm.is_file() else []
        asked += [line.split("\t")[0] for line in more]
        held = {tuple(words_of(text)) for text in asked}
        rows = [text for text in listed if tuple(words_of(text)) not in held]
        found[script] = asked, rows + _elsewhere(root, script)
    return found


def _elsewhere(root: Path, script: str) -> list[str]:
    if script not in ("latin", "han"):
        return []
    rows = read(root / "multilingual" / "xquad" / f"xquad.{SCRIPTS[script]}.jsonl")
    contexts = dict.fromkeys(row["context"] for row in rows)
    return [part.strip() for text in contexts for part in _ENDS.split(text) if part.strip()]


def recall(guard: Decontaminator, asked: Sequence[str], rows: Sequence[str], copies: Mapping[str, Copy]) -> float:
    """Return the share of copies of questions that are found between two clean rows."""
    rng = random.Random(1)
    found = [
        guard.hit(f"{rng.choice(rows)}\n{copy(text, rng)}\n{rng.choice(rows)}") is not None
        for copy in copies.values() for text in asked
    ]  # fmt: skip
    return sum(found) / len(found)


def _changed(name: str, text: str, _: random.Random) -> str:
    return CHANGES[name](text)


def _mistyped(kind: str, text: str, rng: random.Random) -> str:
    return mistyped(text, kind, rng)


def show_scripts(root: Path) -> None:
    print(f"  {'script':<12}{'questions':>10}{'as they are':>13}{'typing error':>14}{'clean rows':>12}{'lost':>6}")
    exact: dict[str, Copy] = {name: partial(_changed, name) for name in AS_THEY_ARE}
    slips: dict[str, Copy] = {kind: partial(_mistyped, kind) for kind in KINDS}
    for script, (asked, rows) in material(root).items():
        guard = Decontaminator(asked)
        kept = (recall(guard, asked, rows, exact), recall(guard, asked, rows, slips))
        lost = sum(guard.hit(row) is not None for row in rows)
        well = kept[0] >= 0.98 and kept[1] >= 0.90 and lost <= 0.001 * len(rows)
        line = f"{script:<12}{len(asked):>10}{kept[0]:>13.3f}{kept[1]:>14.3f}{len(rows):>12}{lost:>6}"
        print(f"  {line}  {'ok' if well else 'MISS'}", flush=True)


def show_contexts(root: Path) -> None:
    """Print how many sentences of the texts that XQuAD asks about are lost to its questions, and how fast that is."""
    print(f"  {'XQuAD':<12}{'questions':>10}{'sentences':>11}{'lost':>6}{'characters/s':>14}")
    for path in sorted((root / "multilingual" / "xquad").glob("xquad.*.jsonl")):
        rows = list(read(path))
        contexts = list(dict.fromkeys(row["context"] for row in rows))
        guard = Decontaminator(row["question"] for row in rows)
        sentences = [part.strip() for text in contexts for part in _SENTENCES.split(text) if part.strip()]
        lost = sum(guard.hit(part) is not None for part in sentences)
        seconds = min(_seconds(partial(list, map(guard.hit, texts))) for texts in [contexts] * 5)
        line = f"{path.stem.split('.')[1]:<12}{len(rows):>10}{len(sentences):>11}{lost:>6}"
        well = lost <= 0.001 * len(sentences)
        print(f"  {line}{sum(map(len, contexts)) / seconds:>14,.0f}  {'ok' if well else 'MISS'}", flush=True)


def show_speed(root: Path) -> None:
    """Print documents per second of our filter and of datatrove's, on the same rows and questions."""
    rows = [
        " ".join(str(value) for value in row.values() if isinstance(value, str))
        for path in sorted((root / "medical" / "medquad").glob("*.jsonl")) for row in read(path)
    ][:4000]  # fmt: skip
    asked = [row["question"] for row in read(root / "multilingual" / "xquad" / "xquad.en.jsonl")]
    guard = Decontaminator(asked)
    ours = min(_seconds(lambda: [guard.hit(row) for row in rows]) for _ in range(3))
    theirs = min(_seconds(judge) for judge in [_datatrove(asked, rows)] * 3)
    print(
        f"  {len(rows) / ours:,.0f} documents/s; datatrove {len(rows) / theirs:,.0f}: {theirs / ours:.2f} times as fast"
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _datatrove(asked: Sequence[str], rows: Sequence[str]) -> Callable[[], object]:
    """Return datatrove's filter over the rows. It looks for runs of 13 words as well, cut by our words."""
    n_grams, texts = map(import_module, ("datatrove.pipeline.decont.n_grams", "datatrove.utils.text"))
    document_of = import_module("datatrove.data").Document

    class Words:
        word_tokenize = staticmethod(str.split)  # the quickest there is; its own need data that are not installed

    n_grams.load_word_tokenizer = lambda language: Words()  # type: ignore[attr-defined]  # seen as Any
    config = n_grams.NGramsDecontConfig(n_grams=13)
    judge = n_grams.NGramsDecontFilter(".", config)
    # Its own function gives xxhash a str, which releases from 4 on refuse.
    digest = import_module("xxhash").xxh64_intdigest
    judge.hash_func = lambda run: digest(run.encode())
    judge._index_hashes = {
        judge.hash_func(" ".join(run)): "exam"
        for text in asked for run in texts.ngrams(texts.simplify_text(text, config.norm_config).split(), 13)
    }  # fmt: skip
    documents = [document_of(text=row, id=str(number)) for number, row in enumerate(rows)]
    return lambda: [judge.filter(document) for document in documents]


if __name__ == "__main__":
    show_scripts(Path(sys.argv[1]))
    show_contexts(Path(sys.argv[1]))
    show_speed(Path(sys.argv[1]))
