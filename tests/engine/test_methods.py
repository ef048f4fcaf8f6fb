"""What a plan says of methods: a line for each with its settings, paper and cost, and phases that do not fit."""

from __future__ import annotations

import pytest

from common.config.resolve import resolve
from common.cost.memory import phases_of
from common.cost.outlook import Outlook
from common.engine.code import code_of
from common.engine.methods import method_lines
from common.engine.plan import make_plan
from common.errors import ConfigError
from tests.conftest import REPOSITORY

WORDS = {"domain": "medical", "cpt.tokens": "51200"}  # a hundred steps


def outlook(**words: str) -> Outlook:
    return Outlook.of(resolve({**WORDS, "run.hardware": "l4", **words}, REPOSITORY))


def test_a_line_for_each_with_its_settings_and_its_paper() -> None:
    plan = make_plan(resolve({**WORDS, "cpt.methods.reptile.every": "20", "sft.methods": "infinite"}, REPOSITORY))
    lines = [note for note in plan.notes if "arXiv" in note]
    assert [line.partition(":")[0] for line in lines] == ["sft-only, infinite", "cpt, reptile", "sft, infinite"]
    assert lines[1].startswith("cpt, reptile: every so many steps, an interpolation")
    assert "(every=20, step=0.1; arXiv 2508.01908" in lines[1]
    assert "Adds 0.00 GiB and 0% of a step's time." in lines[1]


def test_a_copy_costs_memory_and_a_teacher_costs_memory_and_a_forward_pass() -> None:
    real = {"profile": "qwen3-8b", "data": "embedded", "run.hardware": "h200", "run.processes": "8"}
    found = outlook(**real, **{"cpt.methods": "[reptile, self_distillation]"})
    plain = outlook(**real)
    assert found.shape is not None
    copy, taught = found.added("cpt", "reptile"), found.added("cpt", "self_distillation")
    assert copy is not None
    assert taught is not None
    assert copy[0] == pytest.approx(4 * found.shape.parameters / 8)  # of each of eight shards
    assert copy[1] == pytest.approx(0)
    assert taught[0] > 4 * found.shape.parameters / 8
    assert 0.15 < taught[1] < 0.35  # one forward pass beside two of its own and a backward pass
    both, none = (phases_of(each.settings["cpt"])["train"] for each in (found, plain))
    assert {"teacher", "methods"} == both.device.keys() - none.device.keys()
    assert plain.added("exam-cpt", "reptile") is None
    assert [*method_lines(next(n for n in plain.resolved.nodes if n.name == "cpt"), plain.config, plain)] == []


def test_phases_that_exceed_the_steps_are_refused_in_a_plan() -> None:
    words = {**WORDS, "cpt.methods.infinite.warmup": "60", "cpt.methods.infinite.cooldown": "40"}
    with pytest.raises(
        ConfigError, match=r"^cpt\.methods\.infinite: warmup 60 \+ cooldown 40 \+ anneal 10 are 110 steps"
    ):
        make_plan(resolve(words, REPOSITORY))


def test_the_code_of_a_method_is_part_of_the_code_of_the_stages_that_use_it() -> None:
    resolved = resolve({**WORDS, "cpt.methods": "reptile"}, REPOSITORY)
    path = "common/training/methods/optimizers/reptile.py"
    assert path in code_of("cpt", REPOSITORY, resolved.config.stages["cpt"])["files"]
    assert path not in code_of("sft", REPOSITORY, resolved.config.stages["sft"])["files"]


def test_a_loss_beside_that_of_experts_is_refused_in_a_plan() -> None:
    words = {
        "domain": "medical", "pipeline": "growth", "expand.method": "upcycle", "expand.added": "null",
        "expand.num_experts": "4", "cpt-added.train_only": "null", "sft-grown.methods": "self_distillation",
    }  # fmt: skip
    message = r"^sft-grown\.methods\.self_distillation: this model's experts have a loss of their own"
    with pytest.raises(ConfigError, match=message):
        make_plan(resolve(words, REPOSITORY))
    make_plan(resolve({**words, "sft-grown.train.router_aux_loss_coef": "0"}, REPOSITORY))
    make_plan(resolve({**words, "sft-grown.methods": "reptile"}, REPOSITORY))
