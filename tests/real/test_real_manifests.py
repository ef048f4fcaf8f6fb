"""The manifests of tests/real: each loads, its parts are of the right kind, and nothing of an exam is trained on.

They read public files that are not part of this repository, from DOMAIN_RECIPES_DATA or ../shared/data, and skip where
that folder is absent.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.yaml import read_yaml
from common.data.corpus import CORPUS_ROLES, Row
from common.data.decontaminate import Decontaminator, filter_rows
from common.data.manifest.manifest import ManifestCorpus, load_manifest
from common.data.texts import texts_of
from common.data.words import words_of
from common.training.rows.reader import Accounts
from tests.bench import real_data
from tests.conftest import long

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DOMAIN_RECIPES_DATA") or REPOSITORY.parent / "shared" / "data")
DOMAINS = ("cybersecurity", "finance", "legal", "math", "medical", "multilingual")
ESSENTIAL = ["pretrain", "cpt", "sft", "preference", "questions_domain", "text_domain", "text_general"]
TRAINING = ("cpt", "replay", "sft", "preference")
KEYS = {
    "pretrain": {"text"},
    "cpt": {"text"},
    "sft": {"messages"},
    "preference": {"prompt", "chosen", "rejected"},
    "text_domain": {"text"},
    "text_general": {"text"},
}
needs_files = pytest.mark.skipif(
    not DATA.is_dir(),
    reason=f"the public files of tests/real are not at {DATA}; set DOMAIN_RECIPES_DATA to their folder",
)
_opened: dict[str, tuple[ManifestCorpus, dict[str, list[Row]]]] = {}


def manifest(domain: str) -> Path:
    return REPOSITORY / "tests" / "real" / f"{domain}.yaml"


def opened(domain: str) -> tuple[ManifestCorpus, dict[str, list[Row]]]:
    """Return a manifest's corpus and all rows of its roles, read once."""
    if domain not in _opened:
        corpus = load_manifest(manifest(domain), DATA, essential=ESSENTIAL)
        roles = [role for role in CORPUS_ROLES if role != "pretrain"]
        _opened[domain] = corpus, {role: list(corpus.rows(role)) for role in roles}
    return _opened[domain]


