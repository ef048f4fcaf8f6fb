"""The plan of several domains: their own tokens and notes, one base, and what is frozen of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.console import Console
from common.engine.claim import check_folder, claimed
from common.engine.frozen_plan import freeze, thaw
from common.engine.ordering import resolve_run
from common.engine.plan import Plan, make_plan
from common.engine.preflight import inputs
from common.engine.preflight.benchmarks import NONE
from common.engine.preflight.trial import Rows, Tokenizers
from common.engine.settle import settled
from common.errors import ConfigError, StoreError
from common.store.runs import run_of
from tests.conftest import QUICK, REPOSITORY

WORDS = {key: value for key, value in QUICK.items() if not key.startswith(("sft", "dpo"))}


def test_a_plan_has_the_stages_of_all_domains_and_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    words = {"domains": "medical,legal", "out": str(tmp_path), **WORDS, "cpt-legal.tokens": "8192"}
    run = settled(resolve_run(words, REPOSITORY))
    plan = make_plan(run)
    steps = {step.node.name: step for step in plan.steps}
    assert [step.node.name for step in plan.to_do] == [node.name for node in run.nodes]
    assert (steps["cpt-medical"].tokens, steps["cpt-legal"].tokens) == (16384, 8192)
    assert all(step.seconds is not None for step in plan.steps)
    assert set(plan.by_domain) == {"", "medical", "legal"}
    assert plan.part(steps["cpt-legal"].node).resolved.config.domain == "legal"
    assert plan.corpus.domain_title == "Medicines, then Law"
    assert plan.check() == []
    path = freeze(run)
    assert path == tmp_path / "runs" / "medical_legal" / "tiny" / "sequence" / "plan.json"
    again = thaw(path, {}, REPOSITORY)
    assert again.config == run.config
    assert again.nodes == run.nodes
    assert list(again.members) == ["medical", "legal"]
    assert [step.fingerprint for step in make_plan(again).steps] == [step.fingerprint for step in plan.steps]
    assert run_of(run).rerun("cpt-legal").startswith("just rerun domains=medical,legal profile=tiny stage=cpt-legal")
    with pytest.raises(ConfigError, match="a frozen plan takes run"):
        thaw(path, {"cpt.tokens": "5"}, REPOSITORY)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"tokens": 8192', '"tokens": -1'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokens: expected more than 0 .* Undo the edit, or plan it again"):
        thaw(path, {}, REPOSITORY)
    for where, key in (("stages", "stages.cpt-legal.tokens"), ("config", "seed")):
        edited = json.loads(text)
        one = edited["stages"]["cpt-legal"] if where == "stages" else edited["config"]
        one[key.rpartition(".")[2]] = 512
        path.write_text(json.dumps(edited), encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"{key} is 512, and .* by what `members` says.* Undo the edit"):
            thaw(path, {}, REPOSITORY)


def test_the_hub_is_asked_about_once_where_one_part_alone_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(inputs, "prepare", lambda run, asks_hub: asked.append(asks_hub))
    monkeypatch.setattr(inputs, "_check", lambda *words: NONE)  # what follows is as for one domain
    for publish, expected in (("hub:owner/name", True), ("local", False)):
        words = {"domains": "medical,legal", "out": str(tmp_path), **WORDS, "publish.to": publish}
        asked.clear()
        assert set(inputs.check_plan(make_plan(resolve_run(words, REPOSITORY)))) == {"", "medical", "legal"}
        assert asked == [expected]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone whose pipelines a test may add to."""
    root = tmp_path / "clone"
    for name in ("pipelines", "domains/medical", "domains/legal"):
        shutil.copytree(REPOSITORY / name, root / name)
    (root / "common").symlink_to(REPOSITORY / "common")
    return root


def planned(repository: Path, text: str, **words: str) -> Plan:
    """Return the plan of a pipeline for several domains that is not shipped."""
    (repository / "pipelines" / "sequences" / "own.yaml").write_text(text, encoding="utf-8")
    given = {"domains": "medical,legal", "pipeline": "own", "out": str(repository.parent / "store")}
    return make_plan(resolve_run({**given, **words}, repository))


def test_each_domain_may_add_its_words_to_the_tokenizer_of_the_domain_before(repository: Path) -> None:
    stages = (
        "base: {kind: base}, vocabulary: {kind: tokenizer, from: base, each: chain}, "
        "cpt: {kind: cpt, from: vocabulary, each: chain}"
    )
    text = f"description: Words.\nstages: {{{stages}}}\nexam: [base]\npublish: cpt\n"
    words = {key: value for key, value in WORDS.items() if not key.startswith("cpt")}
    plan = planned(repository, text, **words, **{"vocabulary.add": "20", "vocabulary-legal.min_frequency": "2"})
    tokenizers = Tokenizers(plan, Rows(plan, {}))
    sizes = [len(tokenizers.after(name)[0] or ()) for name in ("base", "vocabulary-medical", "vocabulary-legal")]
    assert sizes == [sizes[0], sizes[0] + 20, sizes[0] + 40]


