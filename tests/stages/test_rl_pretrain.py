"""RL pre-training: it trains and says what it saw, goes on after a kill, and a plan refuses what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.rl_pretrain import RlPretrainSettings
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.run import run_stage
from common.errors import ConfigError, ContractError, DataError
from common.report.markdown import MISSING
from common.report.mask_notes import mask_notes
from common.stages.rl_pretrain import MaskMonitor, course_of, held_out, num_read
from common.store.artifacts import Artifact
from common.training.masking import COUNT, COUNTED, mask_trainer
from common.training.rows.paragraphs import Paragraph
from tests.conftest import QUICK, REPOSITORY

SMALL = {
    "rl_pretrain.steps": "2", "rl_pretrain.paragraphs_per_step": "2", "rl_pretrain.samples": "3",
    "rl_pretrain.answer_tokens": "4", "rl_pretrain.watch.prompts": "8", "rl_pretrain.watch.every": "2",
}  # fmt: skip


def words(root: Path, **more: str) -> dict[str, str]:
    quick = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
    return {"domain": "medical", "pipeline": "rl-pretrain", "out": str(root), **quick, **SMALL, **more}


def trained(root: Path, **more: str) -> Artifact:
    resolved = resolve(words(root, **more), REPOSITORY)
    if resolved.config.run.processes > 1:
        freeze(resolved)
    return run_stage(resolved, "rl_pretrain", Console("quiet"))


@pytest.mark.slow
def test_it_trains_with_random_spans_and_says_what_it_saw(copy: Path) -> None:
    artifact = trained(copy)
    metrics = artifact.manifest["metrics"]
    assert metrics["steps"] == 2
    assert metrics["paragraphs"] == 4
    assert metrics["masks"]["random_steps"] == 2
    assert [part["step"] for part in metrics["masks"]["course"]] == [1, 2]
    assert 0 <= metrics["masks"]["predicted"] <= 1
    assert [look["step"] for look in metrics["looks"]] == [0, 2]
    log = [json.loads(line) for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]
    assert [record["answers"] for record in log] == [24, 48]  # 2 paragraphs, 3 masks, and 3 predictions of each
    assert all(record["words"] <= 2 for record in log)
    assert [record["counts/written"] for record in log] == [18, 18]  # the masks are random spans
    assert artifact.manifest["tokens"] == sum(record["counts/tokens"] for record in log) <= 18 * 2 * 4


@pytest.mark.slow
def test_a_model_that_writes_no_mask_learns_nothing_and_says_so(copy: Path) -> None:
    """With all masks of the model's own; a tiny one has no valid one, so no weight moves."""
    artifact = trained(copy, **{"rl_pretrain.random_steps": "0"})
    facts = artifact.manifest["metrics"]
    assert facts["masks"]["invalid"] == 1
    assert facts["no_signal"] == 2
    before = copy / "runs" / "medical" / "tiny" / "demonstration" / "cpt" / "manifest.json"
    files = json.loads(before.read_text(encoding="utf-8"))["files"]
    assert artifact.manifest["files"]["model.safetensors"] == files["model.safetensors"]


