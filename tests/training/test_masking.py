"""The two rounds of a step with a scripted policy: its prompts, what each answer earns, and what is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.rl_pretrain import RlPretrainSettings
from common.data.decontaminate import Decontaminator
from common.models.tokenizer import train_tokenizer
from common.training.masking import Masking, mask_trainer
from common.training.rows.paragraphs import Asking, Paragraph

TEXT = "Bedaquiline works by inhibiting a microbial enzyme. It is given for infections."
OTHER = "Metformin works by slowing the liver. It is given for diabetes."
EXAM = "Which lamp of the northern pier burns longest in winter?"
SAMPLES = 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(
        [TEXT, OTHER, EXAM, "\\mask{a} \\boxed{b} [mask] Hide a part: The hidden part is"] * 4, 400, 256
    )


class Policy:
    """Writes what a script says, prompt by prompt, and keeps the prompts."""

    def __init__(self, tokenizer: Any, *script: str) -> None:
        self.tokenizer, self.script, self.prompts = tokenizer, list(script), list[str]()

    def __call__(self, prompts: list[list[int]]) -> list[list[int]]:
        self.prompts += [self.tokenizer.decode(ids).strip() for ids in prompts]
        said = [self.script.pop(0) for _ in prompts]
        return [
            [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id] for text in said
        ]


def masking(tokenizer: Any, folder: Path, exam: list[str] | None = None, **settings: Any) -> Masking:
    given = RlPretrainSettings.model_validate(
        {
            "samples": SAMPLES, "chat": False, "mask": {"prompt": "Hide a part: {paragraph}"},
            "predict": {"prompt": "The hidden part is: {masked}"}, **settings,
        }
    )  # fmt: skip
    texts = [Paragraph(TEXT, "s", 9), Paragraph(OTHER, "s", 9)]
    stops = [tokenizer.eos_token_id]
    guard = Decontaminator(exam or [])
    return Masking(Asking(tokenizer, given), texts, given, stops, tokenizer, guard, folder / "overlaps.jsonl", 0)


def box(*said: str) -> list[str]:
    return [f"\\boxed{{{one}}}" for one in said]


def called(found: Masking) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return rewards and what is kept as (groups, samples), and what was logged."""
    log: dict[str, float] = {}
    totals = found([None], log_metric=log.__setitem__)
    return np.reshape(totals, (-1, SAMPLES)), np.reshape(found.kept, (-1, SAMPLES)), log


def test_a_block_has_the_masks_of_a_paragraph_and_the_predictions_of_each(tokenizer: Any, tmp_path: Path) -> None:
    policy = Policy(
        tokenizer,
        "\\mask{infections}", "\\mask{a microbial enzyme}", "\\mask{Bedaquiline}", "\\mask{penguins}",
        *box("infections", "cancer", "pain", "infections"),  # half are right
        *box(*["a microbial enzyme"] * 4),  # all are
        *box("It", "Metformin", "aspirin", "") ,  # none is
    )  # fmt: skip
    found = masking(tokenizer, tmp_path)
    found.draw([(0, 0)], 0, policy)
    assert policy.prompts[:SAMPLES] == [f"Hide a part: {TEXT}"] * SAMPLES
    hidden = TEXT.replace("infections", "[mask]")
    assert policy.prompts[SAMPLES : 2 * SAMPLES] == [f"The hidden part is: {hidden}"] * SAMPLES
    assert len(policy.prompts) == 4 * SAMPLES  # a mask that is not in the text is not predicted
    assert len(found.prompts) == len(found.answers) == SAMPLES * (1 + SAMPLES)

    rewards, kept, log = called(found)
    assert rewards[0].tolist() == [0.5, 0, 0, 0]  # hard; too easy; never right; no mask
    assert rewards[1:].tolist() == [[1, 0, 0, 1], [1] * 4, [0] * 4, [0] * 4]
    assert kept.tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4, [False] * 4]
    assert log["predicted"] == 6 / 12
    assert log["counts/written"] == 4 * SAMPLES  # what stands in place of the fourth mask's predictions was not
    assert log["counts/tokens"] == sum(map(len, found.answers)) - SAMPLES
    assert log["earned"] == 0.125
    assert log["invalid"] == 0.25
    assert log["all_right"] == log["all_wrong"] == pytest.approx(1 / 3)
    assert log["words"] == pytest.approx((1 + 3 + 1) / 3)
    assert (log["unstopped"], log["exam_overlap"], log["no_signal"]) == (0, 0, 0)


def test_masks_that_earn_alike_are_dropped_and_a_step_without_signal_is_known(tokenizer: Any, tmp_path: Path) -> None:
    policy = Policy(tokenizer, *["\\mask{infections}"] * SAMPLES, *box(*["infections"] * SAMPLES**2))
    found = masking(tokenizer, tmp_path)
    found.draw([(0, 0)], 0, policy)
    rewards, kept, log = called(found)
    assert not rewards[0].any()  # too easy
    assert not kept.any()
    assert found.without_signal
    assert log["no_signal"] == 1