def raw(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.mark.parametrize("domain", DOMAINS)
def test_budgets_fit_two_cores_and_paths_are_relative(domain: str) -> None:
    text = manifest(domain).read_text()
    assert "path: /" not in text
    settings = read_yaml(manifest(domain))["profiles"]["tiny"]
    assert settings["base"]["tokens"] <= 2_400_000
    assert settings["cpt"]["tokens"] <= 2_000_000
    assert settings["sft"]["tokens"] <= 600_000  # twice: the control arm


@pytest.mark.parametrize("domain", DOMAINS)
def test_budgets_of_the_profile_for_a_real_checkpoint_hold(domain: str) -> None:
    """Neither the tiny profile's budgets here nor the domain's for data=hub get in the way; also for a copy of it."""
    words = {"domain": domain, "profile": "smollm2-135m-instruct", "data": str(manifest(domain))}
    for more in ({}, {"model.path": "a/folder"}):
        found = resolve({**words, **more}, REPOSITORY)
        keys = ("cpt.batch_tokens", "cpt.train.learning_rate", "cpt.lora.r", "sft.tokens", "dpo.epochs", "merge.method")
        for key in keys:
            assert found.origins[key] == "profile smollm2-135m-instruct", key
        assert found.origins["cpt.tokens"].endswith("profile smollm2-135m-instruct")
        assert not found.config.stages["exam-cpt"].model_dump()["tasks"]


def test_all_share_the_base() -> None:
    loaded = [read_yaml(manifest(domain)) for domain in DOMAINS]
    for part in (
        [(one["profiles"]["tiny"]["model"], one["profiles"]["tiny"]["base"]) for one in loaded],
        [[source for source in one["sources"] if source["role"] == "pretrain"] for one in loaded],
    ):
        assert all(value == part[0] for value in part)


@needs_files
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_local_row_can_be_read(domain: str) -> None:
    corpus = load_manifest(manifest(domain), DATA, essential=ESSENTIAL)
    corpus.check_rows(CORPUS_ROLES)
    assert next(corpus.rows("pretrain")).keys() == {"text", "source"}


@needs_files
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_role_has_rows_of_its_kind(domain: str) -> None:
    corpus, rows = opened(domain)
    for role, keys in KEYS.items():
        for row in rows.get(role, ())[:50]:
            assert row.keys() - {"language"} == keys | {"source"}
    assert all(rows[role] for role in (*TRAINING, "preference_heldout", "questions_domain", "text_domain"))
    assert len(rows["questions_domain"]) <= (500 if domain == "medical" else 250)
    assert len({row["id"] for row in rows["questions_domain"]}) == len(rows["questions_domain"])
    for row in rows["questions_domain"]:
        if "choices" in row:
            assert 0 <= row["answer"] < len(row["choices"])
        else:
            assert row["match"] in ("text", "number")
            assert all(answer.strip() for answer in row["answers"])
    for role in TRAINING:
        for source in {source["id"] for source in corpus.sources() if source["role"] == role}:
            assert any(row["source"] == source for row in rows[role]), f"{source} gives no row"


@needs_files
@pytest.mark.parametrize("domain", [name if name == "math" else long(name) for name in DOMAINS])
def test_nothing_of_an_exam_is_trained_on(domain: str) -> None:
    """What training sees after the guard repeats no exam; what the guard removes stays within the stages' limits."""
    _, rows = opened(domain)
    exam = [row["question"] for side in ("domain", "general") for row in rows[f"questions_{side}"]]
    guard = Decontaminator(exam)
    asked = {tuple(words_of(question)) for question in exam}
    held = {row["text"] for side in ("domain", "general") for row in rows[f"text_{side}"]}
    for role in TRAINING:
        accounts = Accounts(role)
        kept = [row for row in filter_rows(rows[role], guard, accounts) if row.get("text") not in held]
        assert kept
        assert not any(tuple(words_of(text)) in asked for row in kept for text in texts_of(row))
        assert 1 - len(kept) / len(rows[role]) < (0.15 if role == "sft" else 0.05), dict(accounts)


@needs_files
def test_every_file_is_read_by_some_manifest() -> None:
    """What `just bench real-data` cleans, by its folder, is all of the root."""
    _, read = real_data.groups()
    assert real_data.unread(DATA, read) == []
    for name in ("general", "unused"):
        corpus = load_manifest(manifest(name), DATA, essential=[])
        corpus.check_rows(CORPUS_ROLES)
        sources = {source["id"]: source["role"] for source in corpus.sources() if source["role"] != "eval"}
        assert {row["source"] for role in {*sources.values()} for row in corpus.rows(role)} == {*sources}


@needs_files
def test_medical_counts() -> None:
    corpus, rows = opened("medical")
    assert len(rows["cpt"]) + len(rows["text_domain"]) == 2327
    assert len(rows["sft"]) == 7662
    assert len(rows["preference"]) + len(rows["preference_heldout"]) == 600
    assert len(rows["questions_domain"]) == 500
    assert sum(row["source"] == "self-instruct" for row in rows["replay"]) == 175
    general = {row["text"] for row in rows["text_general"]}
    assert len(general) == len(rows["text_general"]) > 500
    assert not general & {row.get("text") for row in rows["replay"]}
    lost = [count for role in CORPUS_ROLES if not role.startswith("text_") for count in corpus.counts(role).values()]
    assert max(count.num_dropped / count.rows_in for count in lost) < 0.05


@needs_files
def test_finance_asks_about_other_tables_and_another_company() -> None:
    _, rows = opened("finance")
    contexts = {split: {item["table"]["uid"] for item in _tatqa(split)} for split in ("dev", "test_gold")}
    assert not contexts["dev"] & contexts["test_gold"]
    assert {row["match"] for row in rows["questions_domain"]} == {"text", "number"}
    held = "\n".join(row["text"] for row in rows["text_domain"])
    assert "Apple" in held
    assert not any("Apple Inc" in row["text"] for row in rows["cpt"])


def _tatqa(split: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((DATA / f"finance/tatqa/tatqa_dataset_{split}.json").read_text("utf-8"))
    return items


@needs_files
def test_legal_asks_about_other_policies() -> None:
    titles = [{row["title"] for row in raw(f"legal/policyqa/{split}.jsonl")} for split in ("dev", "test")]
    assert not titles[0] & titles[1]
    _, rows = opened("legal")
    assert max(len(row["answers"]) for row in rows["questions_domain"]) > 1


@needs_files
def test_math_keeps_documents_answers_and_exam_apart() -> None:
    _, rows = opened("math")
    worked = {row["text"] for row in rows["cpt"] if row["source"] == "gsm8k-worked"}
    answered = {"\n\n".join(turn["content"] for turn in row["messages"]) for row in rows["sft"]}
    assert not worked & answered
    assert len(worked) + len(answered) + sum(r["source"] == "gsm8k-worked" for r in rows["text_domain"]) == 7473
    assert all(row["final"] == "####" and "####" not in row["answers"][0] for row in rows["questions_domain"])


@needs_files
def test_cybersecurity_asks_about_other_techniques_and_packages() -> None:
    _, rows = opened("cybersecurity")
    packages = [row["package"] for row in raw("cybersecurity/rustsec/advisories.jsonl")]
    assert not {*packages[:536]} & {*packages[536:]}
    taught = {row["messages"][0]["content"] for row in rows["sft"]}
    assert not taught & {row["question"] for row in rows["questions_domain"]}
    answers = Counter(row["choices"][row["answer"]] for row in rows["questions_domain"])
    assert max(answers.values()) < len(rows["questions_domain"]) / 2


@needs_files
def test_multilingual_trains_on_no_paragraph_that_it_examines_in_any_language() -> None:
    corpus, rows = opened("multilingual")
    items = {code: list(raw(f"multilingual/xquad/xquad.{code}.jsonl")) for code in ("en", "de", "es", "zh")}
    ids = {code: [item["id"] for item in parallel] for code, parallel in items.items()}
    assert all(listed == ids["en"] for listed in ids.values())
    examined = {row["id"].partition(":")[2] for row in rows["questions_domain"] if row["source"].startswith("xquad")}
    assert examined
    assert not examined & {*ids["en"][:953]}
    for parallel in items.values():
        assert parallel[952]["context"] != parallel[953]["context"]
    takes = {source.id: source.take for source in corpus.manifest.sources if source.id.endswith("-sft")}
    assert set(takes.values()) == {953}
    languages = Counter(row.get("language") for row in rows["text_domain"] + rows["questions_domain"])
    assert {"sw", "qu", "en", "de", "es", "zh"} == languages.keys()