@pytest.mark.slow
def test_right_predictions_and_hard_masks_become_likelier(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted policy writes both rounds of each step: one of three predictions is right, one mask is no copy."""
    import torch

    from common.models import checkpoint

    texts = {"right": "\\boxed{%s}", "wrong": "\\boxed{%s not}"}
    asked: list[tuple[list[int], str]] = []

    def write(trainer: Any, prompts: list[list[int]]) -> list[list[int]]:
        masking, tokenizer = trainer.masking, trainer.processing_class

        def ids(text: str) -> list[int]:
            return [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]

        if len(prompts) == 2 * 3:  # masks
            paragraphs = [tokenizer.decode(prompt).split() for prompt in prompts]
            spans = [p[1] if turn % 3 else "no copy" for turn, p in enumerate(paragraphs)]
            return [ids(f"\\mask{{{span}}}") for span in spans]
        hidden = [str(span) for span in masking._spans if span is not None for _ in range(3)]
        asked.append((prompts[0], hidden[0]))
        return [ids(texts["wrong" if turn % 3 else "right"] % span) for turn, span in enumerate(hidden)]

    monkeypatch.setattr(mask_trainer(), "_write", write)
    tasks = {"rl_pretrain.mask.prompt": "'{paragraph}'", "rl_pretrain.predict.prompt": "'{masked}'"}
    given = {"rl_pretrain.random_steps": "0", "rl_pretrain.read": "boxed", "rl_pretrain.train.learning_rate": "1e-3"}
    artifact = trained(copy, **tasks, **given)
    log = [json.loads(line) for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]
    for record in log:
        assert (record["predicted"], record["invalid"]) == pytest.approx((1 / 3, 1 / 3), abs=1e-5)
        assert record["earned"] == pytest.approx((0 + 2 / 3 + 2 / 3) / 3, abs=1e-5)
        assert record["no_signal"] == 0

    def likelihood(model: Any, tokenizer: Any, prompt: list[int], text: str) -> float:
        said = tokenizer(text, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
        return float(logits.float().log_softmax(-1)[range(len(said)), said].sum())

    gains = []
    for folder in (copy / "runs" / "medical" / "tiny" / "demonstration" / "cpt", artifact.path):
        model, tokenizer = checkpoint.load(folder, resolve(words(copy), REPOSITORY).config.model)
        prompt, span = asked[0]
        gains.append({name: likelihood(model, tokenizer, prompt, text % span) for name, text in texts.items()})
    before, after = gains
    assert after["right"] - before["right"] > after["wrong"] - before["wrong"]


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"rl_pretrain.steps": "4", "run.checkpoint_minutes": "0.00001", "rl_pretrain.precision": "float32"}
    whole = trained(copy, **more)
    look = MaskMonitor.evaluate

    class Killed(Exception):
        pass

    def dies(self: MaskMonitor, model: Any, step: int) -> bool:
        found = look(self, model, step)
        if step == 4:
            raise Killed
        return found

    shutil.rmtree(whole.path)
    with monkeypatch.context() as patched:
        patched.setattr(MaskMonitor, "evaluate", dies)
        with pytest.raises(Killed):
            trained(copy, **more)
    assert list((copy / "artifacts" / ".work").glob("rl_pretrain-*/trainer/checkpoint-3"))
    assert trained(copy, **more).digest == whole.digest


@pytest.mark.long
def test_two_processes_share_a_step(copy: Path) -> None:
    """Each has whole paragraphs with all their answers; the counts of a step are those of both."""
    artifact = trained(copy, **{"run.processes": "2", "rl_pretrain.precision": "float32"})
    log = [json.loads(line) for line in (artifact.path / "log.jsonl").open(encoding="utf-8")]
    assert artifact.manifest["processes"] == 2
    assert [record["answers"] for record in log] == [24, 48]
    assert all(record["invalid"] == 0 and 0 < record["words"] <= 2 for record in log)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"train.beta": "0.1"}, "rl_pretrain.train.beta=0.1: there is no KL term here, as in the paper. Leave it out."),
        ({"train.use_vllm": "true"}, "rl_pretrain.train.use_vllm=true: the prompts of a step's second round come from"),
        ({"train.reward_weights": "[1.0]"}, "cannot be set here: its rewards are given. Leave it out."),
        ({"train.num_iterations": "2"}, "cannot be 2 here: answers are used once"),
        ({"prompt_tokens": "40"}, "words, so that no paragraph fits. Raise prompt_tokens."),
        ({"prompt_tokens": "1022"}, "prompt_tokens=1022 and answer_tokens=4 make rows longer than the model's context"),
        ({"mask.prompt": "Hide a part."}, "it has no place for the text; add {paragraph}"),
        ({"predict.prompt": "'{paragraph}'"}, "{paragraph} is nothing that it is filled with; expected {masked} or "),
        ({"read": "begin"}, "rl_pretrain.read (command line): expected boxed or leading; got 'begin'"),
        ({"samples": "1"}, "rl_pretrain.samples"),
        ({"rewards": "{exact: {}}"}, "rl_pretrain.rewards"),
    ],
)
def test_mistakes_in_settings(option: dict[str, str], expected: str, tmp_path: Path) -> None:
    given = {f"rl_pretrain.{key}": value for key, value in option.items()}
    with pytest.raises(ConfigError) as caught:
        make_plan(resolve(words(tmp_path, **given), REPOSITORY))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("random_steps", "ending"),
    [("0", "mask."), ("1", "mask; random spans in the first 1 steps."), ("2", "mask; all masks are random spans.")],
)
def test_a_plan_names_the_paper_and_what_a_step_reads(random_steps: str, ending: str, tmp_path: Path) -> None:
    plan = make_plan(resolve(words(tmp_path, **{"rl_pretrain.random_steps": random_steps}), REPOSITORY))
    said = "rl_pretrain: PretrainZero (arXiv 2512.03442), 2 paragraphs a step, 3 masks of each, 3 predictions of each "
    assert said + ending in plan.notes
    setting = plan.outlook.settings["rl_pretrain"]
    assert (setting.sequences, setting.reference) == (24, False)  # 2 x 3 masks, and 3 predictions of each, at once
    assert setting.work is not None
    assert setting.work.rows * setting.work.accumulation == 24


def test_answers_are_written_in_batches_which_take_their_time(tmp_path: Path) -> None:
    """Three batches of nine answers' room for 24; the memory of one is what is needed at once."""
    at_once = make_plan(resolve(words(tmp_path), REPOSITORY)).outlook
    pieces = make_plan(resolve(words(tmp_path, **{"rl_pretrain.generated_tokens": "2600"}), REPOSITORY)).outlook
    assert pieces.settings["rl_pretrain"].sequences == 9
    there, here = (one.phases("rl_pretrain")["generate"].device_total for one in (at_once, pieces))
    assert here < there
    assert (pieces.seconds("rl_pretrain", None) or 0) > (at_once.seconds("rl_pretrain", None) or 0)


def test_processes_share_whole_paragraphs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^rl_pretrain\.paragraphs_per_step=2 makes 2 paragraphs per step, which 4 "):
        make_plan(resolve(words(tmp_path, **{"run.processes": "4", "cpt.batch_tokens": "1024"}), REPOSITORY))


def test_a_batch_in_the_words_of_trl_is_one_of_paragraphs(tmp_path: Path) -> None:
    given = words(tmp_path, **{"rl_pretrain.train.per_device_train_batch_size": "48", "rl_pretrain.samples": "3"})
    del given["rl_pretrain.paragraphs_per_step"]
    settings = resolve(given, REPOSITORY).config.stages["rl_pretrain"]
    assert isinstance(settings, RlPretrainSettings)
    assert (settings.paragraphs_per_step, settings.answers) == (4, 48)


@pytest.mark.slow
def test_texts_that_are_all_too_long_stop_it(copy: Path) -> None:
    with pytest.raises(ContractError, match=r"lost all its \d+ rows, .*'longer than prompt_tokens'.* Raise prompt_tok"):
        trained(copy, **{"rl_pretrain.prompt_tokens": "60", "rl_pretrain.mask.prompt": "{paragraph}" + " ," * 45})


@pytest.mark.slow
def test_too_few_paragraphs(copy: Path) -> None:
    with pytest.raises(DataError, match=r"usable paragraphs and needs 9001: it keeps 8999 from training"):
        trained(copy, **{"rl_pretrain.watch.prompts": "8999"})


def test_held_out_paragraphs_have_the_same_masks_again() -> None:
    settings = RlPretrainSettings(random_words=2)
    texts = [Paragraph(f"Drug {number} is given for a disease of the heart.", "s", 9) for number in range(4)]
    rows = held_out(texts, settings, 0)
    assert rows == held_out(texts, settings, 0) != held_out(texts, settings, 1)
    assert all(row["span"] in row["paragraph"] for row in rows)
    with pytest.raises(DataError, match=r"^None of 1 held-out paragraphs has a span .* such as 'no no no no no"):
        held_out([Paragraph("no " * 90, "s", 9)], settings, 0)


def counted(step: int, **counts: float) -> dict[str, float]:
    return {"step": step, **{COUNT.format(name): counts.get(name, 0.0) for name in COUNTED}}


def test_means_over_steps_are_of_what_was_written() -> None:
    """A step without valid masks tells nothing of predictions, and one with few of them tells little."""
    many = counted(1, masks=8, invalid=0, predictions=64, right=48, all_right=4, all_wrong=0, words=24, written=72)
    few = counted(2, masks=8, invalid=7, predictions=8, right=0, all_right=0, all_wrong=1, words=1, written=16)
    none = counted(3, masks=8, invalid=8, written=8, unstopped=8)
    facts = course_of([many, few, none], RlPretrainSettings())
    expected = {"predicted": 48 / 72, "invalid": 15 / 24, "all_right": 4 / 9, "all_wrong": 1 / 9, "words": 25 / 9,
                "unstopped": 8 / 96, "earned": 0.0}  # fmt: skip
    assert {name: facts[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert facts["course"][-1] == {"step": 3, "earned": 0.0, "invalid": 1.0, "unstopped": 1.0}
    manifest = {"metrics": {"masks": course_of([none], RlPretrainSettings()), "steps": 1, "paragraphs": 8}}
    chain: Any = SimpleNamespace(manifests={"rl_pretrain": manifest})
    *_, note, table = mask_notes(chain)
    assert note.endswith("No mask was valid, so nothing was predicted.")
    assert table.splitlines()[-1].count(MISSING) == 4


def test_the_card_names_the_paper_what_is_ours_and_the_course() -> None:
    log = [
        counted(step, masks=80, invalid=10, predictions=560, right=11.2 * step, all_right=7, all_wrong=28, earned=40,
                words=175, written=640)
        for step in range(1, 26)
    ]  # fmt: skip
    facts = course_of(log, RlPretrainSettings(random_steps=10))
    assert [part["step"] for part in facts["course"]] == [3, 6, 9, 12, 15, 18, 21, 24, 25]
    assert facts["course"][0]["predicted"] == 0.04
    assert facts["predicted"] == 0.26
    chain: Any = SimpleNamespace(
        manifests={"rl_pretrain": {"metrics": {"masks": facts, "steps": 25, "paragraphs": 800}}, "cpt": {"metrics": {}}}
    )
    title, papers, note, table = mask_notes(chain)
    assert title == "### RL pre-training"
    assert "arXiv 2512.03442" in papers
    assert "Ours: masks of a paragraph that all earn the same are dropped too, the prompts" in papers
    assert "The masks of the first 10 steps are random spans, then the model wrote them" in note
    assert "26.0% of all predictions were right. 12.5% of the masks were not valid" in note
    assert "10.0% were predicted right each time and 40.0% never" in note
    assert len(table.splitlines()) == 2 + 9
    chain.manifests = {"cpt": {"metrics": {}}}
    assert mask_notes(chain) == []


def test_paragraphs_are_those_of_the_steps_that_were_made() -> None:
    settings = RlPretrainSettings(paragraphs_per_step=4)
    assert num_read(32, 2, settings) == 8  # of 8 steps that were planned
    assert num_read(6, 2, settings) == 6  # which come again