def test_random_steps_ask_for_no_masks_and_draw_the_same_spans_again(tokenizer: Any, tmp_path: Path) -> None:
    found, spans = masking(tokenizer, tmp_path, random_steps=2, random_words=2), list[list[str]]()
    for number in (0, 1, 0):
        policy = Policy(tokenizer, *box(*["works", "a", "It", "is"] * 2 * SAMPLES))
        found.draw([(0, number), (1, number + 9)], 1, policy)
        assert len(policy.prompts) == 2 * SAMPLES**2
        assert all(prompt.startswith("The hidden part is: ") for prompt in policy.prompts)
        spans.append(policy.prompts)
        _, kept, log = called(found)
        assert not kept[[0, 1 + SAMPLES]].any()  # of the masks that the model did not write
        assert log["invalid"] == 0
    assert spans[0] == spans[2] != spans[1]
    policy = Policy(tokenizer, *["nothing"] * 2 * SAMPLES)
    found.draw([(0, 0), (1, 9)], 2, policy)  # the steps are over
    assert [prompt.split(":")[0] for prompt in policy.prompts] == ["Hide a part"] * 2 * SAMPLES
    log = called(found)[2]
    assert log["invalid"] == 1
    assert not log.keys() & {"predicted", "all_right", "all_wrong", "words"}  # of nothing
    assert log["counts/written"] == 2 * SAMPLES


def test_an_answer_that_repeats_the_exam_is_not_learned_from(tokenizer: Any, tmp_path: Path) -> None:
    policy = Policy(
        tokenizer,
        "\\mask{infections}", "\\mask{infections}", f"{EXAM} \\mask{{infections}}", "none",
        *box("infections", "cancer"), f"{EXAM} \\boxed{{infections}}", *box("pain"),
        *box(*["infections"] * 8),
    )  # fmt: skip
    found = masking(tokenizer, tmp_path, exam=[EXAM])
    found.draw([(0, 0)], 0, policy)
    rewards, kept, log = called(found)
    assert rewards[1].tolist() == [1, 0, 1 / 3, 0]  # what the others earn on average, so that none is better by it
    assert kept[1].tolist() == [True, True, False, True]
    assert rewards[0].tolist() == pytest.approx([2 / 3, 0, 2 / 9, 0])  # of the mask: 1 - 1/3 of those that count
    assert kept[0].tolist() == [True, True, False, True]
    assert log["exam_overlap"] == 2
    assert len([json.loads(line) for line in (tmp_path / "overlaps.jsonl").read_text().splitlines()]) == 2


def test_answers_may_begin_with_a_given_text(tokenizer: Any, tmp_path: Path) -> None:
    found = masking(
        tokenizer, tmp_path, mask={"prompt": "Hide a part: {paragraph}", "begin": "\\mask{"},
        predict={"prompt": "{before}", "begin": "\\boxed{"},
    )  # fmt: skip
    policy = Policy(tokenizer, *["infections}"] * SAMPLES, *["infections}", "pain}", "pain", "infections"] * SAMPLES)
    found.draw([(0, 0)], 0, policy)
    assert policy.prompts[0] == f"Hide a part: {TEXT}\\mask{{"
    assert policy.prompts[SAMPLES] == TEXT.removesuffix(" infections.") + "\\boxed{"
    assert called(found)[0][1].tolist() == [1, 0, 0, 0]


def test_a_prediction_that_is_read_by_its_first_words_ends_with_them(tokenizer: Any, tmp_path: Path) -> None:
    found = masking(tokenizer, tmp_path, read="leading", random_steps=1, random_words=1)
    texts = ["works by inhibiting", "a", "infections. It is", "..."]
    policy = Policy(tokenizer, *texts * SAMPLES)
    found.draw([(0, 0)], 0, policy)
    for start in range(SAMPLES, len(found.answers), SAMPLES):
        cut = [
            tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found.answers[start : start + SAMPLES]
        ]
        assert cut == ["works", "a", "infections", "..."]
    assert called(found)[2]["unstopped"] == 0


def test_a_span_with_marks_around_its_words_can_be_predicted_by_first_words(tokenizer: Any, tmp_path: Path) -> None:
    found = masking(tokenizer, tmp_path, read="leading")
    said = ["enzyme. It is", "enzyme, it is", "enzyme it is", "enzyme. It"]
    policy = Policy(
        tokenizer, *["\\mask{ enzyme. It is }", "\\mask{.}", "none", "none"], *said, *["a", ".", "", ". It"]
    )
    found.draw([(0, 0)], 0, policy)
    rewards, _, log = called(found)
    assert rewards[1].tolist() == [1, 0, 0, 0]
    assert rewards[2].tolist() == [0] * 4  # of a span without words
    assert log["counts/predictions"] == 2 * SAMPLES
    asking = found._asking
    assert [asking.reward(text, "enzyme. It is,") for text in ("enzyme. It is given", "enzyme It is")] == [1, 0]


def test_answers_are_written_in_pieces_of_whole_groups(tokenizer: Any, tmp_path: Path) -> None:
    found = masking(tokenizer, tmp_path, prompt_tokens=60, answer_tokens=40, generated_tokens=1000)
    assert found.at_once == 8
    assert masking(tokenizer, tmp_path, generated_tokens=1).at_once == SAMPLES


@pytest.mark.slow
def test_the_loss_is_a_mean_over_the_tokens_of_kept_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's loss `dapo` would count the tokens of the answers that are dropped too."""
    import torch
    from trl import GRPOTrainer

    rewards = object.__new__(Masking)
    rewards.samples, rewards.kept = 1, [True, False, True]
    rewards.draw = lambda *_: None  # type: ignore[method-assign] # nothing is drawn here
    trainer: Any = object.__new__(mask_trainer())
    trainer.reward_funcs = [rewards]
    trainer.state = type("State", (), {"global_step": 0})
    trainer.accelerator = type("Alone", (), {"gather": staticmethod(lambda value: value)})
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    given = {"completion_mask": mask, "advantages": torch.ones(3), "num_items_in_batch": mask.sum()}
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda *_: given)
    output = trainer._generate_and_score_completions([{"paragraph": 0, "number": 0}])
    assert output["num_items_in_batch"] == 3
    assert output["advantages"].tolist() == [1, 0, 1]
