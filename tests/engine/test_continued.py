"""A plan says behind what a stage goes on, and what of it is read again; one length of rows where it decides which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.resolve import Resolved, resolve
from common.engine.fingerprint import recipe_of
from common.engine.plan import Plan, make_plan
from common.errors import ConfigError
from tests.conftest import own_pipeline

PIPELINE = """
description: Stages that go on behind each other.
stages:
  base: {kind: base}
  trunk: {kind: cpt, from: base}
  decay: {kind: cpt, from: trunk}
  further: {kind: cpt, from: decay}
  chat: {kind: sft, from: decay}
  more: {kind: sft, from: chat}
exam: [base]
publish: more
"""
WORDS = {
    "domain": "medical", "pipeline": "own", "embedded.documents_per_entity": "4", "trunk.tokens": "12288",
    "decay.tokens": "4096", "sft.tokens": "4096", "cpt.replay": "0.25", "sft.replay": "0",
    "decay.continue_data": "true", "more.continue_data": "true",
}  # fmt: skip
Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    repository = own_pipeline(tmp_path, PIPELINE)

    def plan(**words: str) -> Plan:
        return make_plan(resolve({**WORDS, "out": str(tmp_path / "store"), **words}, repository))

    return plan


def lines(plan: Plan, stage: str) -> list[str]:
    return [
        note for note in plan.notes if note.startswith(f"{stage}: ") and ("continue_data" in note or "again" in note)
    ]


def test_a_plan_says_behind_what_a_stage_goes_on(planned: Planned) -> None:
    plan = planned()
    assert lines(plan, "decay") == [
        "decay: goes on in the data behind 9,216 tokens of cpt and 3,072 tokens of replay, which the stages before it "
        "read (continue_data)."
    ]
    assert lines(plan, "more")[0].startswith("more: goes on in the data behind 4,096 tokens of sft, which")
    assert lines(plan, "trunk") == lines(plan, "chat") == []
    assert lines(planned(**{"decay.continue_data": "false"}), "decay") == []


def test_a_plan_says_how_much_is_read_again(planned: Planned) -> None:
    _, again = lines(planned(**{"trunk.tokens": "32768", "cpt.replay": "0"}), "decay")
    assert again.startswith("decay: cpt has about ")
    assert again.endswith("so about 100% of the 4,096 that it reads of them is read again.")


def test_conversations_need_one_length_and_texts_do_not(planned: Planned) -> None:
    planned(**{"decay.sequence_length": "256", "decay.batch_tokens": "2048"})
    with pytest.raises(
        ConfigError,
        match=r"^more\.continue_data=true: sequence_length is \d+ in chat and 512 in more, and longer conversations of "
        r"the source '.*' are left out, so that the two read other rows\. Set more\.sequence_length=\d+\.$",
    ):
        planned(**{"more.sequence_length": "512"})


def test_the_length_is_that_of_every_stage_before_that_reads_conversations(planned: Planned) -> None:
    lengths = {"trunk.sequence_length": "64", "decay.replay": "0", "further.continue_data": "true"}
    message = r"^further\.continue_data=true: sequence_length is 64 in trunk and 256 in further, and longer"
    with pytest.raises(ConfigError, match=message):
        planned(**lengths)
    planned(**lengths, **{"further.replay": "0"})


def test_a_budget_of_no_token_is_read_to_its_end(planned: Planned) -> None:
    assert lines(planned(**{"cpt.replay": "0.0001"}), "decay")[0].startswith("decay: goes on in the data behind 12,287")


def test_what_a_stage_is_behind_is_part_of_its_recipe(planned: Planned) -> None:
    def recipe(resolved: Resolved, plan: Plan) -> dict[str, object]:
        node = next(node for node in resolved.nodes if node.name == "decay")
        return recipe_of(node, resolved, plan.corpus, {})

    on, off = planned(), planned(**{"decay.continue_data": "false"})
    assert recipe(on.resolved, on)["behind"] == {"cpt": [9216], "replay": [3072]}
    assert "behind" not in recipe(off.resolved, off)
    assert "continue_data" not in str(recipe(off.resolved, off))
