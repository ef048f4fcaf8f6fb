"""What a stage goes on behind follows from settings alone, and is refused where the two read other rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.cleaning import DataSettings, hub_characters
from common.config.continued import behind_of
from common.config.node import Node
from common.config.resolve import Resolved, resolve
from common.config.stages import CptSettings
from common.errors import ConfigError
from common.training.options import steps_for
from tests.conftest import own_pipeline

PIPELINE = """
description: Stages that go on behind each other.
stages:
  base: {kind: base}
  trunk: {kind: cpt, from: base}
  decay: {kind: cpt, from: trunk}
  further: {kind: cpt, from: decay}
  chat: {kind: sft, from: trunk}
  more: {kind: sft, from: chat}
  pairs: {kind: dpo, from: chat}
  last: {kind: cpt, from: pairs}
  few: {kind: label, from: more}
  labelled: {kind: cpt, from: trunk, with: [few]}
exam: [base]
publish: more
"""
WORDS = {
    "domain": "medical", "pipeline": "own", "cpt.tokens": "4096", "trunk.tokens": "12288", "decay.tokens": "2048",
    "cpt.replay": "0.25", "sft.tokens": "2048", "sft.replay": "0", "decay.continue_data": "true",
}  # fmt: skip
Resolve = Callable[..., Resolved]


@pytest.fixture
def resolved(tmp_path: Path) -> Resolve:
    """Resolve a run of the pipeline above with further words; None leaves a word out."""
    repository = own_pipeline(tmp_path, PIPELINE)

    def run(**words: str | None) -> Resolved:
        given = {key: value for key, value in {**WORDS, **words}.items() if value is not None}
        return resolve(given, repository)

    return run


def behind(run: Resolved, name: str) -> dict[str, tuple[int, ...]]:
    node = next(node for node in run.nodes if node.name == name)
    return behind_of(node, run.nodes, run.config.stages)


def test_budgets_of_the_stages_before_are_known_by_role(resolved: Resolve) -> None:
    run = resolved(**{"further.continue_data": "true", "more.continue_data": "true"})
    assert behind(run, "trunk") == {}
    assert behind(run, "decay") == {"cpt": (9216,), "replay": (3072,)}
    assert behind(run, "further") == {"cpt": (9216, 1536), "replay": (3072, 512)}
    assert behind(run, "more") == {"sft": (2048,)}
    run = resolved(**{"further.continue_data": "true", "decay.continue_data": "false", "trunk.replay": "1"})
    assert behind(run, "further") == {"cpt": (1536,), "replay": (512,)}


def test_each_role_has_the_budget_of_its_own_share(resolved: Resolve) -> None:
    assert behind(resolved(**{"trunk.replay": "0"}), "decay") == {"cpt": (12288,)}
    assert behind(resolved(**{"decay.replay": "0"}), "decay") == {"cpt": (9216,)}
    assert behind(resolved(**{"trunk.replay": "1", "decay.replay": "1"}), "decay") == {"replay": (12288,)}
    run = resolved(**{"further.continue_data": "true", "decay.replay": "0"})
    assert behind(run, "further") == {"cpt": (9216, 2048), "replay": (3072,)}


def test_replay_is_counted_in_whole_steps_as_its_rows_are(resolved: Resolve) -> None:
    run = resolved(**{"trunk.tokens": "12000", "trunk.batch_tokens": "1024"})
    trunk = run.config.stages["trunk"]
    assert isinstance(trunk, CptSettings)
    assert behind(run, "decay")["replay"] == (round(steps_for(trunk, 1, "trunk") * 1024 * 0.25),) == (3072,)


def test_cleaning_reads_as_much_of_the_hub_as_is_passed_over_and_read() -> None:
    nodes = [
        Node("data-cpt", "clean", None, (), "clean"),
        Node("trunk", "cpt", "base", ("data-cpt", "base"), "cpt"),
        Node("decay", "cpt", "trunk", ("data-cpt", "trunk"), "cpt"),
    ]
    settings = {
        "data-cpt": DataSettings(role="cpt"), "trunk": CptSettings(tokens=40960),
        "decay": CptSettings(tokens=4096, continue_data=True),
    }  # fmt: skip
    passed = functools.partial(behind_of, nodes=nodes, stages=settings)
    assert hub_characters(nodes, settings, ["cpt"], passed) == {"data-cpt": 8 * (40960 + 4096)}
    settings["decay"] = CptSettings(tokens=4096)
    assert hub_characters(nodes, settings, ["cpt"], passed) == {"data-cpt": 8 * 40960}


TAKEN = {"model.path": "owner/name", "model.revision": "0" * 40}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"base.continue_data": "true"}, r"^base\.continue_data=true: base begins the chain\. Set continue_data=false"),
        (
            {"trunk.continue_data": "true", **TAKEN},
            r"^trunk\.continue_data=true: base, the stage before it, takes a finished checkpoint, and what that",
        ),
        (
            {"trunk.continue_data": "true"},
            r"^trunk\.continue_data=true: base, the stage before it, reads pretrain, and trunk reads cpt\. Set",
        ),
        (
            {"chat.continue_data": "true"},
            r"^chat\.continue_data=true: trunk, the stage before it, reads cpt and replay, and chat reads sft\. Set",
        ),
        (
            {"trunk.replay": "1"},
            r"^decay\.continue_data=true: trunk, the stage before it, reads replay, and decay reads",
        ),
        (
            {"last.continue_data": "true"},
            r"^last\.continue_data=true: pairs, the stage before it, is of kind dpo, which reads no such rows\. Set",
        ),
        (
            {"trunk.tokens": None, "trunk.epochs": "2"},
            r"^decay\.continue_data=true: trunk, the stage before it, reads all of its rows \(epochs\), and leaves "
            r"none to go on with\. Set a budget in trunk\.tokens, or continue_data=false\.",
        ),
        (
            {"decay.tokens": None, "decay.epochs": "1"},
            r"^decay\.continue_data=true: decay has epochs, and goes on for a budget of tokens\. Set decay\.tokens\.",
        ),
        (
            {"decay.continue_data": "false", "further.continue_data": "true"},
            r"^further\.continue_data=true: decay begins at the start of cpt, which trunk has read before it, so that "
            r"further would read that again\. Set decay\.continue_data=true too, or further's to false\.$",
        ),
        ({"trunk.packing": "trl"}, r"^decay\.continue_data=true: trunk\.packing=trl does not read documents in their"),
        ({"decay.packing": "trl"}, r"^decay\.continue_data=true: decay\.packing=trl does not read documents in their"),
        ({"decay.mixture.most_epochs": "4"}, r"^decay\.continue_data=true: decay\.mixture does not read documents"),
        ({"trunk.mixture.temperature": "2"}, r"^decay\.continue_data=true: trunk\.mixture does not read documents"),
        (
            {"decay.replay_from": "lineage"},
            r"^decay\.continue_data=true: decay\.replay_from=lineage does not read documents in their one order up "
            r"to a budget\. Leave that out, or set continue_data=false\.",
        ),
        (
            {"trunk.methods.subset.by": "perplexity"},
            r"^decay\.continue_data=true: trunk\.methods\.subset does not read documents in their one order",
        ),
        (
            {"trunk.methods.conditional": "{}"},
            r"^decay\.continue_data=true: methods\.conditional changes documents, and so their tokens, and is not "
            r"the same in trunk and decay\. Set it alike in both\.",
        ),
        (
            {"more.continue_data": "true", "more.train.assistant_only_loss": "false"},
            r"^more\.continue_data=true: only one of chat and more learns from answers alone\. Set train\.",
        ),
        (
            {"labelled.continue_data": "true"},
            r"^labelled\.continue_data=true: labelled reads rows that another stage has made, and not those of",
        ),
    ],
)
def test_two_stages_that_read_other_rows_are_refused(
    words: dict[str, str | None], message: str, resolved: Resolve
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(**words)


def test_methods_that_are_alike_in_both_may_change_documents(resolved: Resolve) -> None:
    words = {f"{name}.methods.conditional": "{}" for name in ("trunk", "decay")}
    assert behind(resolved(**words), "decay")["cpt"] == (9216,)
