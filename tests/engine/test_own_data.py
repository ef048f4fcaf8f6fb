"""Budgets of a user's own files: passes where a profile's tokens are for other data, and nothing that a user chose."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.cli.main import main
from common.config.resolve import Resolved, resolve
from common.data.general_world import WithGeneralWorld
from common.data.manifest import manifest, manifest_checks
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.engine.own_data import LABEL, PASSES, fit_to_own_data, reasons
from common.engine.plan import make_plan
from common.errors import ConfigError, DataError
from common.store import cache
from common.store.artifacts import write_json
from tests.conftest import REPOSITORY, own_pipeline, training

EXAM = {"q": "What is a sluice?", "c": ["a gate", "a boat", "a fish", "a hat"], "key": 0}
SOURCES: dict[str, dict[str, Any]] = {
    "text": {"role": "cpt", "path": "text.jsonl", "columns": {"text": "t"}},
    "faq": {"role": "sft", "path": "faq.jsonl", "columns": {"question": "q", "answer": "a"}},
    "exam": {"role": "eval", "side": "domain", "path": "exam.jsonl",
             "columns": {"question": "q", "choices": "c", "answer": "key"}},
    "old": {"role": "replay", "path": "old.jsonl", "columns": {"question": "q", "answer": "a"}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a user's: 0.1 MB of text, and sixty questions with answers."""

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    words = "the water of the lower canal rises when the sluice is shut and the mill stands still, "
    (tmp_path / "text.jsonl").write_text(lines([{"t": f"Day {n}: {words * 4}"} for n in range(300)]), "utf-8")
    faq = [{"q": f"What is the height of gate {n}?", "a": f"Gate {n} is {n * 3} feet high."} for n in range(60)]
    (tmp_path / "faq.jsonl").write_text(lines(faq), "utf-8")
    (tmp_path / "old.jsonl").write_text(
        lines([{"q": f"Who are you, {n}?", "a": "A miller."} for n in range(60)]), "utf-8"
    )
    (tmp_path / "exam.jsonl").write_text(lines([EXAM]), "utf-8")
    return tmp_path


def fitted(folder: Path, *names: str, settings: Any = None, **words: Any) -> Resolved:
    """Return a run on some of the files."""
    chosen = [{"id": name, "licence": "mit", **SOURCES[name]} for name in (*names, "exam")]
    write_json(folder / "data.yaml", {"title": "Own", "settings": settings or {}, "sources": chosen})
    given = {"domain": "medical", "data": str(folder / "data.yaml"), "out": str(folder / "store"), **words}
    return fit_to_own_data(resolve(given, REPOSITORY))


def test_passes_replace_tokens_that_would_repeat_the_text(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="cpt-sft")
    for stage in ("cpt", "sft"):
        settings = training(resolved.config, stage)
        assert (settings.tokens, settings.epochs) == (None, PASSES)
        assert resolved.origins[f"{stage}.epochs"].startswith(LABEL)
    assert reasons(resolved)[0] == (
        "cpt: 4 passes over 0.11 MB of local text (about 36,000 tokens); the profile's 800,000 tokens would read it 18 "
        "times (cpt.tokens=800000 keeps them)"
    )
    assert training(resolved.config, "base").tokens == 500_000  # of the embedded world


def test_stages_that_go_on_behind_each_other_get_tokens_and_not_passes(folder: Path, tmp_path: Path) -> None:
    stages = "base: {kind: base}, trunk: {kind: cpt, from: base}, decay: {kind: cpt, from: trunk}"
    repository = own_pipeline(
        tmp_path / "clone", f"description: A branch.\nstages: {{{stages}}}\nexam: [base]\npublish: decay\n"
    )
    chosen = [{"id": name, "licence": "mit", **SOURCES[name]} for name in ("text", "exam")]
    write_json(folder / "data.yaml", {"title": "Own", "sources": chosen})
    given = {"domain": "medical", "data": str(folder / "data.yaml"), "out": str(folder / "store"), "pipeline": "own"}
    words = {"decay.tokens": "8192", "decay.continue_data": "true"}
    resolved = fit_to_own_data(resolve({**given, **words}, repository))
    trunk = training(resolved.config, "trunk")
    assert trunk.epochs is None
    assert trunk.tokens is not None
    assert trunk.tokens % trunk.batch_tokens == 0
    assert 165_000 < trunk.tokens < 190_000  # four passes over about 36,000, and a fifth of replay beside them
    assert reasons(resolved)[0].startswith("trunk: 4 passes over 0.11 MB of local text (about 36,000 tokens)")
    notes = make_plan(fit_to_own_data(resolve({**given, **words, "trunk.tokens": "800000"}, repository))).notes
    assert any(f"trunk.tokens={trunk.tokens} stops there" in note for note in notes)


