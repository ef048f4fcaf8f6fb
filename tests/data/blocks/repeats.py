"""Texts in several scripts, changed copies of them, and a driver for blocks that see all rows before they decide.

Usage: `text = made(rng, "han", 200)`; `found = run_block("exact", {}, tasks, folder)`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from common.config.blocks import BlockContext, Drop, Row, Task, block_of
from common.data.shards import write_shard

# First and last letter of words; how long words are; what stands between them; what ends a sentence.
LETTERS: dict[str, tuple[tuple[str, str], tuple[int, int], str, str]] = {
    "latin": (("a", "z"), (2, 10), " ", ". "),
    "cyrillic": (("\u0430", "я"), (2, 10), " ", ". "),
    "arabic": (("ن", "ي"), (2, 8), " ", ". "),
    "devanagari": (("क", "ह"), (2, 7), " ", "। "),
    "han": (("一", "龥"), (1, 3), "", "。"),
    "thai": (("ก", "ฮ"), (2, 6), "", " "),
}
T = TypeVar("T")
SCRIPTS = tuple(LETTERS)


def vocabulary(script: str, size: int = 4000) -> list[str]:
    """Return the words of a script, the same every time; the first ones are as common as in a language."""
    rng, ((first, last), (least, most), _, _) = random.Random(script), LETTERS[script]
    return [
        "".join(chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(least, most))) for _ in range(size)
    ]


WORDS = {script: vocabulary(script) for script in SCRIPTS}


def made(rng: random.Random, script: str, words: int) -> str:
    """Return a text of about so many words, in sentences; half of the words are among the fifty most common."""
    return written(script, [_word(rng, script) for _ in range(words)], rng)


def _word(rng: random.Random, script: str) -> str:
    return WORDS[script][int(4000 * rng.random() ** 4)]


def written(script: str, words: Sequence[str], rng: random.Random) -> str:
    """Return words as sentences."""
    blank, end = LETTERS[script][2:]
    sentences = []
    while words:
        length = rng.randint(5, 15)
        sentences.append(blank.join(words[:length]) + end)
        words = words[length:]
    return "".join(sentences).strip()


def changed(rng: random.Random, script: str, text: str, times: int) -> str:
    """Return a text in which some words, or pieces of it, are others."""
    for _ in range(times):
        start = rng.randrange(len(text))
        text = f"{text[:start]}{_word(rng, script)}{text[start + 3 :]}"
    return text


def run_block(
    name: str, values: Mapping[str, Any], tasks: Sequence[Sequence[Row]], folder: Path, *,
    order: Sequence[int] | None = None, earlier: Mapping[str, Sequence[Sequence[Row]]] | None = None,
) -> list[list[Row | Drop]]:  # fmt: skip
    """Take the rows of each task through a block, each step with an object of its own, in any order of the tasks."""
    block = block_of(name)
    folders = {}
    for role, shards in (earlier or {}).items():
        folders[role] = folder / "stages" / role
        for number, rows in enumerate(shards):
            write_shard(folders[role] / "rows" / f"{number:05d}.jsonl.zst", rows)
    settings = block.settings.model_validate(values)
    context = BlockContext(folder / "block", "sft", earlier=folders)
    context.folder.mkdir(parents=True, exist_ok=True)
    assert block.look is not None
    for number in order or range(len(tasks)):
        seen = list(block.look(settings, context).look(Task(number, len(tasks)), iter(tasks[number])))
        assert seen == list(tasks[number])
    block.look(settings, context).decide(len(tasks))
    found = []
    for number, rows in enumerate(tasks):
        judge = block.look(settings, context).judge(Task(number, len(tasks)))
        found.append([judge(place, row) for place, row in enumerate(rows)])
    return found


def dealt(rows: Sequence[T], tasks: int) -> list[list[T]]:
    """Return rows in so many shares, each one following the other."""
    size = -(-len(rows) // tasks)
    return [list(rows[start * size : (start + 1) * size]) for start in range(tasks)]
