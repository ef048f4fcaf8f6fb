"""What a plan says of methods: a line for each with its settings, paper and cost, and phases that do not fit."""

from __future__ import annotations

import pytest

from common.config.node import Node
from common.config.resolve import resolve
from common.cost import speed
from common.cost.memory import phases_of
from common.cost.outlook import Outlook
from common.engine.code import code_of
from common.engine.methods import method_lines
from common.engine.plan import make_plan
from common.errors import ConfigError
from tests.conftest import REPOSITORY

WORDS = {"domain": "medical", "cpt.tokens": "51200"}  # a hundred steps


TOP_K = "cpt.methods.self_distillation.top_k"


def node_of(found: Outlook, name: str = "cpt") -> Node:
    return next(node for node in found.resolved.nodes if node.name == name)


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


def test_a_teacher_that_reads_first_costs_disk_and_time_once_and_next_to_no_memory() -> None:
    real = {"profile": "qwen3-8b", "data": "embedded", "run.hardware": "h200", "run.processes": "8"}
    beside = outlook(**real, **{"cpt.methods": "self_distillation"})
    kept = outlook(**real, **{TOP_K: "64"})
    assert kept.shape is not None
    added, spared = (each.added("cpt", "self_distillation") for each in (kept, beside))
    assert added is not None
    assert spared is not None
    assert spared[0] - added[0] >= 4 * kept.shape.parameters / 8
    assert added[1] == pytest.approx(0)
    tokens = 51200
    assert kept.disk("cpt")[1] - beside.disk("cpt")[1] == tokens * 4 * (2 * 64 + 1)
    once = [speed.other_seconds(each.settings["cpt"], each.hardware) for each in (kept, beside)]
    assert once[0] > once[1]
    note = next(line for line in method_lines(node_of(kept), kept.config, kept) if "self_distillation" in line)
    assert "0% of a step's time. The stage before reads each row once, before the first step" in note
    assert "(at most 51,200 tokens), and leaves 0.02 GiB on disk" in note


def test_a_teacher_reads_each_row_of_several_epochs_once() -> None:
    words = {"domain": "medical", "pipeline": "sft-only", "sft.methods.self_distillation.top_k": "8", "sft.epochs": "4"}
    plan = make_plan(resolve(words, REPOSITORY))
    four = plan.outlook.settings["sft"]
    one = Outlook.of(resolve({**words, "sft.epochs": "1"}, REPOSITORY), sizes=plan.outlook.sizes).settings["sft"]
    assert one.kept_tokens > 0
    assert one.kept_tokens == pytest.approx(four.kept_tokens, rel=0.05)


def test_an_adapter_may_need_most_while_the_teacher_reads() -> None:
    real = {
        "profile": "qwen3-8b",
        "data": "embedded",
        "run.hardware": "h200",
        "cpt.peft": "qlora",
        "run.processes": "1",
    }
    words = {**real, TOP_K: "64", "run.micro_batch_tokens": "1024", "cpt.sequence_length": "512"}
    need = phases_of(outlook(**words).settings["cpt"])["train"]
    assert need.device["teacher that reads"] > 0
    whole = phases_of(outlook(profile="qwen3-8b", data="embedded", **{TOP_K: "64"}).settings["cpt"])["train"]
    assert whole.device["teacher that reads"] == 0


def test_more_logits_than_the_vocabulary_has_are_refused_in_a_plan() -> None:
    message = r"^cpt\.methods\.self_distillation\.top_k=100000: the vocabulary has \d+ tokens\. Use at most these"
    with pytest.raises(ConfigError, match=message):
        make_plan(resolve({**WORDS, TOP_K: "100000"}, REPOSITORY))


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
