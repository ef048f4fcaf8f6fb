"""Choices behind one context: the likelihoods of whole sequences in every family, and the plain way for the others."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config.stages import EvaluateSettings
from common.evaluation.exam import ExamQuestions, run_exam
from common.evaluation.shared_context import Row, batches_of, refusal, rows_of, score

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = 96
SMALL = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": WINDOW, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
SIDE, HEAD, NEAR = ({"sliding_window": 16}, {"head_dim": 8}, {"attention_types": [[["global", "local"], 1]]})
GPT2 = {"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": WINDOW, "initializer_range": 0.3}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "qwen3": SMALL | HEAD,
    "gemma2": SMALL | HEAD | SIDE,  # sliding and full layers in turns
    "gemma3_text": SMALL | HEAD | SIDE,
    "mistral": SMALL | SIDE,  # sliding layers alone
    "phi3": SMALL | SIDE,
    "olmo2": SMALL,
    "granite": SMALL,
    "mixtral": SMALL | {"num_local_experts": 4},
    "gpt2": GPT2,  # absolute positions
}
# They compute along the row, or look at the mask for something else.
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2}, "takes no mask of its own"),
    "bloom": ({"vocab_size": 200, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "takes no mask of its own"),
    "gpt_neo": (
        {"vocab_size": 200, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 16}
        | {"initializer_range": 0.3} | NEAR,
        "does not keep the choices behind one context apart",
    ),
    "lfm2": (SMALL | {"layer_types": ["conv", "full_attention"]}, "layers of type conv"),
}  # fmt: skip


def make(family: str, config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).train(False)


def make_requests(count: int = 5, longest: int = 60) -> list[tuple[Any, list[int], list[int]]]:
    """Return requests in no order, with contexts of all lengths and choices of one to five tokens."""
    rng = random.Random(1)

    def draw(size: int) -> list[int]:
        return [rng.randrange(1, 200) for _ in range(size)]

    contexts = [draw(size) for size in (1, longest, *(rng.randrange(2, longest) for _ in range(count - 2)))]
    requests = [((str(i), str(n)), context, draw(n)) for i, context in enumerate(contexts) for n in (1, 1, 2, 5, 3)]
    rng.shuffle(requests)
    return requests


def whole(model: Any, context: list[int], choice: list[int]) -> tuple[float, bool]:
    """Return the log-likelihood of a choice after its context, as one sequence without padding."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([(context + choice)[:-1]])).logits[0, len(context) - 1 :].double()
    steps, answer = torch.log_softmax(logits, dim=-1), torch.tensor(choice)
    return float(steps.gather(1, answer[:, None]).sum()), bool((steps.argmax(dim=-1) == answer).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_gives_the_likelihoods_of_whole_sequences(family: str) -> None:
    model = make(family, FAMILIES[family])
    assert refusal(model) is None
    requests = make_requests()
    found: dict[int, tuple[float, bool]] = {}
    for batch in batches_of(rows_of(requests, WINDOW), 10):
        found |= score(model, batch, "cpu")
    for index, (_, context, choice) in enumerate(requests):
        likelihood, greedy = whole(model, context, choice)
        assert found[index][0] == pytest.approx(likelihood, abs=1e-4)
        assert found[index][1] is greedy


def candidate(model: Any, tokenizer: Any, **options: Any) -> Any:
    from common.evaluation.candidate import Candidate

    return Candidate(pretrained=model, tokenizer=tokenizer, softmax_dtype="float32", **options)


@pytest.fixture(scope="module")
def tokenizer(make_checkpoint: Callable[..., Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_checkpoint())


@pytest.mark.parametrize("family", ["llama", "gpt2", *OTHERS])
def test_the_harness_gets_its_answers_in_its_order_whatever_the_model_can_do(
    family: str, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Contexts too long for the window lose their beginning, so that choices of different lengths share less of it."""
    config, reason = OTHERS.get(family, (FAMILIES.get(family), None))
    model = candidate(make(family, config or {}), tokenizer, batch_size=8, max_length=WINDOW)
    requests = make_requests(longest=WINDOW + 20)
    answers = model._loglikelihood_tokens(requests)
    for (_, context, choice), (likelihood, greedy) in zip(requests, answers, strict=True):
        seen = [*context, *choice][-(WINDOW + 1) :]
        expected = whole(model.model, seen[: -len(choice)], choice)
        assert likelihood == pytest.approx(expected[0], abs=1e-4)
        assert greedy is expected[1]
    assert (model.unshared is None) is (reason is None)
    assert reason is None or reason in model.unshared
    assert ("every choice is scored with its whole context" in caplog.text) is (reason is not None)


def test_a_longer_question_is_checked_again(tokenizer: Any) -> None:
    """A window that short questions fit is met by a later task."""
    config, _ = OTHERS["gpt_neo"]
    model = candidate(make("gpt_neo", config), tokenizer, batch_size=8, max_length=WINDOW)
    model._loglikelihood_tokens(make_requests(longest=8))
    assert model.unshared is None
    model._loglikelihood_tokens(make_requests())
    assert model.unshared is not None


def test_rows_of_one_choice_do_not_stand_for_those_of_several(tokenizer: Any) -> None:
    """One long answer is scored alike by a model whose window goes by places of the row, and several short are not."""
    config, _ = OTHERS["gpt_neo"]
    model = candidate(make("gpt_neo", config), tokenizer, batch_size=8, max_length=WINDOW)
    rng = random.Random(2)
    draw = functools.partial(rng.choices, range(1, 200))
    long, context = draw(k=50), draw(k=20)
    requests = [(("long", "0"), long, draw(k=30)), *((("short", str(n)), context, draw(k=5)) for n in range(5))]
    for (_, seen, choice), (likelihood, _) in zip(requests, model._loglikelihood_tokens(requests), strict=True):
        assert likelihood == pytest.approx(whole(model.model, seen, choice)[0], abs=1e-4)
    assert model.unshared is not None


def test_an_exam_says_that_contexts_were_not_shared(
    checkpoint: Path, make_questions: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exam, settings = ExamQuestions({"domain": make_questions(4)}), EvaluateSettings()
    shared = run_exam(checkpoint, exam, settings, device="cpu")
    monkeypatch.setattr("common.evaluation.shared_context.refusal", lambda _: "layers of type conv")
    plain = run_exam(checkpoint, exam, settings, device="cpu")
    assert plain.tasks["exam_domain_questions"].pop("unshared") == "layers of type conv"
    assert plain.tasks == shared.tasks
    for a, b in zip(shared.records, plain.records, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=2e-4)


def test_rows_hold_each_context_once_and_passes_are_no_larger_than_asked() -> None:
    requests = make_requests()
    rows = rows_of(requests, WINDOW)
    assert len({row.context for row in rows}) == len(rows) == 5
    assert sorted(index for row in rows for index, _ in row.choices) == list(range(len(requests)))
    assert [row.tokens for row in rows] == sorted((row.tokens for row in rows), reverse=True)
    assert sum(row.tokens for row in rows) == sum(len(row.context) + 7 for row in rows)
    assert [len(batch) for batch in batches_of(rows, 10)] == [2, 2, 1]
    assert [len(batch) for batch in batches_of(rows, 1)] == [1] * 5


def test_many_long_choices_take_several_rows() -> None:
    rows = rows_of([(("q", str(n)), [1, 2], [3] * 100) for n in range(25)], 128)
    assert [len(row.choices) for row in rows] == [10, 10, 5]


def test_a_row_holds_no_last_token_of_a_choice() -> None:
    assert Row((1, 2), [(0, [5]), (1, [5, 6, 7])]).tokens == 4
