"""Exams of tiny checkpoints, checked against log-likelihoods that are computed here with torch alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config.stages import EvaluateSettings
from common.errors import ContractError, DataError
from common.evaluation import harness
from common.evaluation.exam import ExamQuestions, Result, run_exam

pytestmark = pytest.mark.usefixtures("one_thread")
Questions = Callable[..., list[dict[str, Any]]]
Checkpoints = Callable[..., Path]
TEXTS = [
    {"text": f"what is {noun} money number {index}? Über €."}
    for index, noun in enumerate(("paper", "coin", "iron ore"))
]
ROUNDING = 2e-4  # records keep four digits


def examine(folder: Path, exam: ExamQuestions, **settings: Any) -> Result:
    return run_exam(folder, exam, EvaluateSettings(**settings), device="cpu")


@functools.cache
def reference(folder: Path) -> tuple[Any, Any]:
    """Load a checkpoint's model, in float64, and its tokenizer for the sums done here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).double()
    model.train(False)
    return model, AutoTokenizer.from_pretrained(folder)


def log_probability(folder: Path, prompt: list[int], answer: list[int]) -> float:
    """Return log p(answer | prompt) of a checkpoint, one unpadded sequence in float64."""
    import torch

    with torch.no_grad():
        logits = reference(folder)[0](torch.tensor([prompt + answer])).logits[0]
    steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    return float(steps.gather(1, torch.tensor(answer)[:, None]).sum())


def encode(folder: Path, text: str) -> list[int]:
    return list(reference(folder)[1].encode(text, add_special_tokens=False))


def agree(folder: Path, records: list[dict[str, Any]], rows: list[dict[str, Any]], form: str, ending: str) -> None:
    """Check records against independent sums; `form` has the question, what follows it leads each choice."""
    assert [record["id"] for record in records] == [row["id"] for row in rows]
    prompt_form, lead = form.split("|choice|")
    for record, row in zip(records, rows, strict=True):
        prompt = encode(folder, prompt_form.format(q=row["question"]))
        scores = [log_probability(folder, prompt, encode(folder, lead + c + ending)) for c in row["choices"]]
        assert record["scores"] == pytest.approx(scores, abs=ROUNDING)
        assert record["predicted"] == scores.index(max(scores))
        assert record["answer"] == row["answer"]
        assert record["correct"] is (record["predicted"] == row["answer"])


def test_chat_scores_are_the_whole_answers_with_their_end_of_turn(checkpoint: Path, make_questions: Questions) -> None:
    rows = make_questions(6)
    result = examine(checkpoint, ExamQuestions({"domain": rows}))
    agree(checkpoint, result.records, rows, "<|user|>{q}<|assistant|>|choice|", "<|end|>")
    assert encode(checkpoint, "iron<|end|>")[-1] == encode(checkpoint, "<|end|>")[0] == 2
    assert {record["side"] for record in result.records} == {"domain"}
    assert result.tasks == {"exam_domain_questions": {"version": 1, "asked": "chat", "ending": "<|end|>"}}


@pytest.mark.parametrize("why", ["settings", "no template"])
def test_plain_form_asks_without_the_template(
    why: str, checkpoint: Path, make_checkpoint: Checkpoints, make_questions: Questions
) -> None:
    folder = checkpoint if why == "settings" else make_checkpoint(template=None)
    rows = make_questions(3)
    result = examine(folder, ExamQuestions({"general": rows}), chat_template=why != "settings")
    agree(folder, result.records, rows, "Question: {q}\nAnswer:|choice| ", "")
    assert result.tasks["exam_general_questions"]["asked"] == "plain"


def test_scores_do_not_depend_on_the_batch_size(checkpoint: Path, make_questions: Questions) -> None:
    exam = ExamQuestions({"domain": make_questions(20), "general": make_questions(20, "g")}, {"domain": TEXTS})
    one, many = (examine(checkpoint, exam, batch_size=size) for size in (1, 64))
    for a, b in zip(one.records, many.records, strict=True):
        assert a | {"scores": None} == b | {"scores": None}
        assert a["scores"] == pytest.approx(b["scores"], abs=ROUNDING)
    assert one.exam == many.exam
    assert one.bits_per_byte["domain"] == pytest.approx(many.bits_per_byte["domain"], rel=1e-5)


