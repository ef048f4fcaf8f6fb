"""What is published follows the stated rule, and what the named stage cost is said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from common.report.chain import Chain, Checkpoint, LossCurve
from common.report.choice import choose
from common.stage import StageContext
from common.stages import card
from common.store.artifacts import Artifact

LINE = {"base": ("base", None), "cpt": ("cpt", "base"), "sft": ("sft", "cpt"), "dpo": ("dpo", "sft"),
        "merge": ("merge", "dpo")}  # fmt: skip
QUESTIONS, DOCUMENTS = 200, 60
# name -> right answers of 200 domain questions, of 200 general ones, and bits per byte of domain text
Numbers = Mapping[str, tuple[int | None, int | None, float]]


def checkpoint(name: str, domain: int | None, general: int | None, bits: float) -> Checkpoint:
    kind, parent = LINE[name]
    records = [
        {"id": f"q{n}", "side": side, "task": side, "correct": n < right}
        for side, right in (("domain", domain), ("general", general)) if right is not None for n in range(QUESTIONS)
    ]  # fmt: skip
    noise = random.Random(name)
    texts = [
        {"id": f"d{n}", "side": "domain", "bytes": 100, "bits": 100 * bits + noise.uniform(-0.5, 0.5)}
        for n in range(DOCUMENTS)
    ]
    per_byte = sum(float(str(t["bits"])) for t in texts) / DOCUMENTS / 100
    exam: dict[str, Any] = {"exam": {}, "bits_per_byte": {"domain": per_byte}}
    exam["exam"] = {"domain": None if domain is None else {"score": domain / QUESTIONS}}
    inputs: dict[str, Any] = {parent: {}} if parent else {}
    manifest = {"kind": kind, "inputs": inputs | ({"base": {}} if kind == "merge" else {})}
    return Checkpoint(name, kind, parent, manifest, exam, records, LossCurve([], []), texts=texts)


def chain_of(numbers: Numbers, named: str = "merge") -> Chain:
    found = tuple(checkpoint(name, *values) for name, values in numbers.items())
    return Chain(found, named, {c.name: c.manifest for c in found})


FIRST_RUN: Numbers = {  # the exam is near chance, and the merge gives most of the gain back
    "base": (100, 100, 0.668), "cpt": (100, 100, 0.608), "sft": (101, 100, 0.609), "dpo": (101, 100, 0.609),
    "merge": (100, 100, 0.652),
}  # fmt: skip


def test_a_merge_that_gives_most_of_the_gain_back_is_told_and_published_only_as_named() -> None:
    choice = choose(chain_of(FIRST_RUN), "named", 0.05)
    assert (choice.named, choice.best, choice.published) == ("merge", "dpo", "merge")
    assert choice.lost == pytest.approx(0.73, abs=0.02)
    assert "Against `dpo`, `merge` changed: -0.5 points [" in choice.sentence
    assert "] of domain score and +7.1% [+" in choice.sentence
    assert "] bits per byte of domain text (0.609 to 0.652; lower is better)." in choice.sentence
    assert "It gave back 72.8% of what `dpo` gained over `base`." in choice.sentence
    assert choice.sentence.endswith("publish.choose=best publishes `dpo` instead.")


def test_with_best_the_best_stage_before_it_is_published_in_its_place() -> None:
    choice = choose(chain_of(FIRST_RUN), "best", 0.05)
    assert choice.published == "dpo"
    assert choice.sentence.startswith("`dpo`, in the place of `merge`, which the pipeline names (publish.choose=best).")
    assert choose(chain_of(FIRST_RUN), "best", 0.05) == choice


def test_a_cost_that_is_not_too_much_is_said_and_changes_nothing() -> None:
    choice = choose(chain_of({**FIRST_RUN, "merge": (100, 100, 0.620)}), "best", 0.05)
    assert (choice.best, choice.published, choice.lost) == ("dpo", "merge", None)
    assert "The best stage before it is `dpo`. Against `dpo`, `merge` changed:" in choice.sentence
    assert "gave back" not in choice.sentence


def test_where_the_exam_shows_the_gain_its_score_decides() -> None:
    numbers: Numbers = {
        "base": (60, 100, 0.7),
        "cpt": (90, 100, 0.6),
        "sft": (150, 100, 0.62),
        "merge": (80, 100, 0.62),
    }
    chain = chain_of(numbers)
    merge = replace(chain["merge"], parent="sft", manifest={"kind": "merge", "inputs": {"sft": {}, "base": {}}})
    chain = Chain((*chain.checkpoints[:-1], merge), "merge", {**chain.manifests, "merge": merge.manifest})
    choice = choose(chain, "best", 0.05)
    assert (choice.best, choice.published) == ("sft", "sft")
    assert choice.lost == pytest.approx(70 / 90)


def test_the_named_stage_is_best_where_no_interval_tells_it_from_the_best() -> None:
    choice = choose(chain_of({**FIRST_RUN, "merge": (101, 100, 0.609)}), "best", 0.05)
    assert (choice.best, choice.published, choice.lost) == ("merge", "merge", None)
    assert choice.sentence == "`merge`, the stage that the pipeline names."


def test_a_stage_that_has_learned_no_conversations_does_not_stand_in_for_one_that_has() -> None:
    numbers = {**FIRST_RUN, "sft": (100, 100, 0.66), "dpo": (100, 100, 0.66), "merge": (100, 100, 0.66)}
    assert choose(chain_of(numbers), "best", 0.05).published == "merge"
    assert choose(chain_of({**FIRST_RUN}, "cpt"), "best", 0.05).best == "cpt"


@pytest.mark.parametrize(("collapsed", "published"), [(False, "merge"), (True, "dpo")])
def test_a_stage_whose_layers_have_copies_does_not_stand_in_for_one_that_any_program_loads(
    collapsed: bool, published: str
) -> None:
    chain = chain_of(FIRST_RUN)
    facts: dict[str, Any] = {"cpt": {"growth": {"method": "control_llm"}}, "dpo": {"collapse": {}}}
    facts["dpo"]["collapse"] = {"weights": "lerp"} if collapsed else {}
    found = tuple(replace(c, manifest={**c.manifest, "metrics": facts.get(c.name, {})}) for c in chain.checkpoints[:-1])
    merge = replace(chain["merge"], manifest={**chain["merge"].manifest, "metrics": {"collapse": {"weights": "lerp"}}})
    assert choose(replace(chain, checkpoints=(*found, merge)), "best", 0.05).published == published


def test_what_forgot_more_than_the_gate_allows_is_not_the_best() -> None:
    numbers = {**FIRST_RUN, "dpo": (101, 60, 0.609), "sft": (101, 95, 0.612)}
    assert choose(chain_of(numbers), "best", 0.05).published == "sft"
    assert choose(chain_of(numbers), "best", 0.5).published == "dpo"
    forgot = {name: (101, 60, bits) if name != "base" else (100, 100, bits) for name, (*_, bits) in FIRST_RUN.items()}
    assert choose(chain_of(forgot), "best", 0.05).published == "merge"


def test_without_exam_or_documents_the_named_stage_stays() -> None:
    bare = chain_of({name: (None, None, bits) for name, (*_, bits) in FIRST_RUN.items()})
    assert choose(bare, "best", 0.05).published == "dpo"  # bits per byte alone
    nothing = tuple(replace(c, exam={}, texts=(), records=()) for c in bare.checkpoints)
    choice = choose(replace(bare, checkpoints=nothing), "best", 0.05)
    assert (choice.published, choice.sentence) == ("merge", "`merge`, the stage that the pipeline names.")


def test_card_summary_and_published_stage_agree(
    build_chain: Callable[..., dict[str, Artifact]], card_context: Callable[..., StageContext]
) -> None:
    numbers = {
        "base": (50, 16),
        "sft-only": (50, 16),
        "cpt": (50, 16),
        "sft": (50, 50),
        "dpo": (50, 51),
        "merge": (50, 20),
    }
    inputs = build_chain(numbers)
    for setting, published in (("named", "merge"), ("best", "dpo")):
        context = replace(card_context(inputs, choose=setting), parent="merge")
        report = card.run(context)
        summary = json.loads((context.out / "summary.json").read_text(encoding="utf-8"))
        said = (context.out / "README.md").read_text(encoding="utf-8")
        assert report.metrics["published"] == summary["published"] == report.metrics["choice"]["published"] == published
        assert f"**What is published.** {summary['choice']}" in said
        assert f"The published model, `{published}`, is in bold." in said
        assert report.metrics["choice"]["lost"] == pytest.approx(31 / 35)


@pytest.mark.parametrize(("general", "said"), [(80, True), (91, False)])
def test_what_is_published_says_that_its_general_score_fell_beyond_the_gate(general: int, said: bool) -> None:
    numbers: Numbers = {"base": (100, 100, 0.668), "cpt": (140, general, 0.608)}
    choice = choose(chain_of(numbers, "cpt"), "named", 0.05)
    assert (
        choice.sentence.startswith("`cpt`, the stage that the pipeline names. Its general score changed by -10.0 ")
        is said
    )
    assert choice.sentence.endswith(" against `base`, more than gate.max_general_drop=0.05.") is said
