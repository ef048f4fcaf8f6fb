"""The words of the card follow from the numbers, also where a stage did not help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from common.evaluation.comparison import TextComparison
from common.report.chain import load_chain
from common.report.comparisons import compare_chain, compare_chain_texts, find, find_roles
from common.report.headline import describe_text, headline
from common.report.stage_notes import preference_claim, training_notes
from common.store.artifacts import Artifact

BuildChain = Callable[..., dict[str, Artifact]]
Right = Mapping[str, tuple[int | None, int | None]]


def lines(build_chain: BuildChain, right: Right | None = None) -> dict[str, str]:
    """Return the headline by the bold words that each item begins with."""
    chain = load_chain(build_chain(right))
    items = headline(chain, compare_chain(chain))
    return {item.split("**")[1].rstrip("."): item.split("**")[2] for item in items}


def test_a_chain_that_worked_names_what_was_gained_forgotten_and_restored(build_chain: BuildChain) -> None:
    said = lines(build_chain)
    assert list(said) == [
        "Effect of the domain text",
        "Fine-tuning alone",
        "Forgetting",
        "Effect of preference tuning",
        "The merge restored general ability",
        "Overall, from `base` to `merge`",
    ]
    taught = said["Effect of the domain text"]
    assert "the domain score rose from 26.7% [17.1%, 39.0%] (`base`) to 83.3% [72.0%, 90.7%] (`sft`)" in taught
    assert (
        "With continued pre-training (`sft`), the score is higher than with fine-tuning alone (`sft-only`): " in taught
    )
    assert "(+56.7 points [" in taught
    assert "McNemar p < 0.001)" in taught
    assert "fell from 83.3% [72.0%, 90.7%] (`base`) to 55.0%" in said["Forgetting"]
    claim = "In 90.0% [77.0%, 96.0%] of 40 held-out pairs, `dpo` made the preferred answer more probable, relative to "
    assert claim in said["Effect of preference tuning"]
    assert (
        "The general score rose from 55.0% [42.5%, 66.9%] (`dpo`) to 76.7%"
        in said["The merge restored general ability"]
    )


def test_bits_per_byte_are_told_where_the_exam_shows_nothing(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain({"base": (50, 30), "cpt": (50, 30), "sft": (50, 31)}))
    items = headline(chain, compare_chain(chain), compare_chain_texts(chain))
    said = {item.split("**")[1].rstrip("."): item.split("**")[2] for item in items}
    taught = said["Effect of the domain text"]
    assert "the domain score did not change significantly" in taught
    assert ". The bits per byte of domain text fell: " in taught
    assert " documents; lower is better)." in taught


def test_bits_per_byte_are_not_told_where_the_exam_shows_the_change(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain({"base": (50, 16), "cpt": (50, 50)}))
    taught = headline(chain, compare_chain(chain), compare_chain_texts(chain))[0]
    assert "the domain score rose" in taught
    assert "bits per byte" not in taught


def test_one_document_and_no_exam_are_no_evidence(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain({"base": (None, 16), "cpt": (None, 16)}))
    one = [replace(c, change=-0.1, low=None, high=None) for c in compare_chain_texts(chain) if c.side == "domain"]
    assert "The bits per byte of domain text went " in headline(chain, compare_chain(chain), one)[0]
    assert "(-10.0%, one document)" in headline(chain, compare_chain(chain), one)[0]
    lead = headline(chain, [], compare_chain_texts(chain))[0]
    assert lead.startswith("**Effect of the domain text.** After continued pre-training, the bits per byte of domain")


@pytest.mark.parametrize(
    ("change", "low", "high", "verb"),
    [
        (0.0004, 0.0001, 0.0010, "did not change"),  # printed as 0.0%
        (0.0010, 0.0004, 0.0020, "did not change"),  # its interval is printed from 0.0%
        (0.0010, -0.0010, 0.0020, "did not change significantly"),
        (0.0010, 0.0006, 0.0020, "rose"),
        (-0.0010, -0.0020, -0.0006, "fell"),
    ],
)
def test_a_change_of_bits_that_is_printed_as_none_is_none(change: float, low: float, high: float, verb: str) -> None:
    found = TextComparison("a", "b", "general", 5, 100, 4.877, 4.877 * (1 + change), change, low, high)
    assert describe_text(found).startswith(f"{verb}: ")


def test_both_sentences_on_preferences_are_one(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain())
    (note,) = [note for note in training_notes(chain) if "held-out pairs" in note]
    assert any(item.endswith(note) for item in headline(chain, compare_chain(chain)))
    assert preference_claim("orpo", {"score": 0.9, "n": 40, "low": 0.77, "high": 0.96, "before": 0.5}) == (
        "In 90.0% [77.0%, 96.0%] of 40 held-out pairs, `orpo` gives the preferred answer a higher probability per "
        "token than the rejected answer. The model before it did so in 50.0%."
    )


def test_a_small_change_is_not_called_one(build_chain: BuildChain) -> None:
    said = lines(build_chain)
    assert "the domain score did not change significantly" in said["Fine-tuning alone"]
    assert "The general score did not change" in said["Effect of preference tuning"]
    assert "rose" not in said["Fine-tuning alone"]


def test_a_chain_that_taught_nothing_and_forgot_nothing_says_so(build_chain: BuildChain) -> None:
    said = lines(build_chain, {"base": (50, 30), "sft-only": (50, 30), "cpt": (50, 30), "sft": (49, 31)})
    assert "did not change significantly" in said["Effect of the domain text"]
    assert (
        "the score is not significantly different from fine-tuning alone (`sft-only`): 51.7%"
        in said["Effect of the domain text"]
    )
    assert said["Forgetting"].startswith(" The score fell, but on these questions that may be chance. The general")


def test_where_the_score_did_not_fall_the_exam_shows_no_loss(build_chain: BuildChain) -> None:
    said = lines(build_chain, {"base": (50, 30), "sft-only": (50, 30), "cpt": (50, 30), "sft": (50, 31)})
    assert said["Forgetting"].startswith(" The exam shows no loss")


@pytest.mark.parametrize(
    ("merged", "title", "words"),
    [
        ((20, 51), "The merge cost general ability", "The general score fell from 55.0%"),
        ((34, 51), "Effect of the merge", "The general score did not change significantly"),
    ],
)
def test_a_merge_that_did_not_help_says_so(
    build_chain: BuildChain, merged: tuple[int, int], title: str, words: str
) -> None:
    said = lines(build_chain, {"base": (50, 16), "cpt": (40, 38), "sft": (33, 50), "dpo": (33, 51), "merge": merged})
    assert words in said[title]


def test_a_general_gain_is_not_called_forgetting(build_chain: BuildChain) -> None:
    assert "rose from" in lines(build_chain, {"base": (20, 16), "cpt": (50, 38)})["No forgetting"]


def test_a_pipeline_without_domain_text_has_no_such_item(build_chain: BuildChain) -> None:
    assert list(lines(build_chain, {"base": (50, 16), "sft-only": (44, 40)})) == [
        "Fine-tuning alone",
        "Forgetting",
    ]


def test_roles_follow_kind_and_ancestry_not_names(build_chain: BuildChain) -> None:
    roles = find_roles(load_chain(build_chain()))
    assert (roles.base, roles.adapted, roles.plain, roles.aligned, roles.merge) == (
        "base",
        "sft",
        "sft-only",
        "dpo",
        "merge",
    )


def test_every_checkpoint_is_compared_with_its_parent_once(build_chain: BuildChain) -> None:
    chain = load_chain(build_chain())
    comparisons = compare_chain(chain)
    keys = [(c.before, c.after, c.side) for c in comparisons]
    assert len(keys) == len(set(keys))
    for checkpoint in chain.checkpoints[1:]:
        assert {(checkpoint.parent, checkpoint.name, side) for side in ("general", "domain")} <= set(keys)
    # 16 of 60 right, then 38 with the same 16 among them: 22 gained of 22 that differ, p = 2 * 0.5 ** 22
    taught = find(comparisons, "base", "cpt", "domain")
    assert taught is not None
    assert (taught.n, taught.gained, taught.lost) == (60, 22, 0)
    assert taught.difference == pytest.approx(22 / 60)
    assert taught.p == pytest.approx(2 * 0.5**22)
    assert taught.p < taught.p_holm <= taught.p * len(comparisons)


def test_what_is_proven_alone_is_not_proven_among_many(build_chain: BuildChain) -> None:
    forgot = find(compare_chain(load_chain(build_chain())), "base", "sft-only", "general")
    assert forgot is not None
    assert forgot.p == pytest.approx(2 * 0.5**6)  # 6 lost of 6 that differ: below 0.05
    assert forgot.p_holm > 0.05
    assert not forgot.proven
