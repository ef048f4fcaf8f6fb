"""Code of a domain folder from outside the package runs only where the command line allows it by name."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.cli.main import main
from common.config.resolve import resolve
from common.config.sequence import consents_of
from common.console import Console
from common.engine.corpora import open_corpus
from common.engine.fingerprint import recipe_of
from common.engine.frozen_plan import freeze, thaw
from common.engine.plan import make_plan
from common.engine.preflight.domain_code import check_code, code_lines, code_of_stage, granted, rewards_file
from common.engine.preflight.settings import check_settings
from common.engine.run import run_stage
from common.errors import ConfigError
from common.rewards.own import verifiers_for
from common.rewards.verifiers import VERIFIERS
from common.store.artifacts import Artifact
from common.system import consents
from tests.conftest import BUDGETS, REPOSITORY
from tests.engine.preflight.own_code import ALLOW, REWARDS, digest_of_domain, forget, ran, resolved


def test_a_run_that_needs_it_says_what_to_add(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"domain={mine}", "pipeline=on-policy", f"out={mine.parent / 'store'}"]
    assert main(["plan", *words]) == 1
    digest = digest_of_domain(mine)
    assert capsys.readouterr().err == (
        f"error: This run would execute code that is not part of the package: rewards.py of {mine} (digest "
        f"{digest[:12]}). Read it, then add run.allow_code=mine to the command line.\n"
    )
    assert not ran(mine)
    assert main(["plan", *words, "run.allow_code=mine"]) == 0
    assert ran(mine)
    shown = capsys.readouterr().out
    assert f"Code from outside the package that may run: rewards.py of {mine} (digest {digest[:12]})" in shown
    assert f"jobs on other machines need run.allow_code=mine@{digest}" in shown
    assert str(consents.folder()) in shown


def test_a_run_that_does_not_need_it_runs_no_code(mine: Path) -> None:
    make_plan(resolved(mine, pipeline="demonstration"))
    make_plan(resolved(mine, **{"sample.rewards": "{stopped: {}}"}))
    assert not ran(mine)


def test_consent_is_remembered_for_the_very_code(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_settings(resolved(mine, **ALLOW))
    forget()
    check_settings(resolved(mine))  # without a word
    with (mine / "rewards.py").open("a", encoding="utf-8") as stream:
        stream.write("import helper\n")
    (mine / "helper.py").write_text("", encoding="utf-8")
    changed = (
        r"It is not what you allowed on \d{4}-\d\d-\d\d: helper\.py \(new\), rewards\.py \(changed\)\. Read it, then"
    )
    with pytest.raises(ConfigError, match=changed):
        check_settings(resolved(mine))
    (mine / "rewards.py").write_text(REWARDS, encoding="utf-8")
    check_code(resolved(mine, **ALLOW))
    assert "It is not what you allowed" in caplog.text
    (mine / "helper.py").unlink()
    check_settings(resolved(mine))  # what was allowed first still is
    next(consents.folder().glob(f"mine-{digest_of_domain(mine)}.json")).unlink()
    with pytest.raises(ConfigError, match=r"helper\.py \(gone\)"):
        check_settings(resolved(mine))


def test_a_digest_allows_one_code_and_no_other(mine: Path) -> None:
    digest = digest_of_domain(mine)
    check_code(resolved(mine, **{"run.allow_code": f"mine@{digest}"}))
    shutil.rmtree(consents.folder())
    with pytest.raises(ConfigError, match=r"run\.allow_code=mine@000000000000… allows other code\. Read it"):
        check_code(resolved(mine, **{"run.allow_code": f"mine@{'0' * 32}"}))
    with pytest.raises(ConfigError, match="expected the name of this run's domain, mine, or mine@<digest>"):
        resolved(mine, **{"run.allow_code": "mine@"})
    with pytest.raises(ConfigError, match="expected the name of this run's domain, mine, or "):
        resolved(mine, **{"run.allow_code": "other"})
    assert digest[:12] not in str(list(consents.folder().parent.rglob("*")))  # a refusal stores nothing


def test_no_file_gives_consent(mine: Path) -> None:
    stages = mine / "stages.yaml"
    stages.write_text(stages.read_text("utf-8").replace("all:\n", "all:\n  run: {allow_code: mine}\n", 1), "utf-8")
    with pytest.raises(ConfigError, match=r"run\.allow_code .*: unknown key\."):
        resolved(mine)


EDITS: dict[str, Callable[[dict[str, Any], Path], object]] = {
    "as it is": lambda plan, folder: None,
    "a setting": lambda plan, folder: plan["config"]["run"].update(allow_code="mine"),
    "a key": lambda plan, folder: plan.update(consent="any", code_allowed=True, shipped=True),
    "layers": lambda plan, folder: plan.update(layers=[{"label": "command line", "values": {}}]),
    "origins": lambda plan, folder: plan["origins"].update({"model.trust_remote_code": "command line"}),
    "another folder": lambda plan, folder: plan.update(
        domain_folder=str(shutil.copytree(folder, folder.parent / "b" / "mine"))
    ),
    "a folder of the package": lambda plan, folder: plan.pop("domain_folder"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_frozen_plan_gives_no_consent(edit: Callable[[dict[str, Any], Path], object], mine: Path) -> None:
    allowed = resolved(mine, **ALLOW)
    plan = freeze(allowed)
    assert "allow_code" not in plan.read_text("utf-8")
    digest = digest_of_domain(mine)
    frozen = json.loads(plan.read_text("utf-8"))
    edit(frozen, mine)
    plan.write_text(json.dumps(frozen), encoding="utf-8")
    for words in ({}, ALLOW, {"run.allow_code": f"mine@{'1' * 32}"}):
        with pytest.raises(ConfigError):
            check_settings(thaw(plan, words, REPOSITORY))
    assert not ran(mine)
    assert not consents.stored("mine")
    if (
        not {"consent", "layers"} & set(frozen)
        and "domain_folder" in frozen
        and "allow_code" not in plan.read_text("utf-8")
    ):
        check_settings(thaw(plan, {"run.allow_code": f"mine@{digest}"}, REPOSITORY))
        assert not consents.stored("mine")  # a job stores nothing


def test_a_plan_asks_for_the_digest(mine: Path) -> None:
    plan = freeze(resolved(mine))
    digest = digest_of_domain(mine)
    asked = rf"name alone does not allow it\. Read it, then add run\.allow_code=mine@{digest} to the command line"
    with pytest.raises(ConfigError, match=asked):
        check_code(thaw(plan, ALLOW, REPOSITORY))


def test_the_jobs_of_a_sequence_may_run_the_code_of_each_domain(mine: Path) -> None:
    other = Path(shutil.copytree(mine, mine.parent / "other"))
    (other / "rewards.py").write_text(f"{REWARDS}\nOTHER = 1\n", encoding="utf-8")
    members = {folder.name: resolved(folder, **{"run.allow_code": folder.name}) for folder in (mine, other)}
    for member in members.values():
        check_code(member)
    job = str(granted(replace(members["mine"], members=members)))
    grants = {folder.name: f"{folder.name}@{digest_of_domain(folder)}" for folder in (mine, other)}
    assert job == f"run.allow_code={grants['mine']},{grants['other']}"
    words = consents_of(job.partition("=")[2], ["mine", "other"])
    assert words == {name: {"run.allow_code": grant} for name, grant in grants.items()}
    lines = list(code_lines(replace(members["mine"], members=members)))
    assert [line.count(job) for line in lines] == [0, 1, 0, 1], "both lines name what allows both"


def test_an_edit_after_the_check_is_not_run(mine: Path) -> None:
    """Whatever changes between a plan and its jobs, or between a check and the import: what runs was compared."""
    run = resolved(mine, **ALLOW)
    check_code(run)
    job = granted(run)
    assert job == f"run.allow_code=mine@{digest_of_domain(mine)}"
    for name in ("rewards.py", "helper.py"):
        (mine / name).write_text("raise SystemExit('edited')\n", encoding="utf-8")
        for use in (granted, lambda run: rewards_file(run, run.config.stages["sample"])):
            with pytest.raises(
                ConfigError, match=rf"this run may not execute {name}: the code changed since the run began"
            ):
                use(run)
        assert verifiers_for(run) is VERIFIERS
        (mine / "rewards.py").write_text(REWARDS, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"allows other code"):
        check_code(replace(run, consent=job.partition("@")[2]))


def test_a_module_beside_rewards_or_exams_is_part_of_what_uses_them(mine: Path) -> None:
    def recipe(name: str) -> dict[str, Any]:
        asked = {"exam-base.tasks": "[own]"} if name.startswith("exam") else {}  # else all rows are held against it
        run = resolved(mine, **asked, **ALLOW)
        inputs = {"sample": {"sft": made}, "exam-base": {"base": made}, "sft": {"cpt": made}}[name]
        [node] = [node for node in run.nodes if node.name == name]
        return recipe_of(node, run, corpus, inputs)

    made, corpus = Artifact(mine, {"digest": "0"}), open_corpus(resolved(mine))
    assert "modules" not in recipe("sample")
    (mine / "helper.py").write_text("A = 1\n", encoding="utf-8")
    before = recipe("sample")["modules"]
    (mine / "helper.py").write_text("A = 2\n", encoding="utf-8")
    assert recipe("sample")["modules"] != before
    assert before.keys() == {"helper.py"}
    assert "modules" not in recipe("sft")
    assert "modules" not in recipe("exam-base")  # its exams have no Python that could import it
    (mine / "eval" / "own.py").write_text("B = 1\n", encoding="utf-8")
    assert recipe("exam-base")["modules"].keys() == {"helper.py", "rewards.py"}
    assert "mine/eval/own.py" not in recipe("sample")["modules"]
    assert recipe("sample")["modules"].keys() == {"helper.py", "eval/own.py"}


def test_what_runs_is_a_private_copy_without_compiled_code(mine: Path) -> None:
    """A file of compiled code with the time and size of its source would run instead of it."""
    (mine / "table.json").write_text("{}", encoding="utf-8")
    for name in ("__pycache__", ".hidden"):
        (mine / name).mkdir()
        (mine / name / "helper.cpython-311.pyc").write_bytes(b"")
    (mine / "elsewhere").symlink_to(mine.parent)
    run = resolved(mine, **ALLOW)
    check_code(run)
    folder = rewards_file(run, run.config.stages["sample"]).parent
    assert folder != mine
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (folder / "rewards.py").read_text("utf-8") == REWARDS
    assert not (folder / "rewards.py").is_symlink()
    assert (folder / "table.json").resolve() == mine / "table.json"
    assert not {"__pycache__", ".hidden", "elsewhere"} & {path.name for path in folder.iterdir()}
    assert rewards_file(run, run.config.stages["cpt"]) == mine / "rewards.py"  # which reads none


def test_the_rewards_of_a_stage_name_the_code_that_ran(mine: Path) -> None:
    run = resolved(mine, **ALLOW)
    used = {node.name: code_of_stage(node, run) for node in run.nodes}
    assert {name for name, found in used.items() if found} == {"sample"}
    assert used["sample"]["digest"] == digest_of_domain(mine)
    assert set(used["sample"]["files"]) == {"rewards.py"}


def test_a_domain_of_the_clone_needs_no_consent(mine: Path, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "common").symlink_to(REPOSITORY / "common")
    shutil.copytree(mine, root / "domains" / "mine")
    make_plan(resolve({"domain": "mine", "pipeline": "on-policy"}, root, tmp_path / "store"))


@pytest.mark.slow
def test_its_rewards_score_answers_and_an_edit_makes_those_stages_again(mine: Path) -> None:
    overrides = {key: value for key, value in BUDGETS.items() if not key.startswith("dpo")}
    overrides |= {"base.tokens": "8192", "cpt.tokens": "4096", "sft.tokens": "4096"}
    run = resolved(
        mine, **overrides, **ALLOW, **{"sample.prompts": "8", "sample.samples": "4", "sample.answer_tokens": "8"}
    )
    for name in ("base", "cpt", "sft", "sample"):
        artifact = run_stage(run, name, Console("quiet"))
    assert 0.0 < artifact.manifest["metrics"]["mean_reward"] < 1.0
    before = {step.node.name: step.state for step in make_plan(run).steps}
    assert before["sample"] == "cached"
    with (mine / "rewards.py").open("a", encoding="utf-8") as stream:
        stream.write("\n# an edit\n")
    plan = make_plan(run)
    after = {step.node.name: step.state for step in plan.steps}
    assert {name for name in before if before[name] != after[name]} == {"sample", "dpo"}
    [step] = [step for step in plan.steps if step.node.name == "sample"]
    assert any(reason.startswith("rewards_file: ") for reason in step.reasons)
    known = {step.node.name: step.artifact for step in plan.steps if step.artifact is not None}
    sft = next(node for node in run.nodes if node.name == "sft")
    assert "rewards_file" not in recipe_of(sft, run, plan.corpus, {"cpt": known["cpt"]})
