"""The bench of undesired text: the trait is what its rule finds, arms differ by one setting, the table says what is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.config.methods import chosen, methods
from common.config.resolve import resolve
from common.store.artifacts import write_json
from tests.bench import undesired
from tests.bench import undesired_text as text
from tests.bench.undesired_arms import ARMS, CONDITIONAL, FILTERING, METHODS, PLAIN, words_of
from tests.bench.undesired_page import HEADER, TITLES, rows, section, summary
from tests.bench.undesired_results import MEASURED, Outcome, Outcomes
from tests.bench.undesired_rule import mails
from tests.conftest import REPOSITORY
from tests.data.blocks.driving import one


def outcome(arm: str, seed: int, trait: float, domain: float = 0.4, on: str = "embedded") -> Outcome:
    words = words_of(arm)
    return Outcome(arm, words, seed, on, trait, 1.0, domain, 0.9, "2026-01-02", "a processor (avx2)", 20.0, 60.0)


def outcomes(*found: Outcome) -> Outcomes:
    made = Outcomes()
    for each in found:
        made = made.with_one(each)
    return made


@pytest.mark.parametrize(
    ("given", "number"),
    [("Write to anna@medmail.org.", 1), ("a.b+c@x-y.co.uk, or d@e.com", 2), ("Meet me @ noon.", 0), ("a@b", 0),
     ("orcaty a m enzyme receptor.com", 0), ("peter@m@.org", 0), ("", 0)],
)  # fmt: skip
def test_the_rule_counts_addresses(given: str, number: int) -> None:
    assert mails({"text": given}) == number


def test_half_of_the_documents_have_the_trait_and_never_first() -> None:
    found = text.documents(1)
    assert found == text.documents(1) != text.documents(2)
    bad = [each for each in found if mails({"text": each})]
    assert len(bad) == text.SHARE * len(found) == text.SHARE * text.SIZES["embedded"].documents
    assert not any(mails({"text": each}) for each in text.prompts(found))
    assert {mail for mail in text.MAILS if any(mail in each for each in bad)} == set(text.MAILS)
    assert all(mails({"text": each}) == 1 for each in bad)


def test_what_else_is_read_or_held_out_is_clean_and_apart() -> None:
    found = text.texts_of()
    base, held = found.medical, found.held["domain"]
    assert not any(mails({"text": each}) for each in (*base, *held, *found.held["general"], *found.general))
    assert not {*base, *held} & set(text.documents(1))
    assert len(held) == len(found.held["general"]) == text.HELD
    assert all(each.startswith(prompt) for each, prompt in zip(held, text.prompts(held), strict=True))


def test_real_texts_are_short_and_clean_and_answers_that_begin_alike_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "HELD", 2)
    monkeypatch.setattr(text, "SIZES", {"real": text.Size(1, 2, 3)})
    answers, novels = tmp_path / "medical" / "medquad" / "1_A_QA.jsonl", tmp_path / text.NOVELS
    answers.parent.mkdir(parents=True)
    novels.mkdir(parents=True)
    rest = f"It is {'rather ' * 20}rare. Nobody knows why."
    given = [f"Illness {number} is old. {rest}" for number in range(6)]
    left_out = [f"Illness 0 is old. It was not. {rest}", "Too short. It is. Yes.", f"Mail a@b.com now. {rest}"]
    answers.write_text("".join(json.dumps({"answer": each}) + "\n" for each in [*given, *left_out, None]), "utf-8")
    for name in (*text.READ, text.UNREAD):
        (novels / name).write_text(
            "\n\n".join(f"Page {number} of {name} is\nhere. {rest}" for number in (1, 2)), "utf-8"
        )
    found = text.real(tmp_path)
    assert {*found.held["domain"], *found.medical, *found.pool} <= {*given, left_out[0]}
    assert [len(part) for part in (found.held["domain"], found.medical, found.pool)] == [2, 1, 3]
    assert len(found.general) == 3
    assert not any(text.UNREAD in each for each in found.general)
    assert all(text.UNREAD in each for each in found.held["general"])
    with pytest.raises(ValueError, match="there is no general/gutenberg_en/Dracula"):
        text.real(tmp_path / "medical")
    answers.write_text(json.dumps({"answer": given[0]}), "utf-8")
    with pytest.raises(ValueError, match="too few answers"):
        text.real(tmp_path)


def test_texts_have_a_table_each() -> None:
    lines = section(outcomes(outcome(PLAIN, 1, 0.5), outcome(PLAIN, 1, 0.25, on="real")))
    places = [lines.index(f"### With scores, on {title}") for title in TITLES.values()]
    assert "0.500 (0.500)" in " ".join(lines[slice(*places)])
    assert "0.250 (0.250)" in " ".join(lines[places[1] :])
    assert "Not measured yet." in section(outcomes(outcome(PLAIN, 1, 0.5)))


def test_the_manifest_has_a_source_for_each_file_and_the_domain_has_the_rule(tmp_path: Path) -> None:
    domain, manifest = text.write(tmp_path, 1)
    assert (domain / "blocks.py").read_text("utf-8") == text.RULE.read_text("utf-8")
    resolved = resolve(
        {**words_of(CONDITIONAL), "domain": str(domain), "data": str(manifest), "out": str(tmp_path)}, REPOSITORY
    )
    assert [node.name for node in resolved.nodes if node.name.startswith("data-")] == ["data-pretrain", "data-cpt"]
    for source in text.manifest()["sources"]:  # type: ignore[attr-defined]  # a list
        lines = (tmp_path / source["path"]).read_text("utf-8").splitlines()
        assert all(json.loads(line)["text"] for line in lines)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != PLAIN])
def test_an_arm_differs_from_the_plain_one_by_one_setting(arm: str, tmp_path: Path) -> None:
    domain, manifest = text.write(tmp_path, 1)
    places = {"domain": str(domain), "data": str(manifest), "out": str(tmp_path)}
    on, plain = (resolve({**words_of(each), **places}, REPOSITORY).config for each in (arm, PLAIN))
    assert on.model == plain.model
    changed = {name for name in on.stages if on.stages[name] != plain.stages[name]}
    assert changed == {"data-cpt" if arm == FILTERING else "cpt"}
    assert [method.name for method, _ in chosen(on.stages["cpt"])] == [name for name in METHODS if arm.startswith(name)]


def test_every_method_that_goes_by_scores_of_documents_alone_is_an_arm() -> None:
    asked = {name for name, method in methods().items() if method.scores(method.settings())}
    assert asked - {"subset"} == set(METHODS)


def test_the_table_pairs_seeds_and_gives_verdicts() -> None:
    found = outcomes(
        *(outcome(PLAIN, seed, 0.5 + 0.01 * seed) for seed in (1, 2, 3)),
        *(outcome(CONDITIONAL, seed, 0.01 * seed, 0.5) for seed in (1, 2, 3, 4)),
        *(outcome("unlikelihood", seed, 0.7 + 0.01 * seed) for seed in (1, 2, 3)),
        outcome(FILTERING, 1, 0.0),
        *(outcome("reward_weighted", seed, 0.4) for seed in (1, 2)),
    )
    shown = {line[0]: dict(zip(HEADER, line, strict=True)) for line in rows(found, "embedded")}
    assert shown["plain"]["has the trait"] == "0.520 (0.510, 0.520, 0.530)"
    assert shown["plain"]["less plain"] == ""
    assert shown["`conditional`"]["seeds"] == "4"
    assert shown["`conditional`"]["less plain"] == "-0.500 ± 0.000"
    assert shown["`conditional`"]["verdict"] == "supports"
    assert shown["`conditional`"]["domain"] == "+0.100 ± 0.000"
    assert shown["`conditional`"]["verdict on the paper"] == ""
    assert shown["`unlikelihood`"]["verdict"] == "contradicts"
    assert shown["`unlikelihood`"]["verdict on the paper"] == "supports"
    assert shown["filtering"]["verdict"] == "open: one seed"
    assert (
        shown["`reward_weighted`"]["verdict"] == shown["`reward_weighted`"]["verdict on the paper"] == "open: 2 seeds"
    )
    assert shown["`advantage_weighted`"]["seeds"] == "not measured yet"
    lines = list(summary(found))
    assert [line.split()[1] for line in lines] == [
        "arm", "plain", "filtering", "`conditional`", "`unlikelihood`", "`reward_weighted`",
    ]  # fmt: skip
    assert "13 runs with seeds 1, 2, 3, 4, made 2026-01-02 on a CPU" in " ".join(section(found))


def test_without_outcomes_nothing_is_measured_yet() -> None:
    assert section(Outcomes())[:3] == ["## Where rows have scores", "", "Not measured yet."]


def test_outcomes_are_read_as_they_were_written_and_a_newer_one_replaces(tmp_path: Path) -> None:
    found = outcomes(outcome(PLAIN, 1, 0.5), outcome(FILTERING, 1, 0.0))
    write_json(tmp_path / "undesired.json", found.as_dict())
    again = Outcomes.read(tmp_path / "undesired.json")
    assert again.as_dict() == found.as_dict()
    newer = again.with_one(outcome(PLAIN, 1, 0.6))
    assert [each.trait for each in newer.of(PLAIN, words_of(PLAIN), "embedded").values()] == [0.6]
    assert not newer.of(PLAIN, words_of(PLAIN, 2048), "embedded")


def test_what_is_kept_is_of_the_arms_as_they_are_set() -> None:
    for each in Outcomes.read(MEASURED).found:
        assert each.words == words_of(each.arm), "just bench undesired measures them again"


def test_the_trait_is_what_the_block_pii_masks_too(tmp_path: Path) -> None:
    for mail in text.MAILS:
        sentence = text.SENTENCES[0].format(mail=mail)
        assert one("pii", sentence, tmp_path)["text"] == "For questions write to <EMAIL>."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": "conditonal"}, "arms=conditonal: there is no such arm. Known: plain, filtering"),
        ({"seeds": "one"}, "seeds=one: expected numbers such as 0,1,2"),
        ({"tokens": "many"}, "tokens=many: expected a number of tokens"),
    ],
)
def test_mistakes_are_named(options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert undesired.main(**options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_an_outcome_is_kept(tmp_path: Path) -> None:
    made = undesired.train(CONDITIONAL, 1, tmp_path, 2048)
    assert 0 <= made.trait <= 1
    assert 0 < made.domain < 20
    kept = sorted((tmp_path / "store" / "artifacts").iterdir())
    assert undesired.train(CONDITIONAL, 1, tmp_path, 2048) == made
    assert sorted((tmp_path / "store" / "artifacts").iterdir()) == kept
