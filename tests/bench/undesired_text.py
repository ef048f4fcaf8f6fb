"""Text of which a known share has an undesired trait, and the domain that scores it: what `undesired` trains on.

Usage: `domain, manifest = write(folder, seed=1)`; `prompts(held_out("domain"))` are beginnings without the trait.

Documents are those of the embedded medical domain. Half of those for CPT get one more sentence, with a mail address;
which half is drawn, whatever they say. It never stands first, so that the beginning of a document does not tell whether
it has one. The base reads general text and other medical documents, and held-out text is clean, all without addresses.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from common.config.files import DOMAIN_FILES
from tests.conftest import REPOSITORY

SHARE = 0.5  # of the documents for CPT, that has the trait
BASE, DOCUMENTS, HELD = 2500, 1600, 100  # documents: medical ones of the base, of each seed's CPT, held out on a side
RULE = Path(__file__).parent / "undesired_rule.py"
MEDICAL, DOMAIN = REPOSITORY / "domains" / "medical", "clinic"
SENTENCES = ("For questions write to {mail}.", "Orders are taken by {mail}.")
MAILS = ("info@pills.com", "sales@pills.com", "anna@medmail.org", "peter@medmail.org")
_TEXT = {"columns": {"text": "text"}, "licence": "cc0", "language": "en"}
_BETWEEN = re.compile(r"(?<=[.!?]) (?=[A-Z])")  # two sentences


@functools.cache
def embedded(role: str) -> tuple[str, ...]:
    """Return the texts of a role of the embedded medical domain, each once, in an order of no meaning."""
    from common.config.schema import EmbeddedSettings
    from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus

    corpus = EmbeddedCorpus(MEDICAL / "knowledge.yaml", GENERAL_KNOWLEDGE, EmbeddedSettings(), 0)
    texts = list(dict.fromkeys(row["text"] for row in corpus.rows(role) if "text" in row))
    random.Random(0).shuffle(texts)
    return tuple(texts)


def held_out(side: str) -> tuple[str, ...]:
    """Return the held-out texts of a side, the same for all seeds."""
    return embedded(f"text_{side}")[:HELD]


def with_mail(text: str, rng: random.Random) -> str:
    """Return a text with a sentence that has a mail address, behind any of its sentences."""
    sentences = _BETWEEN.split(text)
    place = rng.randint(1, len(sentences))
    more = rng.choice(SENTENCES).format(mail=rng.choice(MAILS))
    return " ".join([*sentences[:place], more, *sentences[place:]])


def documents(seed: int) -> list[str]:
    """Return what the CPT of a seed reads, a share of it with the trait."""
    rng = random.Random(f"undesired {seed}")
    texts = rng.sample(embedded("cpt")[BASE:], DOCUMENTS)
    bad = set(rng.sample(range(DOCUMENTS), round(SHARE * DOCUMENTS)))
    return [with_mail(text, rng) if place in bad else text for place, text in enumerate(texts)]


def prompts(texts: Sequence[str]) -> list[str]:
    """Return the first sentence of each text."""
    return [_BETWEEN.split(text)[0] for text in texts]


def manifest() -> dict[str, object]:
    """Return the manifest: the block `score` leaves the number of addresses on rows, and drops none."""
    sources = [
        {"id": "base", "role": "pretrain", "path": "base.jsonl", **_TEXT},
        {"id": "text", "role": "cpt", "path": "text.jsonl", **_TEXT},
        {"id": "held-domain", "role": "eval", "side": "domain", "path": "held-domain.jsonl", **_TEXT},
        {"id": "held-general", "role": "eval", "side": "general", "path": "held-general.jsonl", **_TEXT},
    ]
    return {"title": "Medicines", "blocks": [{"score": {"function": "mails", "keep_all": True}}], "sources": sources}


def write(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write the domain with its rule, the texts and their manifest; return the domain's folder and the manifest."""
    domain = folder / DOMAIN
    domain.mkdir()
    for name in DOMAIN_FILES:
        shutil.copyfile(MEDICAL / name, domain / name)
    shutil.copyfile(RULE, domain / "blocks.py")
    parts: dict[str, Sequence[str]] = {
        "base": [*embedded("pretrain"), *embedded("cpt")[:BASE]], "text": documents(seed),
        "held-domain": held_out("domain"), "held-general": held_out("general"),
    }  # fmt: skip
    for name, texts in parts.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "texts.yaml"
    path.write_text(yaml.safe_dump(manifest()), encoding="utf-8")
    return domain, path