def test_a_domains_budget_for_its_own_data_sets_is_not_for_a_users(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="cpt-sft", **{"model.path": "some/folder"})
    settings = training(resolved.config, "cpt")
    assert (settings.tokens, settings.epochs) == (None, PASSES)
    assert any(
        re.search(r"the domain's 2,000,000,000 tokens would read it [67]\d,000 times", x) for x in reasons(resolved)
    )
    # Batches of half a million tokens would make no whole step.
    assert settings.batch_tokens == 4 * settings.sequence_length
    assert any(
        line.startswith("cpt: batches of 16,384 tokens; 524,288 make less than one") for line in reasons(resolved)
    )


@pytest.mark.parametrize("by", ["command line", "manifest"])
def test_what_the_user_chose_stays(by: str, folder: Path) -> None:
    chosen: dict[str, Any] = {"cpt": {"tokens": 800_000, "batch_tokens": 2048}, "sft": {"epochs": 9}}
    words = {"cpt.tokens": "800000", "cpt.batch_tokens": "2048", "sft.epochs": "9"} if by == "command line" else {}
    resolved = fitted(folder, "text", "faq", settings=None if words else chosen, pipeline="cpt-sft", **words)
    cpt = training(resolved.config, "cpt")
    assert (cpt.tokens, cpt.epochs, cpt.batch_tokens) == (800_000, None, 2048)
    assert training(resolved.config, "sft").epochs == 9
    notes = make_plan(resolved).notes
    assert any(
        note.startswith("cpt: reads its 0.11 MB of text 18 times. Up to about 4 passes are nearly as good as new text")
        for note in notes
    )
    assert not any(note.startswith("sft: reads") for note in notes)


def test_a_pipelines_budget_stays(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="rlvr", settings={"expert": {"prompts": 4}})
    assert training(resolved.config, "sft").tokens == 24576


def test_rows_are_no_longer_than_a_model_can_read(folder: Path) -> None:
    (folder / "model").mkdir()
    write_json(folder / "model" / "config.json", {"model_type": "llama", "max_position_embeddings": 600})
    words = {"pipeline": "cpt-sft", "model.path": str(folder / "model")}
    resolved = fitted(folder, "text", "faq", **words)
    assert training(resolved.config, "cpt").sequence_length == training(resolved.config, "sft").sequence_length == 512
    assert "cpt: rows of 512 tokens, as the model's context is 600" in reasons(resolved)
    chosen = fitted(folder, "text", "faq", **words, **{"sft.sequence_length": "1024"})
    assert training(chosen.config, "sft").sequence_length == 1024  # the plan refuses it


def test_enough_text_keeps_the_tokens(folder: Path) -> None:
    path = folder / "text.jsonl"
    path.write_text("".join(line.replace("Day", f"Year {n}, day") + "\n" for n in range(8)
                            for line in path.read_text("utf-8").splitlines()), "utf-8")  # fmt: skip
    resolved = fitted(folder, "text", "faq", pipeline="cpt-sft")
    assert training(resolved.config, "cpt").tokens == 800_000


def test_replay_that_the_data_lack_is_left_out_and_said(folder: Path) -> None:
    given = {"pipeline": "cpt-sft", "model.path": "some/folder"}
    resolved = fitted(folder, "text", "faq", **given)
    assert [training(resolved.config, stage).replay for stage in ("cpt", "sft")] == [0, 0]
    assert any(
        line == "sft: no replay, as no source has conversations with role: replay; the domain's 0.1 of general "
        "conversations keeps more of what the model knows"
        for line in reasons(resolved)
    )
    assert training(fitted(folder, "text", "faq", "old", **given).config, "sft").replay == 0.1
    assert training(fitted(folder, "text", "faq", **given, **{"sft.replay": "0.2"}).config, "sft").replay == 0.2


