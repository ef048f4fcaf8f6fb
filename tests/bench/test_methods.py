"""The bench of methods: every method has an arm, arms are sound settings, and the page says what was measured."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.config.base import StageSettings
from common.config.methods import ScheduleMethod, chosen, methods
from common.config.resolve import resolve
from common.config.stages import TrainingSettings
from common.store.artifacts import write_json
from tests.bench import methods as bench
from tests.bench.arm import ALONE, CHECKPOINT, FORGETFUL, PLAIN, Arm, Claim, Setting
from tests.bench.method_arms import ARMS
from tests.bench.method_costs import ROOM, STEPS, WARMUP, measure, words_of
from tests.bench.method_page import NOT_MEASURED, PAGE, page, summary
from tests.bench.method_results import AGAIN, MEASURED, Cost, Results, Run
from tests.bench.undesired_page import section
from tests.bench.undesired_results import MEASURED as UNDESIRED
from tests.bench.undesired_results import Outcomes
from tests.conftest import REPOSITORY

REAL = {True: {"data": str(bench.REAL_TEXT), "data_root": "."}, False: {}}  # for settings that need real text

ARM = Arm(
    PLAIN, FORGETFUL, Claim("It forgets less.", "a paper", {"general": True}, {"general": -0.5}),
    ours="all of it", limit=1.5, phrase="a share of old text", paper="arXiv 0000.00000",
)  # fmt: skip


def run(setting: Setting, seed: int, domain: float, general: float) -> Run:
    words = bench.words_of(setting, "embedded")
    return Run("embedded", words, "cpt", seed, domain, general, "2026-01-02", "a processor (avx2)", 10.0, 60.0)


def cost(low: float, high: float) -> Cost:
    return Cost("replay", (low + high) / 2, low, high, 40, 3.0, "2026-01-02", "a processor (avx2)")


def measured(seeds: int) -> Results:
    found = Results()
    for seed in range(seeds):
        found = found.with_run(run(FORGETFUL, seed, 2.0 + seed, 3.0 + seed))
        found = found.with_run(run(PLAIN, seed, 2.1 + seed, 2.0 + seed + 0.01 * seed))
    return found


def test_every_method_has_an_arm_and_every_other_arm_says_what_it_is() -> None:
    assert set(methods()) <= set(ARMS), "give a new method an arm in tests/bench/method_arms.py"
    for name, arm in ARMS.items():
        assert (name in methods()) != bool(arm.phrase and arm.paper), name


@pytest.mark.parametrize("name", sorted(ARMS.keys() & methods().keys() | {"top_k", "replay", "curriculum", "phases"}))
def test_an_arm_differs_from_its_plain_counterpart_by_its_method_alone(name: str) -> None:
    arm = ARMS[name]
    on, plain = (
        resolve(bench.words_of(one, "embedded"), REPOSITORY).config.stages[one.stage] for one in (arm.on, arm.plain)
    )  # fmt: skip
    assert on != plain
    assert [method.name for method, _ in chosen(on)] == (
        [arm.variant_of or name] if {name, arm.variant_of} & methods().keys() else []
    )
    assert not chosen(plain)
    keys = {"replay", "tokens", "batch_tokens"} - ({"replay"} if name == "replay" else set())
    assert on.model_dump(include=keys) == plain.model_dump(include=keys)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, arm in ARMS.items() for text in arm.texts or ("",)])
def test_both_sides_of_an_arm_have_one_base_and_budget_and_rest_on_other_settings(name: str, text: str) -> None:
    sides = ARMS[name].settings(text)
    found = [resolve(bench.words_of(one, "embedded") | REAL[text == "real"], REPOSITORY) for one in sides]
    on, plain = (bench.rests_on(one, f"exam-{side.stage}") for one, side in zip(found, sides, strict=True))
    assert on != plain
    base = [{key: word for key, word in one.words.items() if key.startswith(("base.", "model."))} for one in sides]
    assert base[0] == base[1]
    budgets = [one.config.stages[side.stage].model_dump() for one, side in zip(found, sides, strict=True)]
    keys = {"replay", "tokens", "batch_tokens"} & budgets[0].keys() & budgets[1].keys()
    for key in keys - ({"replay"} if name == "replay" else set()):
        assert budgets[0][key] == budgets[1][key], key


def test_a_setting_can_name_the_base_that_it_starts_from(tmp_path: Path) -> None:
    asked: list[str] = []

    def make(_: object, name: str) -> Path:
        asked.append(name)
        return tmp_path / "base-1"

    words = {"domain": "medical", "pipeline": "cpt-only", **ARMS["perplexity_order"].on.words}
    assert f"checkpoint: {tmp_path}/base-1," in bench.with_base(words | REAL[True], make)["data-cpt.blocks"]
    assert asked[-1] == "base"
    assert "data-pretrain" in asked, "a base that reads rows of a data stage"
    assert bench.with_base({"domain": "medical"}, make) == {"domain": "medical"}


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.timed and not arm.scored])
def test_the_steps_of_an_arm_are_timed_on_equal_batches(name: str, tmp_path: Path) -> None:
    arm = ARMS[name]
    real = REAL["embedded" not in arm.texts]
    on, plain = (
        resolve(words_of(one, real, tmp_path), REPOSITORY).config.stages[one.stage] for one in arm.steps
    )  # fmt: skip
    keys = {"tokens", "batch_tokens", "sequence_length"}
    assert on.model_dump(include=keys) == plain.model_dump(include=keys)
    assert on.model_dump()["tokens"] == on.model_dump()["batch_tokens"] * (WARMUP + STEPS + ROOM)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if CHECKPOINT in arm.texts])
def test_settings_of_a_checkpoint_go_together(name: str) -> None:
    on, plain = (
        resolve(bench.words_of(one, CHECKPOINT), REPOSITORY).config.stages for one in ARMS[name].settings(CHECKPOINT)
    )  # fmt: skip
    rates = [training_rate(stages["cpt"]) for stages in (on, plain)]
    assert rates == [1e-4, 1e-5 if name == "rewarm" else 1e-4]


def training_rate(settings: StageSettings) -> float:
    assert isinstance(settings, TrainingSettings)
    for method, own in chosen(settings):
        if isinstance(method, ScheduleMethod) and method.peak is not None:
            return float(method.peak(own))
    return float(settings.train["learning_rate"])


def test_the_residual_of_a_checkpoint_is_set_against_the_cpt_that_it_takes_back() -> None:
    on, plain = ARMS["residual"].settings(CHECKPOINT)
    (node,) = (node for node in resolve(bench.words_of(on, "embedded"), REPOSITORY).nodes if node.name == on.stage)
    assert set(node.inputs) == {"cpt", "base"}
    assert on.words.items() >= plain.words.items()


def test_the_page_is_what_was_measured_and_names_every_method() -> None:
    results = Results.read(MEASURED)
    text = PAGE.read_text(encoding="utf-8")
    further = section(Outcomes.read(UNDESIRED))
    assert text == page(results, bench.words_of, further=further), "just bench methods seeds=none writes it again"
    for name in methods():
        assert f"| `{name}` |" in text
        assert f"### {name}\n" in text
    if results.runs:
        assert re.search(r"runs with\s+seeds? [\d, ]+,\s+made\s+\d{4}-\d\d-\d\d on a\s+CPU", text)


def test_what_was_not_measured_is_said_so() -> None:
    text = page(Results(), bench.words_of)
    tables = text.split("## The methods")[0]
    assert tables.count(NOT_MEASURED) == sum(arm.timed for arm in ARMS.values()), "costs"
    assert tables.count(NOT_MEASURED.capitalize()) == 4
    assert not re.search(r"[-+]\d\.\d", tables)


def test_one_method_without_a_run_is_not_measured_beside_others() -> None:
    arms = {"replay": ARM, "other": dataclasses.replace(ARM, on=Setting({**ALONE, "cpt.methods": "{reptile: {}}"}))}
    text = page(measured(3), bench.words_of, arms)
    assert f"| `other` | {NOT_MEASURED} |  |  |  |  |  |" in text
    assert "| `replay` | general: supports | 3 | +0.100 ± 0.000 | 0.000 | -0.990 ± 0.025 |" in text
    assert "6 runs with seeds 0, 1, 2, made 2026-01-02 on a CPU, a processor (avx2)" in " ".join(text.split())
    assert "a run took 6.0 times its CPU time" in " ".join(text.split())


def test_one_seed_has_an_effect_and_no_verdict() -> None:
    text = page(measured(1), bench.words_of, {"replay": ARM})
    assert "| `replay` | general: open: one seed | 1 | +0.100 (one seed) | - | -1.000 (one seed) | - |" in text
    assert list(summary(measured(1), {"replay": ARM}, bench.words_of))


def test_seeds_without_a_counterpart_are_left_out() -> None:
    alone = measured(2).with_run(run(PLAIN, 7, 9.0, 9.0))
    assert page(alone, bench.words_of, {"replay": ARM}) == page(measured(2), bench.words_of, {"replay": ARM})


def test_an_effect_of_the_paper_that_could_not_be_seen_is_underpowered() -> None:
    results = measured(2).with_run(run(PLAIN, 1, 3.1, 4.0))
    assert "general: underpowered" in page(results, bench.words_of, {"replay": ARM})


@pytest.mark.parametrize(
    ("found", "expected"),
    [(cost(0.99, 1.5), "pass"), (cost(1.51, 1.6), "fail"), (cost(0.99, 1.55), "undecided")],
)
def test_a_cost_is_within_its_limit_where_its_interval_is(found: Cost, expected: str) -> None:
    assert found.verdict(1.5) == expected
    assert found.verdict(None) == ""
    text = page(Results(costs=(found,)), bench.words_of, {"replay": ARM})
    assert f"[{found.low:.3f}, {found.high:.3f}] | <= 1.5 | {expected} | +3 MB |" in text


def test_results_are_read_as_they_were_written_and_a_newer_run_replaces(tmp_path: Path) -> None:
    results = measured(2).with_cost(cost(1.0, 1.01))
    write_json(tmp_path / "methods.json", results.as_dict())
    again = Results.read(tmp_path / "methods.json")
    assert again.as_dict() == results.as_dict()
    newer = again.with_run(run(PLAIN, 1, 8.0, 9.0))
    assert len(newer.runs) == len(again.runs)
    assert newer.by_seed(bench.words_of(PLAIN, "embedded"), "cpt", "embedded")[1].domain == 8.0


def test_stages_that_an_exam_does_not_rest_on_are_left_out() -> None:
    names = {"base": (), "exam-base": ("base",), "clean": (), "cpt": ("base", "clean"), "exam-cpt": ("cpt",)}
    nodes = [SimpleNamespace(name=name, inputs=inputs) for name, inputs in names.items()]
    assert bench.needed(nodes, "exam-cpt") == ["base", "clean", "cpt", "exam-cpt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "reptil"}, "methods=reptil: there is no such arm"),
        ({"seeds": "one"}, "seeds=one: expected numbers such as 0,1,2"),
        ({"text": "real"}, "text=real: needs data_root=<folder>"),
        ({"text": "smollm2"}, "text=smollm2: needs data_root=<folder>"),
        ({"text": "book"}, "text=book: expected embedded, real or smollm2"),
        ({"data_root": "no/such/folder"}, "data_root=no/such/folder: there is no such folder"),
        ({"steps": "few"}, "steps=few: expected a number of steps"),
        ({"costs": "some"}, "costs=some: expected yes, no or only"),
        ({"tokens": "many"}, "tokens=many: expected a number of tokens"),
    ],
)
def test_mistakes_are_named(options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(**options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_run_is_kept(tmp_path: Path) -> None:
    made = bench.train(ARMS["reptile"].on, "embedded", 0, tmp_path, 2048)
    assert 0 < made.domain < 20
    assert 0 < made.general < 20
    shutil.rmtree(tmp_path / "store")
    assert bench.train(ARMS["reptile"].on, "embedded", 0, tmp_path, 2048) == made
    assert not (tmp_path / "store").exists()


@pytest.mark.long
def test_a_step_is_timed_beside_two_plain_ones() -> None:
    found = {one.name: one for one in measure({"reptile": ARMS["reptile"]}, {})}
    assert list(found) == [AGAIN, "reptile"]
    assert all(0.5 < one.low <= one.ratio <= one.high < 2 for one in found.values())
