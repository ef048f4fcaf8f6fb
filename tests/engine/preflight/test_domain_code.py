"""Code of a domain folder from outside the package runs only where the command line allows it by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.cli.main import main
from common.cli.new_domain import new_domain
from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.fingerprint import recipe_of
from common.engine.frozen_plan import freeze, thaw
from common.engine.plan import make_plan
from common.engine.preflight.domain_code import check_code
from common.engine.preflight.settings import check_settings
from common.engine.run import run_stage
from common.errors import ConfigError
from tests.conftest import QUICK, REPOSITORY

REWARDS = """
from pathlib import Path
from common.rewards.verifiers import Answer

Path(__file__).with_name("ran").touch()


def even(answer: Answer, *, most: int = 1) -> float:
    return float(len(answer.text) % 2 < most)
"""
ALLOW = {"run.allow_code": "mine"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A domain outside the package, with a reward of its own that leaves a mark where its code runs."""
    new_domain("mine", tmp_path, REPOSITORY)
    folder = tmp_path / "mine"
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    stages = folder / "stages.yaml"
    old = "rewards: {exact: {weight: 1.0}, stopped: {weight: 0.1}}, check: exact"
    text = stages.read_text("utf-8")
    assert old in text
    stages.write_text(text.replace(old, "rewards: {even: {weight: 1.0}}, check: even"), encoding="utf-8")
    return folder


def resolved(folder: Path, **overrides: str) -> Resolved:
    given = {"domain": str(folder), "pipeline": "on-policy", "out": str(folder.parent / "store"), **overrides}
    return resolve(given, REPOSITORY)


def test_a_run_that_needs_it_says_what_to_add(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"domain={mine}", "pipeline=on-policy"]) == 1
    assert capsys.readouterr().err == (
        f"error: This run would execute code of {mine}, which is not part of the package: rewards.py. Read it, then "
        "add run.allow_code=mine to the command line.\n"
    )
    assert not (mine / "ran").exists()
    assert main(["plan", f"domain={mine}", "pipeline=on-policy", "run.allow_code=mine"]) == 0
    assert (mine / "ran").exists()


def test_a_run_that_does_not_need_it_runs_no_code(mine: Path) -> None:
    make_plan(resolved(mine, pipeline="demonstration"))
    make_plan(resolved(mine, **{"sample.rewards": "{stopped: {}}"}))
    assert not (mine / "ran").exists()


def test_consent_is_for_one_domain_and_never_from_a_file_or_a_plan(mine: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.allow_code=other: expected the name of this run's domain, mine\."):
        resolved(mine, **{"run.allow_code": "other"})
    run = resolved(mine, **ALLOW)
    assert "allow_code" not in freeze(run).read_text("utf-8")
    plan = freeze(run)
    with pytest.raises(ConfigError, match=r"add run\.allow_code=mine"):
        check_settings(thaw(plan, {}, REPOSITORY))
    check_settings(thaw(plan, ALLOW, REPOSITORY))
    frozen = json.loads(plan.read_text("utf-8"))
    frozen["config"]["run"]["allow_code"] = "mine"
    plan.write_text(json.dumps(frozen), encoding="utf-8")
    with pytest.raises(ConfigError):
        thaw(plan, {}, REPOSITORY)
    stages = mine / "stages.yaml"
    stages.write_text(stages.read_text("utf-8").replace("all:\n", "all:\n  run: {allow_code: mine}\n", 1), "utf-8")
    with pytest.raises(ConfigError, match=r"run\.allow_code .*: unknown key\."):
        resolved(mine)


@pytest.mark.parametrize(
    ("name", "text", "is_code"),
    [
        ("benchmarks.yaml", "group: mine_benchmarks\ntask: [arc_easy]\nmetadata: {version: 1}\n", False),
        ("task.yaml", "task: t\ndoc_to_text: !function helper.text\n", True),
        ("task.yaml", "task: t\ndoc_to_text: '{{ cycler }}'\n", True),
        ("task.yaml", 'task: t\ndoc_to_text: "\\x7b\\x7b cycler }}"\n', True),
        ("task.yaml", "include: ../../elsewhere.yaml\n", True),
        ("group.yaml", "group: g\ntask: [{task: t, doc_to_text: '{{ cycler }}'}]\n", True),
        ("below/helper.py", "", True),
    ],
)  # fmt: skip
def test_task_files_that_hold_code_need_consent(name: str, text: str, is_code: bool, mine: Path) -> None:
    path = mine / "eval" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    overrides = {"pipeline": "demonstration", "evaluate.tasks": "[arc_easy]"}
    check_settings(resolved(mine, pipeline="demonstration"))  # no exam reads these files
    check_settings(resolved(mine, **overrides, **ALLOW))
    if is_code:
        with pytest.raises(ConfigError, match=f"not part of the package: eval/{name}. Read it"):
            check_settings(resolved(mine, **overrides))
    else:
        check_settings(resolved(mine, **overrides))


def test_a_checkpoints_own_code_needs_consent_where_the_domain_asks_for_it(mine: Path) -> None:
    stages = mine / "stages.yaml"
    text = stages.read_text("utf-8").replace("all:\n", "all:\n  model: {trust_remote_code: true}\n", 1)
    stages.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the checkpoint's own .model.trust_remote_code is set by: domain "):
        check_settings(resolved(mine, pipeline="demonstration"))
    check_settings(resolved(mine, pipeline="demonstration", **{"model.trust_remote_code": "true"}))


def test_a_manifest_gives_no_consent_to_a_checkpoints_own_code(tmp_path: Path) -> None:
    """Nor does a frozen plan, wherever the domain is from."""
    manifest = tmp_path / "data.yaml"
    manifest.write_text("title: x\nsettings: {model: {trust_remote_code: true}}\n", encoding="utf-8")
    words = {"domain": "medical", "data": str(manifest), "model.path": str(tmp_path), "out": str(tmp_path / "out")}
    asked = r"from outside the package: the checkpoint's own .model.trust_remote_code is set by: manifest data.yaml."
    with pytest.raises(ConfigError, match=asked):
        check_code(resolve(words, REPOSITORY))
    allowed = resolve({**words, "run.allow_code": "medical"}, REPOSITORY)
    check_code(allowed)
    check_code(resolve({**words, "model.trust_remote_code": "true"}, REPOSITORY))
    plan = freeze(allowed)
    with pytest.raises(ConfigError, match="set by: frozen plan"):
        check_code(thaw(plan, {}, REPOSITORY))
    check_code(thaw(plan, {"run.allow_code": "medical"}, REPOSITORY))


def test_a_domain_of_the_clone_needs_no_consent(mine: Path, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "common").symlink_to(REPOSITORY / "common")
    shutil.copytree(mine, root / "domains" / "mine")
    make_plan(resolve({"domain": "mine", "pipeline": "on-policy"}, root, tmp_path / "store"))


@pytest.mark.slow
def test_its_rewards_score_answers_and_an_edit_makes_those_stages_again(mine: Path) -> None:
    overrides = {key: value for key, value in QUICK.items() if not key.startswith("dpo")}
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