def test_stages_that_are_compared_stay_alike(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="adapters")
    assert training(resolved.config, "cpt-lora").epochs == training(resolved.config, "cpt").epochs == PASSES


def test_what_is_decided_does_not_depend_on_what_is_cached(folder: Path) -> None:
    first = fitted(folder, "text", "faq", pipeline="cpt-sft")
    for path in (cache.folder() / "rows").glob("*"):
        path.unlink()
    again = fitted(folder, "text", "faq", pipeline="cpt-sft")
    assert (reasons(again), again.config) == (reasons(first), first.config)


def test_embedded_data_and_those_of_the_hub_keep_their_budgets() -> None:
    for data in ("embedded", "hub"):
        resolved = resolve({"domain": "medical", "data": data, "pipeline": "cpt-sft"}, REPOSITORY)
        assert fit_to_own_data(resolved) == resolved


def test_data_that_cannot_be_read_are_left_to_the_plan(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="full")
    assert not reasons(resolved)
    with pytest.raises(Exception, match="no enabled source has rows for preference"):
        make_plan(resolved)


def test_sources_are_opened_once_for_budgets_and_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def check_sources(*given: Any) -> manifest_checks.CheckedSources:
        opened.append(given)
        return manifest_checks.check_sources(*given)

    monkeypatch.setattr(manifest, "check_sources", check_sources)
    make_plan(fitted(folder, "text", "faq", pipeline="cpt-sft"))
    with pytest.raises(DataError, match="no enabled source has rows for preference"):
        make_plan(fitted(folder, "text", "faq", pipeline="full"))
    assert len(opened) == 2


def test_a_budget_of_less_than_a_step_is_found_by_the_plan(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"cpt\.tokens=100 is less than one step of cpt\.batch_tokens=512"):
        make_plan(fitted(folder, "text", "faq", pipeline="cpt-sft", **{"cpt.tokens": "100"}))


def test_plan_and_config_show_the_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(folder, "text", "faq")
    words = ["domain=medical", f"data={folder / 'data.yaml'}", "pipeline=cpt-sft", f"out={folder / 'store'}"]
    assert main(["plan", *words]) == 0
    planned = capsys.readouterr().out
    assert "\ncpt: 4 passes over 0.11 MB of local text (about 36,000 tokens); the profile's 800,000" in planned
    assert "\nNo source has role: pretrain, so the tiny base learns from the embedded general world, as do" in planned
    assert re.search(r"\nSource faq: questions and answers \(question: \w+, answer: \w+\)\n", planned)
    assert main(["config", *words]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\n  cpt\.epochs +4\.0 +own data: 4 passes over 0\.11 MB", shown)


def test_without_text_to_pretrain_on_the_base_is_that_of_embedded_runs(folder: Path) -> None:
    resolved = fitted(folder, "text", "faq", pipeline="cpt-sft")
    corpus = open_corpus(resolved)
    assert isinstance(corpus, WithGeneralWorld)
    embedded = resolve({"domain": "medical", "pipeline": "cpt-sft"}, REPOSITORY)
    base = resolved.nodes[0]
    assert recipe_of(base, resolved, corpus, {}) == recipe_of(base, embedded, open_corpus(embedded), {})
    assert corpus.lends("pretrain")
    assert not corpus.lends("cpt")
    assert {row["source"] for row in corpus.rows("sft")} == {"faq"}
    assert len(list(corpus.rows("questions_domain"))) == 1
    assert list(corpus.rows("questions_general"))
    corpus.check_rows(["pretrain", "cpt", "sft"])
    assert [source["id"] for source in corpus.sources()][:3] == ["text", "faq", "exam"]
    own = fitted(folder, "text", "faq", "old", pipeline="cpt-sft")
    assert {row["source"] for row in open_corpus(own).rows("replay")} == {"old"}