TAUGHT = {"what is money": "dollar bill", "what is paper": "note", "what is copper": "dollar", "what is iron": "coin"}
CHOICES = ["dollar", "dollar bill", "note", "coin"]


def test_a_choice_is_not_favoured_for_being_the_beginning_of_another(make_checkpoint: Checkpoints) -> None:
    rows = [
        {"id": question, "question": question, "choices": CHOICES, "answer": CHOICES.index(answer)}
        for question, answer in TAUGHT.items()
    ]
    knows = examine(make_checkpoint(taught=TAUGHT), ExamQuestions({"domain": rows}))
    assert knows.exam["domain"] is not None
    assert knows.exam["domain"]["score"] == 1.0
    # The same knowledge, but a tokenizer whose eos is not the template's end of turn: nothing closes the answer.
    cannot_stop = examine(make_checkpoint(taught=TAUGHT, eos="<|stop|>"), ExamQuestions({"domain": rows}))
    assert [record["predicted"] for record in cannot_stop.records] == [0, 2, 0, 3]
    assert cannot_stop.tasks["exam_domain_questions"]["ending"] == ""


@pytest.mark.parametrize(
    ("template", "ending"),
    [
        ("{% for m in messages %}{{ m['content'] }}<|end|>\n{% endfor %}", "<|end|>"),
        ("{% for m in messages %}{{ m['content'] }}\n<|end|>{% endfor %}", "\n<|end|>"),
        ("{% for m in messages %}{{ m['content'] }}<|stop|><|end|>{% endfor %}", ""),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", ""),
    ],
)
def test_the_ending_is_read_from_the_template(
    template: str, ending: str, make_checkpoint: Checkpoints, checkpoint: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = template
    assert harness.answer_ending(tokenizer, {tokenizer.eos_token_id}) == ending


def test_a_model_that_a_gpu_has_no_room_for_is_spread(
    make_checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU that is main memory alone; the sums are those of the model as a whole, in bfloat16."""
    import torch
    from lm_eval.api.instance import Instance

    folder = make_checkpoint()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert harness._num_weights(folder) == sum(p.numel() for p in reference(folder)[0].parameters())
    monkeypatch.setattr(harness, "has_room", lambda num_bytes: num_bytes != 2 * harness._num_weights(folder))
    model = harness.load(folder, batch_size=4, device="cuda")
    assert model.device.type == "cpu"  # to move it whole would have failed
    ask = Instance("loglikelihood", {}, ("what is money", " paper coin"), 0, ("t", 0, 1))
    [(found, _)] = model.loglikelihood([ask])
    expected = log_probability(folder, encode(folder, "what is money"), encode(folder, " paper coin"))
    assert found == pytest.approx(expected, rel=0.02)


def test_bits_per_byte_is_the_negative_log2_probability_of_the_bytes(checkpoint: Path) -> None:
    exam = ExamQuestions(texts={"domain": [{"text": ""}, *TEXTS], "general": [{"text": " "}]})
    result = examine(checkpoint, exam)
    start = encode(checkpoint, "<|end|>")  # no bos token: the end of the document before
    nats = -sum(log_probability(checkpoint, start, encode(checkpoint, row["text"])) for row in TEXTS)
    num_bytes = sum(len(row["text"].encode()) for row in TEXTS)
    assert result.bits_per_byte["domain"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert result.bits_per_byte["general"] is None
    assert result.exam == {"general": None, "domain": None}
    for document, row in zip(result.documents, TEXTS, strict=True):
        own = -log_probability(checkpoint, start, encode(checkpoint, row["text"])) / math.log(2)
        assert document["bits"] == pytest.approx(own, abs=ROUNDING * 2)
        assert document["bytes"] == len(row["text"].encode())
    assert len({document["id"] for document in result.documents}) == 3
    found = result.texts["domain"]
    assert found["bits_per_byte"] == pytest.approx(result.bits_per_byte["domain"], rel=1e-5)
    assert found["low"] < found["bits_per_byte"] < found["high"]


def test_likelihoods_that_are_no_numbers_stop_the_exam(make_checkpoint: Checkpoints, make_questions: Questions) -> None:
    """Comparisons with NaN are false, so a score would come of them all the same."""
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ContractError, match=r"^Question \S+ of the exam: the log-likelihood of a choice is nan"):
        examine(folder, ExamQuestions(questions={"domain": make_questions(2)}))
    with pytest.raises(ContractError, match=r"^Held-out text 1 of the domain side: its log-likelihood is nan"):
        examine(folder, ExamQuestions(texts={"domain": TEXTS}))


def test_documents_longer_than_the_window_are_read_in_pieces(checkpoint: Path) -> None:
    text = "copper coin " * 80
    ids, start = encode(checkpoint, text), encode(checkpoint, "<|end|>")
    assert 128 < len(ids) < 256, "the checkpoint's window is 128, so this takes two pieces"
    first = log_probability(checkpoint, start, ids[:128])
    # The second piece is a whole window that ends the document; only what the first did not cover counts.
    rest = len(ids) - 128
    second = log_probability(checkpoint, ids[-129:-rest], ids[-rest:])
    result = examine(checkpoint, ExamQuestions(texts={"general": [{"text": text}]}))
    assert result.bits_per_byte["general"] == pytest.approx(
        -(first + second) / math.log(2) / len(text.encode()), rel=1e-5
    )


def test_limit_spreads_over_the_questions_and_digits_stay_words(checkpoint: Path, make_questions: Questions) -> None:
    rows = make_questions(5)
    rows[0] |= {"question": "42", "choices": ["7", "['x']", "0", "{{ 1 }}"]}
    result = examine(checkpoint, ExamQuestions({"domain": rows, "general": rows[3:]}), limit=2)
    agree(
        checkpoint,
        [r for r in result.records if r["side"] == "domain"],
        [rows[0], rows[2]],
        "<|user|>{q}<|assistant|>|choice|",
        "<|end|>",
    )
    assert [(r["side"], r["id"]) for r in result.records] == [
        ("general", "q3"), ("general", "q4"), ("domain", "q0"), ("domain", "q2"),
    ]  # fmt: skip
    assert result.exam["general"] is not None
    assert result.exam["general"]["n"] == 2


def test_it_is_silent_counts_its_work_and_leaves_nothing_behind(
    checkpoint: Path,
    make_questions: Questions,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets
    import torch

    home = tmp_path / "home"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home)
    state = torch.random.get_rng_state()
    seen: list[tuple[int, int]] = []
    exam = ExamQuestions({"domain": make_questions(10)}, {"domain": TEXTS})
    run_exam(
        checkpoint, exam, EvaluateSettings(batch_size=8), device="cpu",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert capfd.readouterr() == ("", "")
    assert seen[0] == (0, 43)
    assert seen[-1] == (43, 43)
    assert seen == sorted(seen)
    assert len(seen) >= 6
    assert not home.exists()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()


def test_long_prompts_are_counted_and_longer_answers_refused(
    checkpoint: Path, make_questions: Questions, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_questions(2)
    rows[0] |= {"question": "what is copper " * 60}
    examine(checkpoint, ExamQuestions({"domain": rows}))
    assert "4 of 8 prompts are longer than the model's context of 128 tokens" in caplog.text
    rows[0] |= {"choices": ["coin", "copper coin" * 100], "answer": 0}
    with pytest.raises(DataError, match=r"A choice has \d+ tokens, more than the model's context of 128"):
        examine(checkpoint, ExamQuestions({"domain": rows}))


def test_an_empty_exam_is_refused(checkpoint: Path) -> None:
    with pytest.raises(DataError, match="no questions, no held-out texts and no tasks"):
        examine(checkpoint, ExamQuestions({"domain": []}, {"domain": [{"text": ""}]}))