def test_a_model_may_grow_by_what_general_text_needs_of_it(repository: Path) -> None:
    stages = "base: {kind: base}, grown: {kind: expand, from: base}, cpt: {kind: cpt, from: grown, each: chain}"
    settings = "grown: {method: adept, added: 1}"
    text = f"description: Grown.\nstages: {{{stages}}}\nexam: [base]\npublish: cpt\nsettings: {{{settings}}}\n"
    plan = planned(repository, text, **WORDS)
    step = next(step for step in plan.steps if step.node.name == "grown")
    assert step.node.domain == "medical"
    assert plan.part(step.node).corpus.portions("replay"), "what it is measured on can be read"
    with pytest.raises(AssertionError, match="the corpus of one domain"):
        plan.corpus.rows("replay")


def test_the_rewards_of_a_domain_name_its_reward_model_as_its_own_run_does(repository: Path) -> None:
    stages = (
        "base: {kind: base}, sft: {kind: sft, from: base, each: apart}, "
        "reward: {kind: reward, from: sft, each: apart}, "
        "rlhf: {kind: rloo, from: sft, with: [reward], each: apart}, mix: {kind: merge, from: base, with: [rlhf]}"
    )
    settings = "rlhf: {rewards: {quality: {model: reward}}}, mix: {method: linear, models: {rlhf: {weight: 1.0}}}"
    text = f"description: Tuned.\nstages: {{{stages}}}\nexam: [base]\npublish: mix\nsettings: {{{settings}}}\n"
    names = [step.node.name for step in planned(repository, text).steps]
    assert {"rlhf-medical", "rlhf-legal"} < set(names)
    with pytest.raises(ConfigError, match=r"rlhf.*model is 'judge'; expected a reward stage .*\(reward\)"):
        planned(repository, text.replace("model: reward", "model: judge"))


def test_a_run_elsewhere_of_the_same_recipe_may_share_its_folder(tmp_path: Path) -> None:
    words = {"domains": "medical,legal", "out": str(tmp_path), **WORDS}
    runs = [resolve_run({**words, **more}, REPOSITORY) for more in ({}, {"run.threads": "1"}, {"cpt.tokens": "8192"})]
    with claimed(make_plan(runs[0]), Console("quiet")):
        check_folder(runs[1])
        with pytest.raises(StoreError, match="with other settings is under way"):
            check_folder(runs[2])


def test_a_domain_may_not_be_called_as_a_sequence_of_the_same_store(tmp_path: Path) -> None:
    run = resolve_run({"domains": "medical,legal", "out": str(tmp_path)}, REPOSITORY)
    freeze(run)
    check_folder(run)
    one = run.members["medical"]
    alone = replace(
        one, config=one.config.model_copy(update={"domain": "medical_legal"}), part_of="", given_name="mine"
    )
    with pytest.raises(
        ConfigError, match=r"holds runs of domains=medical,legal, and domain=medical_legal would have .* out=<folder>"
    ):
        check_folder(alone)


def test_a_stage_is_held_to_what_its_own_domain_says_of_it(repository: Path) -> None:
    stages = repository / "domains" / "medical" / "stages.yaml"
    text = stages.read_text(encoding="utf-8")
    # 5 tokens make no step; the stage of the other domain has its own.
    stages.write_text(text.replace("all:\n", "all:\n  cpt: {tokens: 5}\n", 1), encoding="utf-8")
    shipped = (REPOSITORY / "pipelines" / "sequences" / "sequence.yaml").read_text(encoding="utf-8")
    words = {key: value for key, value in WORDS.items() if key != "cpt.tokens"}
    with pytest.raises(ConfigError, match=r"cpt-medical.*tokens=5"):
        planned(repository, shipped, **words)
    plan = planned(repository, shipped, **words, **{"cpt-medical.tokens": "16384"})
    names = {domain: [node.name for node in part.resolved.own] for domain, part in plan.by_domain.items()}
    assert "cpt-legal" not in names["medical"]
    assert {"base", "cpt-legal", "exam-base-on-legal", "card"} < set(names["legal"])
    assert plan.parts["legal"].licence == plan.licence
    assert plan.resolved.part_of == ""


def test_domains_whose_bases_read_other_text_are_no_chain(tmp_path: Path) -> None:
    words = {"domains": "medical,legal", "out": str(tmp_path), **WORDS}
    run = resolve_run(words, REPOSITORY)
    legal = run.members["legal"]
    other = legal.config.model_copy(
        update={"embedded": legal.config.embedded.model_copy(update={"question_repeats": 2})}
    )
    object.__setattr__(legal, "config", other)
    with pytest.raises(
        ConfigError, match=r"a chain has one base, and that of legal is another.*question_repeats: 1 -> 2"
    ):
        make_plan(run)
