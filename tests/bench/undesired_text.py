"""Text of which a known share has an undesired trait, and the domain that scores it: what `undesired` trains on.

Usage: `domain, manifest = write(folder, seed=1)`; `prompts(texts_of().held["domain"])` are beginnings without it.

Documents are those of the embedded medical domain, or real ones: short answers of MedQuAD, beside paragraphs of novels.
Half of those for CPT get one more sentence, with a mail address; which half is drawn, whatever they say. It never
stands first, so that the beginning of a document does not tell whether it has one. The base reads general text and
other medical documents, and held-out text is clean, all without addresses.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from common.config.files import DOMAIN_FILES
from tests.bench.arm import SIDES, Side
from tests.conftest import REPOSITORY

SHARE = 0.5  # of the documents for CPT, that has the trait
HELD = 100  # texts that are held out on a side
ANSWERS, NOVELS = "medical/medquad/*_QA*.jsonl", "general/gutenberg_en"
READ, UNREAD = ("Dracula_345.txt", "Emma_158.txt", "Jane-Eyre_1260.txt"), "Treasure-Island_120.txt"


class Size(NamedTuple):
    """Numbers of documents: medical ones of the base, those of each seed's CPT, and general ones of the base."""

    base: int
    documents: int
    general: int | None = None


SIZES = {"embedded": Size(2500, 1600), "real": Size(400, 1200, 1000)}
RULE = Path(__file__).parent / "undesired_rule.py"
MEDICAL, DOMAIN = REPOSITORY / "domains" / "medical", "clinic"
SENTENCES = ("For questions write to {mail}.", "Orders are taken by {mail}.")
MAILS = ("info@pills.com", "sales@pills.com", "anna@medmail.org", "peter@medmail.org")
_TEXT = {"columns": {"text": "text"}, "licence": "cc0", "language": "en"}
_BETWEEN = re.compile(r"(?<=[.!?]) (?=[A-Z])")  # two sentences


class Texts(NamedTuple):
    """What a model reads and is asked about, all without the trait; documents of its CPT are drawn from a pool."""

    general: Sequence[str]  # of the base
    medical: Sequence[str]  # of the base
    pool: Sequence[str]
    held: Mapping[Side, Sequence[str]]  # by side


@functools.cache
def texts_of(data_root: str = "") -> Texts:
    """Return the embedded texts, or with a folder of public files real ones. Raises ValueError where too few fit."""
    if data_root:
        return real(Path(data_root))
    medical, base = embedded("cpt"), SIZES["embedded"].base
    held: dict[Side, Sequence[str]] = {side: embedded(f"text_{side}")[:HELD] for side in SIDES}
    return Texts(embedded("pretrain"), medical[:base], medical[base:], held)


def embedded(role: str) -> tuple[str, ...]:
    """Return the texts of a role of the embedded medical domain, each once, in an order of no meaning."""
    from common.config.schema import EmbeddedSettings
    from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus

    corpus = EmbeddedCorpus(MEDICAL / "knowledge.yaml", GENERAL_KNOWLEDGE, EmbeddedSettings(), 0)
    return shuffled(row["text"] for row in corpus.rows(role) if "text" in row)


def shuffled(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts, each once, in an order of no meaning."""
    found = list(dict.fromkeys(texts))
    random.Random(0).shuffle(found)
    return tuple(found)


def real(root: Path) -> Texts:
    """Return real texts; of answers that begin with the same sentence, as those about inheritance do, one stays."""
    missing = [name for name in (*READ, UNREAD) if not (root / NOVELS / name).is_file()]
    if missing:
        raise ValueError(f"data_root={root}: there is no {NOVELS}/{missing[0]}. Name the folder with the public files.")
    answers = (json.loads(line)["answer"] or "" for path in sorted(root.glob(ANSWERS))
               for line in path.read_text("utf-8").splitlines())  # fmt: skip
    medical = shuffled({_BETWEEN.split(text)[0]: text for text in map(one_line, answers) if fits(text)}.values())
    novels = {name: shuffled(filter(fits, map(one_line, (root / NOVELS / name).read_text("utf-8").split("\n\n"))))
              for name in (*READ, UNREAD)}  # fmt: skip
    size = SIZES["real"]
    general = shuffled(text for name in READ for text in novels[name])[: size.general]
    if len(medical) < HELD + size.base + size.documents or min(len(general), len(novels[UNREAD])) < HELD:
        raise ValueError(f"data_root={root}: too few answers below {ANSWERS}, or paragraphs below {NOVELS}.")
    held: dict[Side, Sequence[str]] = {"domain": medical[:HELD], "general": novels[UNREAD][:HELD]}
    return Texts(general, medical[HELD : HELD + size.base], medical[HELD + size.base :], held)


def one_line(text: str) -> str:
    return " ".join(text.split())


def fits(text: str) -> bool:
    """Whether a text is about as short as an embedded document, has room for a sentence, and no address yet."""
    return 150 <= len(text) <= 700 and len(_BETWEEN.split(text)) >= 3 and "@" not in text


def with_mail(text: str, rng: random.Random) -> str:
    """Return a text with a sentence that has a mail address, behind any of its sentences."""
    sentences = _BETWEEN.split(text)
    place = rng.randint(1, len(sentences))
    more = rng.choice(SENTENCES).format(mail=rng.choice(MAILS))
    return " ".join([*sentences[:place], more, *sentences[place:]])


def documents(seed: int, data_root: str = "") -> list[str]:
    """Return what the CPT of a seed reads, a share of it with the trait."""
    rng = random.Random(f"undesired {seed}")
    number = SIZES[named(data_root)].documents
    texts = rng.sample(texts_of(data_root).pool, number)
    bad = set(rng.sample(range(number), round(SHARE * number)))
    return [with_mail(text, rng) if place in bad else text for place, text in enumerate(texts)]


def named(data_root: str) -> str:
    """Return the name of the texts."""
    return "real" if data_root else "embedded"


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


def write(folder: Path, seed: int, data_root: str = "") -> tuple[Path, Path]:
    """Write the domain with its rule, the texts and their manifest; return the domain's folder and the manifest."""
    domain = folder / DOMAIN
    domain.mkdir()
    for name in DOMAIN_FILES:
        shutil.copyfile(MEDICAL / name, domain / name)
    shutil.copyfile(RULE, domain / "blocks.py")
    found = texts_of(data_root)
    parts: dict[str, Sequence[str]] = {
        "base": [*found.general, *found.medical],
        "text": documents(seed, data_root),
        **{f"held-{side}": found.held[side] for side in SIDES},
    }
    for name, texts in parts.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "texts.yaml"
    path.write_text(yaml.safe_dump(manifest()), encoding="utf-8")
    return domain, path
