"""What an exam gains from scoring a question's choices behind one context, against lm-evaluation-harness as it is.

In turns, on one thread: long questions with three choices for a model of SmolLM2-135M's shapes, and the medical exam of
embedded facts for the tiny model. Weights are random; likelihoods of both ways are compared. Time is that of this
process, since a machine that others use too gives it no steady share.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.material import context_for

ROUNDS = 5
LONG_QUESTIONS, CONTEXT = 12, 350  # tokens of a question, as PubMedQA's have with their abstracts
SMOLLM2_135M = {
    "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
# name -> (least ratio, largest difference of a log-likelihood)
FLOORS = {"long": (2.5, 1e-4), "embedded": (1.0, 1e-4)}


def main() -> int:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    missed = 0
    for name, make in (("long", long_exam), ("embedded", embedded_exam)):
        with tempfile.TemporaryDirectory() as folder:
            ratio, difference, seconds = compare(*make(Path(folder)))
        floor, most = FLOORS[name]
        good = ratio >= floor and difference <= most
        missed += not good
        print(
            f"  {'ok  ' if good else 'MISS'} {name:<10} {seconds:6.2f} s, {ratio:.2f} x the harness (floor {floor}), "
            f"log-likelihoods within {difference:.0e}"
        )
    torch.set_num_threads(threads)
    return missed


def long_exam(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    context, tokenizer = _saved(folder, lambda *_: LlamaForCausalLM(LlamaConfig(**SMOLLM2_135M)))
    words = " ".join(row["text"] for row in context.corpus.rows("cpt"))
    ids = tokenizer(words[: LONG_QUESTIONS * CONTEXT * 8], add_special_tokens=False).input_ids
    rows = [
        {
            "id": str(number), "question": tokenizer.decode(ids[number * CONTEXT : (number + 1) * CONTEXT]),
            "choices": ["yes", "no", "maybe"], "answer": 0,
        }
        for number in range(LONG_QUESTIONS)
    ]  # fmt: skip
    return folder / "model", rows


def embedded_exam(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    from common.stages.base import initialise

    context, _ = _saved(folder, initialise)
    return folder / "model", list(context.corpus.rows("questions_domain"))


def _saved(folder: Path, build: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Save a model beside the tiny chain's tokenizer; return the context and the tokenizer."""
    import torch

    from common.stages.base import make_tokenizer

    context = context_for("cpt", folder)
    tokenizer = make_tokenizer(context)
    torch.manual_seed(0)
    for part in (build(context, tokenizer), tokenizer):
        part.save_pretrained(folder / "model")
    return context, tokenizer


def compare(checkpoint: Path, rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Return (median ratio of times, largest difference of a log-likelihood, median seconds of ours)."""
    import torch

    from common.evaluation import harness
    from common.evaluation.tasks import question_task
    from common.models.special_tokens import stop_ids

    seconds: dict[str, list[float]] = {"plain": [], "shared": []}
    likelihoods: dict[str, list[float]] = {}
    with harness.quiet(), torch.inference_mode():
        model = harness.load(checkpoint, batch_size=64, device="cpu")
        for _ in range(ROUNDS):
            for name, times in seconds.items():
                model.checked.clear()
                model.unshared = "as the harness does" if name == "plain" else None
                ending = harness.answer_ending(model.tokenizer, stop_ids(model.model, model.tokenizer))
                task = question_task("exam", rows, chat=True, ending=ending)
                started = time.process_time()
                found = harness.evaluate(model, {"tasks": {"exam": task}}, True)
                times.append(time.process_time() - started)
                assert name == "plain" or model.unshared is None
                samples = sorted(found["samples"]["exam"], key=lambda sample: sample["doc_id"])
                likelihoods[name] = [value for sample in samples for value, _ in sample["filtered_resps"]]
    difference = max(abs(a - b) for a, b in zip(*likelihoods.values(), strict=True))
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    return ratio, difference, statistics.median(seconds["shared"])
