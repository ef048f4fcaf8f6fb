"""Generated web-like documents for the bench of cleaning, and an exam that a few of them repeat.

Usage: `write_material(folder, megabytes=60)` writes `documents.jsonl`, `exam.jsonl` and the manifest `data.yaml`.

Of 100 documents about 6 are near copies of an earlier one, 2 exact copies, 5 repeat a line, 4 are too short, and one in
500 holds a question of the exam. The same size and seed give the same bytes. No document is made of more than a few
others, so memory does not grow with the size.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from common.models.tokenizer import WORDS

DOCUMENTS, EXAM, MANIFEST = "documents.jsonl", "exam.jsonl", "data.yaml"
QUESTIONS = 500
STOP_WORDS = ("the", "of", "and", "to", "in", "that", "with", "is", "for", "have")  # a fifth of all words
EARLIER = 200  # documents that may be copied


@cache
def _words() -> list[str]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def _sentence(rng: random.Random, least: int = 6, most: int = 24) -> str:
    words = rng.choices(_words(), k=rng.randint(least, most))
    for place in range(0, len(words), 5):
        words[place] = rng.choice(STOP_WORDS)
    return f"{' '.join(words).capitalize()}{rng.choice('....?!')}"


def questions(seed: int = 0) -> list[str]:
    """Return the questions of the exam."""
    rng = random.Random(f"exam {seed}")
    return [_sentence(rng, 16, 24) for _ in range(QUESTIONS)]


def _document(rng: random.Random) -> str:
    paragraphs = 1 + int(rng.expovariate(1 / 3))
    return "\n\n".join(" ".join(_sentence(rng) for _ in range(rng.randint(2, 7))) for _ in range(paragraphs))


def _changed(text: str, rng: random.Random) -> str:
    """Return a text of which two words in a hundred are others."""
    words = text.split(" ")
    return " ".join(rng.choice(_words()) if rng.random() < 0.02 else word for word in words)


def documents(megabytes: float, seed: int = 0) -> Iterator[str]:
    """Yield documents of so many megabytes together."""
    rng, asked = random.Random(seed), questions(seed)
    earlier: deque[str] = deque([_document(rng)], maxlen=EARLIER)
    size, number = 0, 0
    while size < megabytes * 1e6:
        kind = rng.random()
        if kind < 0.06:
            text = _changed(rng.choice(earlier), rng)
        elif kind < 0.08:
            text = rng.choice(earlier)
        elif kind < 0.13:
            text = "\n".join([*[_sentence(rng)] * 12, _document(rng)])
        elif kind < 0.17:
            text = _sentence(rng)
        else:
            text = _document(rng)
            earlier.append(text)
        number += 1
        if number % QUESTIONS == 0:
            text = f"{text}\n\n{rng.choice(asked)} {_sentence(rng)}"
        size += len(text) + 1
        yield text


def write_material(
    folder: Path, megabytes: float, blocks: list[object], seed: int = 0, heldout: float = 0
) -> int:  # fmt: skip
    """Write documents, exam and manifest into a folder, and return how many documents there are."""
    number = 0
    with (folder / DOCUMENTS).open("w", encoding="utf-8") as file:
        for text in documents(megabytes, seed):
            file.write(json.dumps({"text": text}) + "\n")
            number += 1
    with (folder / EXAM).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"question": text, "answer": "yes"}) + "\n" for text in questions(seed))
    sources = [
        {"id": "pages", "role": "cpt", "path": DOCUMENTS, "licence": "mit", "language": "en",
         **({"heldout": heldout} if heldout else {})},
        {"id": "exam", "role": "eval", "side": "domain", "path": EXAM, "licence": "mit",
         "columns": {"question": "question", "answer": "answer"}, "choices": ["yes", "no"]},
    ]  # fmt: skip
    top = {"title": "Generated pages", "blocks": blocks, "sources": sources}
    (folder / MANIFEST).write_text(yaml.safe_dump(top, sort_keys=False), encoding="utf-8")
    return number
